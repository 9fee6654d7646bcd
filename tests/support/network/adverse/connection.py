"""One connection through an adverse proxy."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from support.network.adverse.conditions import HANG, Block, Break, Conditions, Way
from support.network.adverse.http import END_OF_HEAD, Frames, Request

CHUNK = 16 * 1024
PIECE = 256
"""Bytes that are written at a time where their rate is limited."""
END = None
"""In the place of bytes: the end of a direction."""
UNDER_WAY = 64
"""Chunks of one direction that a slow network holds; then it reads no more."""


class Connection:
    """A client's connection, with that to the server, which is made when the first bytes get there.

    Attributes:
        request: the last one.
        waiting: is that one not answered yet?
        hanging: nothing is delivered any more, in either direction.
    """

    def __init__(
        self,
        conditions: Conditions,
        target: tuple[str, int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.request: Request | None = None
        self.waiting = False
        self.hanging = False
        self._conditions = conditions
        self._target = target
        self._reader = reader
        self._client = writer
        self._server: asyncio.StreamWriter | None = None
        self._connected: asyncio.Future[asyncio.StreamReader | None] = asyncio.get_running_loop().create_future()
        self._requests = 0
        self._passed = {Way.UP: 0, Way.DOWN: 0}
        self._due = {Way.UP: 0.0, Way.DOWN: 0.0}
        self._queues: dict[Way, asyncio.Queue[tuple[float, bytes | Break | None]]] = {
            way: asyncio.Queue(UNDER_WAY) for way in Way
        }
        self._frames = {way: Frames() for way in Way}
        self._block: Block | None = None
        self._head = b""  # of the answer to a request for a WebSocket, until it is whole
        self._opened = False
        self._break = conditions.breaks(conditions.chance)
        self._cut = False
        self._task = asyncio.current_task()

    @property
    def kind(self) -> str:
        """What its last request is: ``Request.kind``, or ``new``."""
        return "new" if self.request is None else self.request.kind

    def cut(self, *, reset: bool = False) -> None:
        """End it on both sides, by FIN or RST; what is under way is lost."""
        if not self._cut:
            self._close(reset=reset)
            if self._task is not None:
                self._task.cancel()

    def _close(self, *, reset: bool) -> None:
        self._cut = True
        for writer in (self._client, self._server):
            if writer is None:
                continue
            if reset:
                with contextlib.suppress(OSError):
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            else:
                writer.close()

    async def run(self) -> None:
        """Pass on what comes until both sides have ended."""
        reset = True
        try:
            if self._break is not None and self._break.after == 0:
                reset = self._break.reset
                return
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up())
                group.create_task(self._down())
                group.create_task(self._deliver_up())
                group.create_task(self._deliver_down())
            reset = False
        except* (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # one side was reset, so the other is, too
        finally:
            if not self._cut:
                self._close(reset=reset)

    async def _up(self) -> None:
        while self.kind != "websocket":
            try:
                head = await self._reader.readuntil(END_OF_HEAD)
            except asyncio.IncompleteReadError:
                return await self._pass(Way.UP, END)
            if await self._begin(Request.parse(head), head):
                return None
        while data := await self._reader.read(CHUNK):
            if passing := self._filter(Way.UP, data):
                await self._pass(Way.UP, passing)
        return await self._pass(Way.UP, END)

    async def _begin(self, request: Request, head: bytes) -> bool:
        """Pass a request on; or answer it, which is the end: return whether it is."""
        self.request = request
        self._requests += 1
        self._conditions.on_step(self, request.kind)
        self._block = self._conditions.block if request.kind == "websocket" else None
        answer = self._conditions.answer(request)
        if answer is None and self._block in (Block.REFUSED, Block.HANGING):
            answer = HANG if self._block is Block.HANGING else request.answer("400 Bad Request")
        self.waiting = answer is None
        if self.waiting:
            await self._pass(Way.UP, head)
        left = request.length
        while left:
            data = await self._reader.read(min(left, CHUNK))
            if not data:
                raise ConnectionResetError("the client ended within a body")
            left -= len(data)
            if self.waiting:
                await self._pass(Way.UP, data)
        if answer is None:
            seconds = self._conditions.gateway_timeout
            if seconds is not None and request.kind == "poll":
                asyncio.get_running_loop().call_later(seconds, self._time_out, request)
            return False
        if answer != HANG:
            self._end_with(answer)
        return True

    def _time_out(self, request: Request) -> None:
        """Answer a poll that the server has not answered as a gateway does."""
        if self.waiting and self.request is request:
            self.waiting = False
            self._end_with(request.answer("504 Gateway Timeout"))

    def _end_with(self, answer: bytes) -> None:
        for way, data in ((Way.DOWN, answer), (Way.DOWN, END), (Way.UP, END)):
            self._queues[way].put_nowait((self._due_time(way), data))

    async def _down(self) -> None:
        reader = await self._connected
        while reader is not None and (data := await reader.read(CHUNK)):
            if self.waiting:
                if self._requests > 1 and self._is_lost():
                    self._conditions.answers_lost += 1
                    return self.cut(reset=True)
                self.waiting = False
                self._conditions.on_step(self, "answer")
            if passing := self._of_websocket(data) if self.kind == "websocket" else data:
                await self._pass(Way.DOWN, passing)
            if self._block is Block.CLOSED and self._opened:
                break
        return await self._pass(Way.DOWN, END)

    def _is_lost(self) -> bool:
        lost = self._conditions.lost_answers
        return lost > 0 and self._conditions.chance.random() < lost

    def _of_websocket(self, data: bytes) -> bytes:
        """Return what may pass of what the server sends after the request for a WebSocket."""
        if self._opened:
            return self._filter(Way.DOWN, data)
        self._head += data
        head, end, rest = self._head.partition(END_OF_HEAD)
        if not end:
            return b""
        self._opened, self._head = True, b""
        return head + end + (b"" if self._block is Block.CLOSED else self._filter(Way.DOWN, rest))

    def _filter(self, way: Way, data: bytes) -> bytes:
        """Return what may pass of frames."""
        frames = self._frames[way]
        before = frames.begun
        passing = frames.feed(data, None if self._block is None else self._block.frames)
        for number in range(before + 1, frames.begun + 1):
            self._conditions.on_step(self, f"{way} {number}")
        return passing

    async def _pass(self, way: Way, data: bytes | None) -> None:
        """Have bytes delivered after their time, as far as the connection lasts."""
        if self._cut:
            return
        end = self._break
        if data is None:
            await self._queues[way].put((self._due_time(way), END))
            return
        if end is not None and end.way is way and self._passed[way] + len(data) >= end.after:
            await self._queues[way].put((self._due_time(way), data[: end.after - self._passed[way]]))
            await self._queues[way].put((self._due_time(way), end))
        else:
            await self._queues[way].put((self._due_time(way), data))
        self._passed[way] += len(data)

    def _due_time(self, way: Way) -> float:
        """Return when what comes now is delivered: not before what came earlier."""
        conditions = self._conditions
        delay = conditions.latency + conditions.jitter * conditions.chance.random()
        self._due[way] = max(self._due[way], asyncio.get_running_loop().time() + delay)
        return self._due[way]

    async def _deliver_up(self) -> None:
        while (data := await self._next(Way.UP)) is not END:
            if self._server is None:
                await self._connect()
            assert self._server is not None
            await self._write(self._server, data, Way.UP)
        if self._server is None:
            self._connected.set_result(None)
        else:
            self._server.write_eof()

    async def _connect(self) -> None:
        """Connect to the server; what is cut meanwhile closes that connection, too."""
        opening = asyncio.ensure_future(asyncio.open_connection(*self._target))
        opening.add_done_callback(self._opened_to_server)
        await asyncio.wait((opening,))
        opening.result()

    def _opened_to_server(self, opening: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
        if opening.cancelled() or opening.exception() is not None:
            return
        reader, self._server = opening.result()
        if self._cut:
            self._server.transport.abort()
        else:
            self._connected.set_result(reader)

    async def _deliver_down(self) -> None:
        while (data := await self._next(Way.DOWN)) is not END:
            await self._write(self._client, data, Way.DOWN)
        self._client.write_eof()

    async def _next(self, way: Way) -> bytes | None:
        """Wait for what is to be delivered next."""
        due, data = await self._queues[way].get()
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        await self._flow()
        if isinstance(data, Break):
            self.cut(reset=data.reset)
            return END
        return data

    async def _flow(self) -> None:
        """Wait until something is delivered."""
        await self._conditions.flowing.wait()
        if self.hanging:
            await asyncio.get_running_loop().create_future()

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, way: Way) -> None:
        loop, conditions = asyncio.get_running_loop(), self._conditions
        while data and not self._cut:
            piece = data
            if conditions.rate is not None:
                piece = data[:PIECE]
                conditions.free[way] = max(conditions.free[way], loop.time()) + len(piece) / conditions.rate
                await asyncio.sleep(conditions.free[way] - loop.time())
                await self._flow()
            data = data[len(piece) :]
            writer.write(piece)
            await writer.drain()
