"""What runs without any data of your own: a real small model, a tiny one, their tasks, and the gold scores."""
