"""Speed compared with the peer, both sides in one run. Each module is a command: `python -m benchmarks.ppo --help`."""
