"""Scorers of responses: the reward model, a server, a function, each behind one `Scorer`."""
