"""``radiffuse view``: scans, masks and runs in the browser. The server is the room ``viewer``."""

from ..viewer.serve import view

__all__ = ["view"]
