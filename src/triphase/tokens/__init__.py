"""Text to integers and back: the only folder that handles a tokenizer's template, end and padding."""
