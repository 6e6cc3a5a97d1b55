"""Simulated labelers: a model of how people rank, and clients that rank over HTTP as people do."""
