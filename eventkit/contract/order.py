"""O: order."""
