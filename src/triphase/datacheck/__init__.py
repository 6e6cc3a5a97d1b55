"""What the records hold, and whether the model can take them: looked at before anything is trained."""
