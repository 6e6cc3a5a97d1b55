"""The command line: a table of commands, and a thin file for each: parse, call, print."""
