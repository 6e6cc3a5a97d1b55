"""Integers to padded tensors, and the order in which they are taken."""
