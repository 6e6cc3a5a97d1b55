"""Parameters and forward passes: one frozen base, its adapters, and two small heads. Token ids in, no text."""
