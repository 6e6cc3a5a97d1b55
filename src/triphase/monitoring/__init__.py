"""What a run shows while it is running: metrics, progress and alarms. Free of torch."""
