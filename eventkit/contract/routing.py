"""R: routing."""
