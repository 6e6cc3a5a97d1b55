"""The command line: parses, wires, calls, prints."""
