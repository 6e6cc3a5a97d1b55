"""What a run will need, before it begins: memory by part, and time."""
