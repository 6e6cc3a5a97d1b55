"""Everything that runs without the user's own data: a small real model, a tiny one, their tasks, and gold scores."""
