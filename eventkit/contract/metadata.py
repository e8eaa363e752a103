"""M: metadata."""
