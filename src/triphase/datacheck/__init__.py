"""Checks of the records, and whether the model can process them, before anything is trained."""
