"""Where somebody is in a channel, or in a namespace's broadcasts, as clients are told it."""

from __future__ import annotations

from socketcluster_store_client.messages import Position

MAX_TEXT = 41
"""Characters of what can be a position."""
MAX_NUMBER = 2**64 - 2
"""The greatest epoch or offset: what follows it has 64 bits too, and more do not travel to the stores."""


def write_position(position: Position) -> str:
    """Return a position's text, which clients are given."""
    return f"{position.epoch}-{position.offset}"


def read_position(text: object) -> Position | None:
    """Return what ``write_position`` wrote, ``None`` if it is anything else."""
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        return None
    epoch, _, offset = text.partition("-")
    if not (epoch.isdecimal() and offset.isdecimal()):
        return None
    position = Position(int(epoch), int(offset))
    return position if max(position) <= MAX_NUMBER else None
