"""Triphase: reinforcement learning from human feedback, in three phases and on one machine."""

__version__ = "0.1.0"
