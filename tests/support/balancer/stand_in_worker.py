"""A worker that is real on the outside: gRPC, handoff socket, HTTP port."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from socketcluster_proto.v1.worker_pb2 import (
    EndRelayedReply,
    EndRelayedRequest,
    OthersReply,
    WatchRequest,
    WorkerStatus,
)
from socketcluster_proto.v1.worker_pb2_grpc import WorkerServicer, add_WorkerServicer_to_server
from socketcluster_runtime import rpc
from socketcluster_runtime.secrets.keys import Purpose, derive_key
from socketcluster_wire import handoff, proxy_protocol

SECRET = "the secret of the tests"


class StandInWorker(WorkerServicer):
    """Answers each request with what it knows about it."""

    def __init__(self, worker_id: str, folder: Path, secret: str = SECRET, tcp: str | None = None) -> None:
        self.folder = folder
        self.address = f"unix:{folder}/{worker_id}.grpc" if tcp is None else f"{tcp}:0"
        self.status = WorkerStatus(worker_id=worker_id, name=f"name of {worker_id}", ready=True)
        self.watched = asyncio.Event()
        """Set while a balancer watches."""
        self.others: list[bool] = []
        """What it was told of the other workers."""
        self.seen_for: list[bytes] = []
        """The streams on which, as it was told at those times, it need not repeat its status."""
        self.stream = b""
        """What the balancer calls its stream."""
        self.asked_to_end: list[tuple[bytes, float]] = []
        """The balancers that copy bytes, and over how many seconds their connections are to end."""
        self.ended = asyncio.Event()
        """Set once it was asked so."""
        self.silent = False
        """Does it take sockets without acknowledging them?"""
        self.received: asyncio.Queue[handoff.Handoff] = asyncio.Queue()
        """What came to it when it was silent."""
        self.ack_offset = 0
        """Added to each id that is acknowledged."""
        self.declines = False
        """Has it no descriptor for anybody?"""
        self.declined: list[int] = []
        """The packets whose clients it has declined."""
        self.tells_ends = True
        """Does it tell which connections have ended?"""
        self.refused_acks: asyncio.Queue[OSError] = asyncio.Queue()
        self.acknowledged_together: list[int] = []
        """How many clients each acknowledgement was for."""
        self.serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None
        """Serves a connection in place of the usual answer."""
        self._taking = asyncio.Event()
        self._taking.set()
        self._secret = secret
        self._proxy_key = derive_key(secret, Purpose.PROXY_HEADERS)
        self._changed = asyncio.Condition()
        self._version = 0
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self._handoff: socket.socket | None = None
        self._links: list[socket.socket] = []
        self._grpc: AsyncExitStack | None = None
        self.came_by_path = 0
        """Connections to its Unix socket."""

    async def start(self, *, handoff: bool = True, http: bool = True) -> None:
        if handoff:
            self.listen_for_sockets()
        if http:
            server = await asyncio.start_server(self._relayed, "127.0.0.1", 0)
            self._stack.push_async_callback(server.wait_closed)
            self._stack.callback(server.close)
            self.status.http_port = server.sockets[0].getsockname()[1]
        await self.start_grpc()

    async def listen_at_a_path(self) -> None:
        """Serve HTTP at a Unix socket, too; before it is started."""
        path = self.folder / f"{self.status.worker_id}.http"

        async def relayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.came_by_path += 1
            await self._relayed(reader, writer)

        server = await asyncio.start_unix_server(relayed, path)
        self._stack.push_async_callback(server.wait_closed)
        self._stack.callback(server.close)
        self.status.http_path = str(path)

    def leave_its_path(self) -> None:
        """Let nobody find the Unix socket any more."""
        Path(self.status.http_path).unlink()

    async def start_grpc(self) -> None:
        server, _ = rpc.server(self._secret)
        add_WorkerServicer_to_server(self, server)
        port = rpc.listen(server, self.address)
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{port}"
        await server.start()
        self._grpc = AsyncExitStack()
        self._grpc.push_async_callback(server.stop, None)

    async def move_to_port_of(self, other: StandInWorker) -> int:
        """Listen on the port that another worker listens on, at an address of its own."""
        await self.stop_grpc()
        port = other.address.rpartition(":")[2]
        self.address = f"{self.address.rpartition(':')[0]}:{port}"
        await self.start_grpc()
        return int(port)

    async def stop_grpc(self) -> None:
        assert self._grpc is not None
        await self._grpc.aclose()
        self._grpc = None
        self.watched.clear()

    def listen_for_sockets(self) -> None:
        path = self.folder / f"{self.status.worker_id}.handoff"
        path.unlink(missing_ok=True)
        self._handoff = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._handoff.bind(str(path))
        self._handoff.listen()
        self._handoff.setblocking(False)
        self.status.handoff_path = str(path)
        self._spawn(self._accept(self._handoff))

    def stop_listening_for_sockets(self) -> None:
        assert self._handoff is not None
        asyncio.get_running_loop().remove_reader(self._handoff)
        self._handoff.close()
        self._handoff = None

    def pause_taking(self) -> None:
        """Leave packets where they are, like a worker that is stopped."""
        self._taking.clear()

    def resume_taking(self) -> None:
        self._taking.set()

    def break_links(self) -> None:
        """Close what balancers have opened, like a worker that dies."""
        for link in self._links:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def tell_end(self, number: int) -> None:
        """Say that a connection has ended."""
        for link in self._links:
            link.send(handoff.encode_ended([number]))

    async def stop(self) -> None:
        if self._grpc is not None:
            await self.stop_grpc()
        for task in tuple(self._tasks):
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in (self._handoff, *self._links):
            if sock is not None:
                sock.close()
        await self._stack.aclose()
        failures = [result for result in (*results, *self._failures) if isinstance(result, Exception)]
        assert not failures

    def set(self, **changes: object) -> None:
        """Change the status, which nobody is told."""
        for name, value in changes.items():
            if isinstance(value, list):  # a repeated field has no other way
                getattr(self.status, name)[:] = value
            else:
                setattr(self.status, name, value)

    async def tell(self, **changes: object) -> None:
        """Change the status that balancers see."""
        self.set(**changes)
        async with self._changed:
            self._version += 1
            self._changed.notify_all()

    async def Others(self, request_iterator: Any, context: Any) -> OthersReply:  # noqa: N802
        async for others in request_iterator:
            self.others.append(others.well)
            self.seen_for.append(others.beats_for)
        return OthersReply()

    async def EndRelayed(self, request: EndRelayedRequest, context: Any) -> EndRelayedReply:  # noqa: N802
        self.asked_to_end.append((request.balancer, request.seconds))
        self.ended.set()
        return EndRelayedReply()

    async def Watch(self, request: WatchRequest, context: object) -> AsyncIterator[WorkerStatus]:  # noqa: N802
        self.watched.set()
        self.stream = request.stream
        seen = -1
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._version != seen)  # noqa: B023  # waited for at once
                seen = self._version
            yield self.status

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            link, _ = await loop.sock_accept(listener)
            self._links.append(link)
            self._spawn(self._take(link))

    async def _take(self, link: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            readable = loop.create_future()
            loop.add_reader(link, _resolve, readable)
            try:
                await readable
            finally:
                loop.remove_reader(link)
            await self._taking.wait()
            arrived: list[tuple[socket.socket, handoff.Handoff]] = []
            goes_on = self._receive(link, arrived)
            if arrived:
                self._acknowledge(link, arrived)
            if not goes_on:
                return

    def _receive(self, link: socket.socket, arrived: list[tuple[socket.socket, handoff.Handoff]]) -> bool:
        """Add those to be acknowledged of all that have come; return whether more may come."""
        while True:
            try:
                packet, descriptors, flags, _ = socket.recv_fds(link, handoff.MAX_PACKET_BYTES, 4)
            except BlockingIOError:
                return True
            if not packet:
                return False
            assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
            (descriptor,) = descriptors
            sock = socket.socket(fileno=descriptor)
            taken = handoff.decode(packet)
            if self.silent:
                self.received.put_nowait(taken)
                sock.close()
            elif self.declines:
                self.declined.append(taken.id)
                link.send(handoff.encode_decline(taken.id))
                sock.close()
            elif self.ack_offset:
                link.send(handoff.encode_ack(taken.id + self.ack_offset))
                sock.close()
            else:
                arrived.append((sock, taken))

    def _acknowledge(self, link: socket.socket, arrived: list[tuple[socket.socket, handoff.Handoff]]) -> None:
        """Acknowledge what came together in one packet, as workers do, and serve it."""
        self.acknowledged_together.append(len(arrived))
        try:
            link.send(handoff.encode_ack(*(taken.id for _, taken in arrived)))
        except OSError as error:
            self.refused_acks.put_nowait(error)
            for sock, _ in arrived:
                sock.close()
            return
        for sock, taken in arrived:
            self._spawn(self._taken(link, sock, taken))

    async def _taken(self, link: socket.socket, sock: socket.socket, taken: handoff.Handoff) -> None:
        assert not os.get_blocking(sock.fileno())
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock)
        fed = asyncio.StreamReader()
        fed.feed_data(taken.head)
        self._spawn(pump(reader, fed))
        peer = (writer.get_extra_info("peername") or ("", 0))[:2]  # none: the client has gone
        options = {
            "nodelay": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
            "keepalive": sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        }
        await self._answer(fed, writer, via="handoff", client=taken.client or peer, tls=taken.tls, **options)
        if self.tells_ends:
            with suppress(OSError):  # the balancer has gone
                link.send(handoff.encode_ended([taken.id]))

    async def _relayed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        while (header := proxy_protocol.parse(data, self._proxy_key)) is None:
            more = await reader.read(1)
            assert more
            data += more
        if self.serve is not None:
            await self.serve(reader, writer)
            return
        await self._answer(reader, writer, via="relay", client=header.source, tls=header.tls)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, **known: object) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            body = await reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):  # the client has gone
            writer.close()
            return
        said = {"worker": self.status.worker_id, "head": len(head), "body": hashlib.sha256(body).hexdigest(), **known}
        text = json.dumps(said).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(text) + text)
        with suppress(OSError):
            await writer.drain()
            writer.write_eof()  # a close is not enough: there may be duplicates of the descriptor
        writer.close()

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def pump(source: asyncio.StreamReader, target: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            target.feed_data(data)
    target.feed_eof()
