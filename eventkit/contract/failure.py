"""F: failure."""
