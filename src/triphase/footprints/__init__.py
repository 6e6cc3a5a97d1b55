"""Declarations of a phase's memory and time: moments by part, traced work, lengths of records."""
