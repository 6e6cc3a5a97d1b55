"""The command line: a table of verbs, and a thin file for each: parse, call, print."""
