"""What can be wrong with a document, or with what one is made from."""

from __future__ import annotations

from eventkit.errors import EventkitError


class DocumentError(EventkitError, ValueError):
    """No document can be made, read or compared. One line that names what is wrong, and the mend."""
