"""The settings of a run: one frozen schema, read from YAML and the command line."""
