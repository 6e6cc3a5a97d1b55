"""What runs with nothing at hand: a real small model, a tiny one, their tasks, and the gold scores."""
