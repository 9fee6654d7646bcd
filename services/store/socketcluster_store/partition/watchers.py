"""Which links watch which key chains of a partition. In memory: workers watch again whatever they watched."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.data.expiries import Chain
from socketcluster_store.data.watches import BEGIN, END, STOP, KeyChange
from socketcluster_store.links import WorkerLink, pack_event

GRACE = 60.0
"""Seconds for which the changes of a key chain are counted with nobody watching: a worker that comes back within them
knows how many it has missed."""

Key = tuple[bytes, Chain]


class Watchers:
    """The links that watch, by session id and key chain. Times are seconds since the Unix epoch."""

    def __init__(self) -> None:
        self.links: dict[Key, dict[WorkerLink, bool]] = {}
        """Who watches; true: its watch has begun."""
        self.alone: OrderedDict[Key, float] = OrderedDict()
        """What nobody watches any more, or not yet again, and is counted nevertheless, since when, in that order."""

    def __bool__(self) -> bool:
        return bool(self.links or self.alone)

    def load(self, watched: Iterable[Key], now: float) -> None:
        """Take over what is watched, by workers that have yet to come."""
        for key in watched:
            if key not in self.links:  # those that could not be forgotten may be watched again by now
                self.alone.setdefault(key, now)

    def add(self, link: WorkerLink, key: Key) -> None:
        """Note that a link is about to watch."""
        self.links.setdefault(key, {}).setdefault(link, False)

    def others(self, link: WorkerLink, key: Key) -> bool:
        """Say whether another link watches."""
        return any(other is not link for other in self.links.get(key, ()))

    def remove(self, link: WorkerLink, now: float) -> None:
        """Remove a link that has ended."""
        for key in [key for key, links in self.links.items() if link in links]:
            self._discard(link, key, now)

    def refused(self, link: WorkerLink, key: Key) -> None:
        """Note that a watch did not begin."""
        links = self.links.get(key, {})
        if links.get(link) is False:
            del links[link]
            if not links:
                del self.links[key]

    def next(self) -> float | None:
        """Return when ``due`` is to be called next."""
        return next(iter(self.alone.values())) + GRACE if self.alone else None

    def due(self, now: float) -> list[Key]:
        """Forget what nobody has watched for a while, and return it."""
        due = []
        while self.alone and next(iter(self.alone.values())) + GRACE <= now:
            key, _since = self.alone.popitem(last=False)
            if key in self.links:  # the engine is at a watch of it, which may be refused
                self.alone[key] = now
            else:
                due.append(key)
        return due

    def tell(self, changes: Sequence[KeyChange], link: WorkerLink | None, now: float) -> None:
        """Send changes to who watches; what began and stopped in between concerns ``link``."""
        for change in changes:
            key = change.session_id, change.watched
            if change.operation == STOP:
                if link is not None:
                    self._discard(link, key, now)
                continue
            event = pack_event(
                store_pb2.Event(
                    data_change=store_pb2.DataChange(
                        session_id=change.session_id.decode(),
                        watched=change.watched,
                        keys=change.keys,
                        operation=change.operation,
                        value=change.value,
                        count=change.number,
                        generation=change.generation,
                    )
                )
            )
            links = self.links.get(key, {})
            if change.operation == BEGIN:
                if link is not None and link in links:
                    links[link] = True
                    self.alone.pop(key, None)
                    link.tell(event)
                continue
            for watcher, begun in links.items():
                if begun:
                    watcher.tell(event)
            if change.operation == END:
                self.links.pop(key, None)
                self.alone.pop(key, None)

    def _discard(self, link: WorkerLink, key: Key, now: float) -> None:
        links = self.links.get(key, {})
        if links.pop(link, None) is not None and not links:
            del self.links[key]
            self.alone[key] = now
            self.alone.move_to_end(key)
