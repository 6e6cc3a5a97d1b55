"""The three phases and sampling: numbered steps of named calls, one screen each."""
