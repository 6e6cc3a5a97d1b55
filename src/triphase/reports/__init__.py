"""What a run has shown, for people (report.html) and for machines (summary.json). Free of torch."""
