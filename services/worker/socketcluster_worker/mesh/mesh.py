"""The links of this worker to all others of the cluster.

Of two workers the one with the lesser id connects to the other one. Each tells the other which rooms it has, and is
sent what is broadcast to these.

Who was told of a join is to be reached from everywhere. So what a worker says of its rooms leaves before whatever its
clients are told behind it, and a worker takes what others have said before it looks who is to get a broadcast, as the
event loop tells of ready connections in no order. On one machine that is exact. Between machines news of a join takes
as long as a packet does, where clients need several for what follows from it.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import select
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial

import msgspec

from socketcluster_runtime.addresses import split_host_port
from socketcluster_runtime.errors import AddressInUseError
from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_runtime.sockets.entrance import Entrance, listening_socket
from socketcluster_runtime.sockets.framed import FramedStream
from socketcluster_runtime.tls.rpc_tls import RpcTls
from socketcluster_runtime.tls.stream_tls import client_context, server_context
from socketcluster_worker.ids import ID_LENGTH
from socketcluster_worker.mesh import frames
from socketcluster_worker.mesh.frames import Hello
from socketcluster_worker.mesh.greeting import Greeting
from socketcluster_worker.mesh.interest import OthersRooms, OwnRooms, bits
from socketcluster_worker.mesh.neighbour import NOTHING, Counts, Neighbour

log = get_logger(__name__)

MEETING_TIME = 2.0
"""Seconds that a new worker waits for connections to all others before it takes clients."""
CONNECT_TIMEOUT = 5.0
FIRST_PAUSE = 0.05
"""Seconds between the first two attempts to connect; it doubles, with jitter, up to ``LONGEST_PAUSE``."""
LONGEST_PAUSE = 1.0
ADVICE = "let workers through to each other; mesh_listen (SOCKETCLUSTER_MESH_LISTEN) says at which port"
MAX_EARLY = 10_000
"""Broadcasts that wait until a store has told of the other workers."""
MAX_EARLY_BYTES = 16 * 1024 * 1024
"""What these have together."""
MAX_FORGOTTEN = 10_000
"""Of workers that are gone, how many at most are known by their counts."""
KEPT = 10.0
"""Seconds for which a worker is remembered that is not connected and that no store knows any more."""

Address = tuple[str, int]
Receive = Callable[[bytes], None]
Take = Callable[[Neighbour, bytes], None]
Publish = Callable[[bytes, dict[str, int]], None]


class Mesh:
    """The links of a worker.

    Args:
        worker_id: the worker's.
        app_name: the application.
        key: what the workers of the cluster have in common.
        tls: what links between machines are secured with.
        room: told when there is no descriptor for a link.
    """

    def __init__(self, worker_id: str, app_name: str, key: bytes, tls: RpcTls | None, room: Room | None = None) -> None:
        self.worker_id = worker_id
        self.origin = worker_id + secrets.token_urlsafe(9)
        """Which process of the worker this is."""
        self.neighbours: dict[str, Neighbour] = {}
        self._app_name = app_name
        self._key = key
        self._tls = tls
        self._room = room or Room()
        self._own = OwnRooms()
        self._others = OthersRooms()
        self._by_bit: dict[int, Neighbour] = {}
        self._receivers: dict[str, tuple[Receive, Publish]] = {}
        self._early: list[tuple[str, bytes]] | None = []  # what was broadcast before anybody was known
        self._early_bytes = 0
        self._too_early = 0
        self._forgotten: OrderedDict[str, Counts] = OrderedDict()
        self._entrance: Entrance | None = None
        self._greetings: set[FramedStream] = set()
        self._dialing: dict[str, asyncio.Task[None]] = {}
        self._forgetting: dict[str, asyncio.TimerHandle] = {}
        self._news = asyncio.Event()
        self._linked: dict[int, FramedStream] = {}  # by descriptor
        self._readable = select.epoll()
        self._closed = False
        self._apart = Condition(
            log,
            "workers do not reach each other: broadcasts between them go by the stores",
            over="workers reach each other again",
            lasts=True,
        )

    # From its beginning to its end.

    def listen(self, address: str) -> int:
        """Listen for other workers at ``host:port``; return the port.

        Raises:
            AddressInUseError: somebody else listens there, or this process may not.
        """
        host, port = split_host_port(address, any_port=True)
        context = None if self._tls is None else server_context(self._tls)
        try:
            bound = listening_socket(host, port)
        except OSError as error:
            raise AddressInUseError(f"cannot listen on {address} for other workers: {error.strerror}") from None
        self._entrance = Entrance(bound, self._accepted, self._room, context=context, patience=CONNECT_TIMEOUT)
        found: int = bound.getsockname()[1]
        return found

    def know(self, workers: Mapping[str, Address]) -> None:
        """Take which other workers the stores know, and where these listen."""
        if self._closed:
            return
        for worker_id, address in workers.items():
            if worker_id != self.worker_id:
                neighbour = self._neighbour(worker_id)
                neighbour.address = address
                if (timer := self._forgetting.pop(worker_id, None)) is not None:
                    timer.cancel()
                neighbour.wait()
                self._dial(neighbour)
        for worker_id, neighbour in self.neighbours.items():
            if worker_id not in workers:
                neighbour.address = None
                self._forget_later(neighbour)
        early, self._early = self._early, None
        for namespace, packed in early or ():
            self.send(sum(self._by_bit), namespace, packed)
        if self._too_early:
            log.warning("too much was broadcast before a store told of the other workers", lost=self._too_early)
            self._too_early = 0

    async def meet(self) -> None:
        """Wait until this worker is connected to all that are known, or ``MEETING_TIME`` is over."""
        try:
            async with asyncio.timeout(MEETING_TIME):
                while any(neighbour.stream is None for neighbour in self.neighbours.values()):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            apart = [worker_id for worker_id, neighbour in self.neighbours.items() if neighbour.stream is None]
            log.warning("other workers are not reached", workers=apart)

    async def close(self) -> None:
        """End all links."""
        self._closed = True
        self._apart.close()
        for timer in self._forgetting.values():
            timer.cancel()
        if self._entrance is not None:
            self._entrance.close()
        tasks = list(self._dialing.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for neighbour in self.neighbours.values():
            neighbour.close()
        for stream in tuple(self._greetings):
            stream.abort()
        self.neighbours.clear()
        self._readable.close()

    # For the namespaces.

    def serve(self, namespace: str, receive: Receive, publish: Publish) -> None:
        """Have what is broadcast to a namespace go its ways.

        Args:
            namespace: its name.
            receive: is given each broadcast that comes.
            publish: sends one by the store, to the workers that are given a number.
        """
        self._receivers[namespace] = receive, publish

    def listens(self, namespace: str) -> None:
        """Note that a namespace has clients here, from now on."""
        if self._own.listen(namespace):
            self._tell(frames.LISTENS + namespace.encode())

    def joined(self, namespace: str, room: str) -> None:
        """Note that a room has its first member here."""
        if (bucket := self._own.add(namespace, room)) is not None:
            self._tell(frames.JOINED + frames.encode(frames.Change(namespace, bucket)))

    def left(self, namespace: str, room: str) -> None:
        """Note that a room has no member here any more."""
        if (bucket := self._own.remove(namespace, room)) is not None and self.neighbours:
            said = frames.LEFT + frames.encode(frames.Change(namespace, bucket))
            for neighbour in self.neighbours.values():
                if neighbour.stream is not None:
                    neighbour.say(said)

    def find(self, namespace: str, rooms: Iterable[str] | None) -> int:
        """Return which workers are to get a broadcast, as a set to be given to ``send``; 0: none is."""
        if self._early is not None:
            return 1
        if not self.neighbours:
            return 0
        for descriptor, _events in self._readable.poll(0):
            if (stream := self._linked.get(descriptor)) is not None:
                stream.take_now()
        found = self._others.find(namespace, rooms)
        for room in rooms or ():  # that of one client is its id, which begins with its worker's
            if (neighbour := self.neighbours.get(room[:ID_LENGTH])) is not None:
                found |= neighbour.bit
        return found

    def send(self, workers: int, namespace: str, packed: bytes) -> None:
        """Send a broadcast to workers that ``find`` has found."""
        if self._early is not None:
            if len(self._early) < MAX_EARLY and self._early_bytes + len(packed) <= MAX_EARLY_BYTES:
                self._early.append((namespace, packed))
                self._early_bytes += len(packed)
            else:
                self._too_early += 1
            return
        encoded = namespace.encode()
        numbers: dict[str, int] = {}
        for bit in bits(workers):
            neighbour = self._by_bit[bit]
            if number := neighbour.send(namespace, encoded, packed):
                numbers[neighbour.id] = number
        if numbers:
            self.publish(namespace, packed, numbers)

    def takes(self, origin: str, numbers: Mapping[str, int]) -> bool:
        """Is a broadcast that came by the store one for this worker, and a new one?"""
        number = numbers.get(self.worker_id)
        worker_id = origin[:ID_LENGTH]
        if number is None or worker_id == self.worker_id:
            return False
        return self._neighbour(worker_id).takes(origin, number)

    def deliver(self, namespace: str, packed: bytes) -> None:
        """Hand a broadcast of another worker on, if there is such a namespace here."""
        if namespace in self._receivers:
            self._receivers[namespace][0](packed)

    # For the neighbours.

    def publish(self, namespace: str, packed: bytes, numbers: dict[str, int]) -> None:
        """Send a broadcast by the store."""
        self._apart.add(times=0, workers=sorted(numbers), what_to_do=ADVICE)
        self._receivers[namespace][1](packed, numbers)

    def _tell(self, frame: bytes) -> None:
        for neighbour in self.neighbours.values():
            if neighbour.stream is not None:
                neighbour.say_now(frame)

    def _neighbour(self, worker_id: str) -> Neighbour:
        neighbour = self.neighbours.get(worker_id)
        if neighbour is None:
            bit = 1
            while bit in self._by_bit:
                bit <<= 1
            neighbour = self.neighbours[worker_id] = self._by_bit[bit] = Neighbour(
                worker_id, bit, self, self._forgotten.pop(worker_id, NOTHING)
            )
            self._others.unknown |= bit
            self._forget_later(neighbour)
        return neighbour

    def _forget_later(self, neighbour: Neighbour) -> None:
        if neighbour.is_away and neighbour.id not in self._forgetting:
            loop = asyncio.get_running_loop()
            self._forgetting[neighbour.id] = loop.call_later(KEPT, self._forget, neighbour)

    def _forget(self, neighbour: Neighbour) -> None:
        del self._forgetting[neighbour.id]
        if neighbour.is_away:
            neighbour.close()
            del self.neighbours[neighbour.id], self._by_bit[neighbour.bit]
            self._forgotten[neighbour.id] = neighbour.counts  # so that what it repeats, should it come, is not new
            if len(self._forgotten) > MAX_FORGOTTEN:
                self._forgotten.popitem(last=False)
            self._others.drop(neighbour.bit)
            self._look_if_apart()

    def _look_if_apart(self) -> None:
        self._news.set()
        if self._apart.active and all(each.stream is not None for each in self.neighbours.values()):
            self._apart.end()

    # Connections.

    def _greeting(self, *, accepts: bool) -> Greeting:
        greeting = Greeting(
            self._key,
            self.worker_id,
            self.origin,
            self._app_name,
            met=self._met,
            ended=self._ended,
            accepts=accepts,
        )
        self._greetings.add(greeting.stream)
        return greeting

    def _accepted(self) -> FramedStream:
        greeting = self._greeting(accepts=True)
        greeting.stream.begun = greeting.begin
        return greeting.stream

    def _dial(self, neighbour: Neighbour) -> None:
        if self.worker_id < neighbour.id and neighbour.stream is None and neighbour.id not in self._dialing:
            task = asyncio.create_task(self._keep_dialing(neighbour), name=f"link to worker {neighbour.id}")
            self._dialing[neighbour.id] = task
            task.add_done_callback(partial(self._dialed, neighbour))

    def _dialed(self, neighbour: Neighbour, task: asyncio.Task[None]) -> None:
        del self._dialing[neighbour.id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("linking to a worker failed", worker=neighbour.id, exc_info=error)
        present = self.neighbours.get(neighbour.id)  # which need not be the one that was dialed
        if not self._closed and present is not None and present.address is not None:
            self._dial(present)  # it broke in the meantime

    async def _keep_dialing(self, neighbour: Neighbour) -> None:
        pause = FIRST_PAUSE
        if asyncio.get_running_loop().time() < neighbour.linked_at + LONGEST_PAUSE:  # it may end at once each time
            await asyncio.sleep(LONGEST_PAUSE * random.uniform(0.5, 1))  # noqa: S311  # spreads attempts
        while neighbour.stream is None and neighbour.address is not None:
            stream = self._greeting(accepts=False).stream
            host, port = neighbour.address
            tls = self._tls
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await asyncio.get_running_loop().create_connection(
                        partial(_same, stream),
                        host,
                        port,
                        ssl=None if tls is None else client_context(tls),
                        server_hostname=None if tls is None else tls.name,
                    )
                    while stream in self._greetings or neighbour.coming is stream:
                        self._news.clear()
                        await self._news.wait()
            except (OSError, TimeoutError, UnicodeError):  # the last one of a host that has no name for DNS
                stream.abort()
            if neighbour.stream is None:
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # spreads attempts, keeps no secret
                pause = min(2 * pause, LONGEST_PAUSE)

    def _met(self, stream: FramedStream, hello: Hello) -> None:
        self._greetings.discard(stream)
        if self._entrance is not None:
            self._entrance.known(stream)
        if self._closed or hello.worker_id == self.worker_id:
            stream.abort()
            self._news.set()
            return
        neighbour = self._neighbour(hello.worker_id)
        neighbour.comes(stream)
        self._others.forget(neighbour.bit)
        received = neighbour.received if neighbour.origin == hello.origin else 0
        stream.send_now((frames.write_received(received),))
        stream.received = partial(self._received, neighbour, stream, partial(self._resumed, stream, hello.origin))

    def _resumed(self, stream: FramedStream, origin: str, neighbour: Neighbour, frame: bytes) -> None:
        """Take what a neighbour says first: what it has got of what it was sent before."""
        stream.received = partial(self._received, neighbour, stream, self._take)
        rooms = frames.ROOMS + frames.encode(self._own.all())
        neighbour.connected(stream, origin, frames.read_received(frame), rooms)
        neighbour.linked_at = asyncio.get_running_loop().time()
        if stream.descriptor >= 0:
            self._linked[stream.descriptor] = stream
            self._readable.register(stream.descriptor, select.EPOLLIN)
        log.info("linked to a worker", worker=neighbour.id)
        self._look_if_apart()

    def _ended(self, stream: FramedStream) -> None:
        self._greetings.discard(stream)
        if self._entrance is not None:
            self._entrance.left(stream)
        for descriptor, linked in self._linked.items():
            if linked is stream:
                del self._linked[descriptor]
                with suppress(OSError):  # it is closed already
                    self._readable.unregister(descriptor)
                break
        for neighbour in self.neighbours.values():
            if stream in (neighbour.stream, neighbour.coming):
                self._others.forget(neighbour.bit)
                neighbour.coming = None
                neighbour.broken()
                if not self._closed:
                    log.info("the link to a worker has ended", worker=neighbour.id)
                    self._dial(neighbour)
                    self._forget_later(neighbour)
        self._news.set()

    def _received(self, neighbour: Neighbour, stream: FramedStream, take: Take, frame: bytes) -> None:
        try:
            take(neighbour, frame)
        except (msgspec.MsgspecError, ValueError):
            log.exception("a worker said what none says", worker=neighbour.id)
            stream.abort()

    def _take(self, neighbour: Neighbour, frame: bytes) -> None:
        kind = frame[:1]
        if kind == frames.BROADCAST:
            number, namespace, packed = frames.read_broadcast(frame)
            if neighbour.takes(neighbour.origin, number, len(packed)):
                try:
                    self.deliver(namespace, packed)
                except Exception:  # what comes behind it is delivered
                    log.exception("a broadcast of another worker could not be delivered", worker=neighbour.id)
        elif kind == frames.RECEIVED:
            neighbour.heard_of(frames.read_received(frame))
        elif kind == frames.JOINED:
            change = frames.read_change(frame[1:])
            self._others.add(neighbour.bit, change.namespace, change.bucket)
        elif kind == frames.LEFT:
            change = frames.read_change(frame[1:])
            self._others.remove(neighbour.bit, change.namespace, change.bucket)
        elif kind == frames.LISTENS:
            self._others.listen(neighbour.bit, frame[1:].decode())
        elif kind == frames.ROOMS:
            self._others.know(neighbour.bit, frames.read_rooms(frame[1:]))
        else:
            raise ValueError(f"a frame of kind {kind!r}")


def _same(stream: FramedStream) -> FramedStream:
    return stream
