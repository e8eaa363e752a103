"""D: delivery."""
