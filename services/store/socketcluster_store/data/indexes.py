"""What of a partition's data is held in memory beside it, so that it need not be read to be found."""

from __future__ import annotations

from socketcluster_store.data.expiries import Expiries
from socketcluster_store.data.key_value import KeyValue
from socketcluster_store.data.sizes import SessionSizes
from socketcluster_store.data.watches import Watches


class Indexes:
    """The indexes of one partition: made of its data, and changed with it."""

    def __init__(self, sizes: SessionSizes, expiries: Expiries, watches: Watches) -> None:
        self.sizes = sizes
        self.expiries = expiries
        self.watches = watches
        self.loaded = False
        """Are they what ``load`` makes of the data?"""
        self._session_id = b""

    def load(self, kv: KeyValue) -> None:
        """Make them of the data."""
        self.expiries.load(kv)
        self.watches.load(kv)
        self.loaded = True

    def forget(self) -> None:
        """Have them made anew by the next ``load``: the data is not what was written last."""
        self.loaded = False
        self.sizes.clear()

    def begin(self, session_id: bytes) -> None:
        """Remember how to undo what follows on one tree."""
        self._session_id = session_id
        self.expiries.begin()
        self.watches.begin()

    def undo(self) -> None:
        """Undo what was done since ``begin``; the records are the caller's."""
        self.expiries.undo()
        self.watches.undo()
        self.sizes.forget(self._session_id)

    def commit(self) -> None:
        """Let what was done since ``begin`` be."""
        self.expiries.commit()
