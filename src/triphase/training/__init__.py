"""One optimizer step, the state of a run, and how it is kept."""
