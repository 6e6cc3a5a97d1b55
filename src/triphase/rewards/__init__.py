"""Who says how good a response is: the reward model, a server, a function, each behind one `Scorer`."""
