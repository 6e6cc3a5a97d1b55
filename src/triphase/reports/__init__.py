"""The results of a run, for people (report.html) and for machines (summary.json). Free of torch."""
