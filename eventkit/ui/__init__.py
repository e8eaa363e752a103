"""The live view: a local page of what flows, what waits and what was given up on. Needs the extra `ui`."""

from eventkit.ui.doors import Doors
from eventkit.ui.serving import show

__all__ = ["Doors", "show"]
