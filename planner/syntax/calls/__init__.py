"""The `calls` syntax: one task per line, read while the model still writes it."""
