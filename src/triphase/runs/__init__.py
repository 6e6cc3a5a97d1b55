"""A run: its directory, its steps in order, and what is done with it afterwards."""
