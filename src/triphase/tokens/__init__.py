"""Text to integers and back: the one place that knows a tokenizer's template, end and padding."""
