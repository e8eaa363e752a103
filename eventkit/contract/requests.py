"""Q: requests."""
