"""What a run shows while it goes on: metrics, progress and alarms. Free of torch."""
