"""Sampled experience: prompts in, responses out, behind one small interface."""
