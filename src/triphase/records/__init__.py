"""Plain records of data files and labels. Imports no torch and nothing of ours but the errors."""
