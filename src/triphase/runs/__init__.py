"""A run: its directory, its steps in order, and the operations on it afterwards."""
