"""Services to run, read and copy."""
