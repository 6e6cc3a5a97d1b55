"""The human step: people (or simulated labelers) rank, and the lead sees how far the labels can be trusted."""
