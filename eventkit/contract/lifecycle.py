"""L: lifecycle."""
