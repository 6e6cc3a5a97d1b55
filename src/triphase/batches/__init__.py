"""From integers to padded tensors, and the order of samples."""
