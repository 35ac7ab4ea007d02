"""What the server answers when it will not do something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class Refused(Exception):
    """A request that is not carried out.

    Attributes:
        status: HTTP status.
        message: One line for the user; plain text.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def unknown(what: str) -> Refused:
    """The refusal for something that is not, or no longer, there."""
    return Refused(404, f"There is no such {what}; reload the page.")


def known(table: Mapping[str, T], id: str, what: str) -> T:
    """What a table holds under an id.

    Raises:
        Refused: Nothing (404).
    """
    try:
        return table[id]
    except KeyError:
        raise unknown(what) from None
