"""What a phase declares of its memory and its time: moments by part, traced work, lengths of records."""
