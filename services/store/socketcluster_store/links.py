"""The store's end of the links to workers: what waits to be sent on each, and which there are."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Protocol

import grpc

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store_client.messages import Result, encode_results

log = get_logger(__name__)

REPLY_BYTES = 4 * 1024 * 1024
"""What is gathered in one LinkReply, unless a single item is larger."""
MAX_REPLACED = 8
"""Processes that are remembered of those whose place another one of the same worker took."""
_ITEM_BYTES = 32
"""What an event or a result costs beside its value."""

_streams = itertools.count(1)
_SESSION_ENDS = frozenset(("session_destroyed", "session_renewed"))

_State = store_pb2.Announcement | store_pb2.Directory
"""What takes the place of what a worker was told before."""
_Item = list[Result] | _State | bytes
"""What waits to be sent: results, what is owned, which workers there are, or an event that ``pack_event`` made."""


class SessionEndEvent(bytes):
    """An event that ``pack_event`` made of a session's end or renewal.

    A worker takes the results of a reply before its events. The answer to an attachment that came after the end says
    that the session is new: if the worker took it first, it would tell of an end that it did not hear of, and then of
    this one. So results that are queued after such an event go into a later reply.
    """


class Outlet(Protocol):
    """A stream that takes replies at once, as long as it is writable."""

    @property
    def writable(self) -> asyncio.Future[None] | None:
        """Done when it takes more; ``None``: it does."""

    def send(self, message: bytes) -> None:
        """Send a reply."""


class WorkerLink:
    """A worker's stream: gathers what is to be sent in one event-loop turn, and bounds what waits.

    No more answers are made while many wait (``drained``); events come unasked, and too many end the stream.
    """

    def __init__(
        self,
        worker_id: str,
        incarnation: str,
        max_bytes: int,
        http: tuple[str, int] | None = None,
        mesh_port: int = 0,
    ) -> None:
        self.worker_id = worker_id
        self.http = http
        """Where other workers reach this one."""
        self.mesh_port = mesh_port
        """Where they link to it, on that host."""
        self.process = f"{worker_id}/{incarnation}"
        """Which process of the worker it is."""
        self.stream = next(_streams)
        """Which of this store's streams it is."""
        self.applying = False
        """Are operations of it being applied? That is not to be broken off."""
        self.under_way: dict[asyncio.Task[None], int] = {}
        """What applies operations of it while later ones are read, and the bytes of their values."""
        self.last_call: dict[int, asyncio.Task[None]] = {}
        """What applies the last of them, by partition."""
        self.sessions: set[str] = set()
        self.channels: set[str] = set()
        self.closing: asyncio.Future[tuple[grpc.StatusCode, str]] = asyncio.get_running_loop().create_future()
        """Done, with the stream's status, when the store is to end it."""
        self._max_bytes = max_bytes
        self._bytes = 0  # of what waits
        self._answer_bytes = 0  # of the answers among it
        self._items: deque[_Item] = deque()
        self._only_events = True  # is there nothing else among the items?
        self._session_ends = False  # may there be ends of sessions among them?
        self._stream: Outlet | None = None  # what takes replies in the turn in which they are made
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._farewell: tuple[grpc.StatusCode, str] | None = None

    @property
    def open(self) -> bool:
        """May something still be sent?"""
        return not self.closing.done()

    def tell(self, event: bytes) -> None:
        """Send an event that ``pack_event`` made, with whatever else is sent in this turn."""
        if self.closing.done():
            return
        if not self._items:
            self._rouse()
        if type(event) is SessionEndEvent:
            self._session_ends = True
        self._items.append(event)
        self._bytes += len(event) + _ITEM_BYTES
        self._limit_events()

    def answer(self, results: list[Result]) -> None:
        """Send results, with whatever else is sent in this turn; the list is the link's from now on."""
        if self.closing.done() or not results:
            return
        if not self._items:
            self._rouse()
        size = _size(results)
        if size > REPLY_BYTES and len(results) > 1:
            half = len(results) // 2
            self.answer(results[:half])
            self.answer(results[half:])
            return
        last = self._items[-1] if self._items else None
        if isinstance(last, list) and self._bytes + size <= REPLY_BYTES:
            last += results
        else:
            self._items.append(results)
        self._only_events = False
        self._bytes += size
        self._answer_bytes += size

    def announce(self, state: _State) -> None:
        """Send what this store owns, or which workers there are, with whatever else is sent in this turn."""
        if self.closing.done():
            return
        if not self._items:
            self._rouse()
        self._items.append(state)
        self._only_events = False
        self._bytes += _size(state)
        self._limit_events()

    def _limit_events(self) -> None:
        waiting = self._bytes - self._answer_bytes
        if waiting <= self._max_bytes:
            return
        log.error(
            "a worker does not read, its link is closed",
            worker=self.worker_id,
            waiting_bytes=waiting,
            setting="SOCKETCLUSTER_MAX_LINK_BYTES",
        )
        self.close(grpc.StatusCode.RESOURCE_EXHAUSTED, f"more than {self._max_bytes} bytes wait for this worker")

    @property
    def full(self) -> bool:
        """Does so much wait that no more answers are to be made before it is ``drained``?"""
        return self._bytes > self._max_bytes // 4

    async def drained(self) -> None:
        """Wait until little waits to be sent, or the link is to end."""
        while self.full and self.open:
            self._drained.clear()
            await self._drained.wait()

    def close(self, status: grpc.StatusCode, reason: str) -> None:
        """Ask for the stream's end, without what still waits."""
        if not self.closing.done():
            self.closing.set_result((status, reason))
            self._items.clear()
            self._drained.set()

    def finish(self, status: grpc.StatusCode, reason: str) -> None:
        """Ask for the stream's end once everything that waits is sent."""
        self._farewell = (status, reason)
        self._wake.set()

    async def write(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Send what is to be sent, until cancelled; each reply is given as the bytes of a ``LinkReply``."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._items:
                reply, size, answer_size = self._gather()
                await write(reply)
                self._sent(size, answer_size)
            self._say_farewell()

    async def write_at_once(self, stream: Outlet) -> None:
        """Do the same, but send what a turn brings at its end, without waking this task as long as the stream takes it.

        Every link wakes up a process at its other end; what is saved here is as much again in this one.
        """
        self._stream = stream
        try:
            while True:
                self._send_items()
                await self._wake.wait()
                self._wake.clear()
                while (writable := stream.writable) is not None:
                    await writable
        finally:
            self._stream = None

    def _rouse(self) -> None:
        """Have what is about to wait sent with whatever else this turn brings."""
        if self._stream is None:
            self._wake.set()
        else:
            asyncio.get_running_loop().call_soon(self._send_items)

    def _send_items(self) -> None:
        stream = self._stream
        if stream is None:
            return
        while self._items:
            if stream.writable is not None:
                self._wake.set()
                return
            reply, size, answer_size = self._gather()
            stream.send(reply)
            self._sent(size, answer_size)
        self._say_farewell()

    def _sent(self, size: int, answer_size: int) -> None:
        self._bytes -= size
        self._answer_bytes -= answer_size
        self._drained.set()

    def _say_farewell(self) -> None:
        if self._farewell is not None:
            self.close(*self._farewell)

    def _gather(self) -> tuple[bytes, int, int]:
        """Take what fits one reply, in order; return its bytes, how much counts for it, and for its answers."""
        items = self._items
        if self._bytes <= REPLY_BYTES and not self._session_ends:
            self._items = deque()
            size, answer_size = self._bytes, self._answer_bytes
        else:
            waiting, items = items, deque()
            size = answer_size = 0
            ended = False
            while waiting and size <= REPLY_BYTES:
                item = waiting[0]
                if ended and not isinstance(item, bytes):
                    break
                is_answer = isinstance(item, list)
                ended = ended or type(item) is SessionEndEvent
                item_size = _size(item)
                size += item_size
                if is_answer:
                    answer_size += item_size
                items.append(waiting.popleft())
            self._session_ends = self._session_ends and bool(waiting)
        if self._only_events:
            return b"".join(items), size, 0  # type: ignore[arg-type]
        self._only_events = not self._items
        reply = store_pb2.LinkReply()
        results: list[Result] = []
        events = []
        for item in items:
            if isinstance(item, list):
                results += item
            elif isinstance(item, bytes):
                events.append(item)
            elif isinstance(item, store_pb2.Announcement):
                reply.announcement.CopyFrom(item)
            else:
                reply.directory.CopyFrom(item)
        if results:
            reply.results = encode_results(results)
        # the bytes of messages, one after the other, are those of the message that has the fields of all
        return b"".join((reply.SerializeToString(), *events)), size, answer_size


def pack_event(event: store_pb2.Event) -> bytes:
    """Return the bytes of a ``LinkReply`` with that one event: made once, however many links it goes to."""
    packed = store_pb2.LinkReply(events=[event]).SerializeToString()
    return SessionEndEvent(packed) if event.WhichOneof("kind") in _SESSION_ENDS else packed


def _size(item: _Item) -> int:
    """Return how much an item counts, as long as it waits."""
    if isinstance(item, bytes):
        return len(item) + _ITEM_BYTES
    if isinstance(item, list):
        return sum([len(result.value) for result in item]) + _ITEM_BYTES * len(item)
    return item.ByteSize() + _ITEM_BYTES


class Links:
    """The open links, at most one a worker.

    Two live processes with one worker's id would close each other's links for ever. Whichever comes again after another
    one took its place shows that there are two; then the one that was started later has the id.
    """

    def __init__(self) -> None:
        self._links: dict[str, WorkerLink] = {}
        # By a linked worker's id, the processes of the same id whose place was taken, and whether that was told
        self._replaced: dict[str, dict[str, bool]] = {}

    def __iter__(self) -> Iterator[WorkerLink]:
        return iter(self._links.values())

    def refuses(self, link: WorkerLink) -> bool:
        """Is it a second live process with one worker's id, which was started earlier than the linked one?"""
        replaced = self._replaced.get(link.worker_id, {})
        linked = self._links.get(link.worker_id)
        if link.process not in replaced or linked is None or link.process > linked.process:
            return False
        if not replaced[link.process]:
            replaced[link.process] = True
            log.error(
                "two processes have one worker's id, the one that was started earlier is refused",
                worker=link.worker_id,
                addresses=[each.http and f"{each.http[0]}:{each.http[1]}" for each in (link, linked)],
                what_to_do="give each worker a name of its own, SOCKETCLUSTER_NAME, or end one of them",
            )
        return True

    def add(self, link: WorkerLink) -> None:
        """Add a link; an earlier one of the same worker, which the store may not know to be broken, is closed."""
        earlier = self._links.pop(link.worker_id, None)
        if earlier is not None:
            log.warning("a worker linked again, its earlier link is closed", worker=link.worker_id)
            earlier.close(grpc.StatusCode.ABORTED, "another link of the same worker has taken over")
            if earlier.process != link.process:
                replaced = self._replaced.setdefault(link.worker_id, {})
                replaced.setdefault(earlier.process, False)
                if len(replaced) > MAX_REPLACED:
                    del replaced[next(iter(replaced))]
        self._links[link.worker_id] = link
        if link.http is None or (
            earlier is not None and (earlier.http, earlier.mesh_port) == (link.http, link.mesh_port)
        ):
            link.announce(self._directory())  # which is what the others have
        else:
            self.announce(self._directory())

    def remove(self, link: WorkerLink) -> None:
        """Remove a link that has ended."""
        if self._links.get(link.worker_id) is link:
            del self._links[link.worker_id]
            self._replaced.pop(link.worker_id, None)
            if link.http is not None:
                self.announce(self._directory())

    def tell(self, events: Iterable[store_pb2.Event]) -> None:
        """Tell every link of events."""
        packed = [pack_event(event) for event in events]
        for link in list(self._links.values()):
            for event in packed:
                link.tell(event)

    def announce(self, state: _State) -> None:
        """Tell every link of the ownership, or of the workers."""
        for link in list(self._links.values()):
            link.announce(state)

    def _directory(self) -> store_pb2.Directory:
        return store_pb2.Directory(
            workers=[
                store_pb2.WorkerAddress(
                    worker_id=link.worker_id,
                    http_host=link.http[0],
                    http_port=link.http[1],
                    mesh_port=link.mesh_port,
                )
                for link in self._links.values()
                if link.http is not None
            ]
        )
