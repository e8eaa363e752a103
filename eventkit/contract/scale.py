"""S: scale."""
