"""The processes that run services: in this one, in several that are watched over, or anew after each change."""
