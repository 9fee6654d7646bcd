"""Connections to one server of Valkey, on which calls follow each other without waiting for answers.

While all connections are at work, calls wait for a moment and travel together: that costs least where answers come at
once. Where they are long on their way, nothing waits for them.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from socketcluster_store.engines.valkey.scripts import Script
from socketcluster_store.engines.valkey.troubles import FewReplicasError

PATIENCE = 0.005
"""Seconds that a call waits for a connection whose answers have come, before it follows others that wait for theirs."""
WAIT_STEP = 500
"""Milliseconds that a connection waits for replicas at a time."""


class Call:
    """A script on a key, on its way."""

    __slots__ = ("args", "asking", "future", "key", "replicas", "script", "text")

    def __init__(self, key: bytes, script: Script, args: tuple[Any, ...], replicas: int) -> None:
        self.key = key
        self.script = script
        self.args = args
        self.replicas = replicas
        self.text = False
        """Is the script itself sent? The server does not know it."""
        self.asking = False
        self.future: asyncio.Future[Any]

    def commands(self) -> Iterator[tuple[Any, ...]]:
        """Yield what is sent."""
        if self.asking:
            yield ("ASKING",)
        command = ("EVAL", self.script.text) if self.text else ("EVALSHA", self.script.sha)
        yield (*command, 1, self.key, *self.args)
        if self.replicas:
            yield "WAIT", self.replicas, WAIT_STEP

    def settle(self, reply: object) -> None:
        """Give the reply, or the error, to whoever still waits for it."""
        if self.future.done():
            return
        if isinstance(reply, BaseException):
            self.future.set_exception(reply)
        else:
            self.future.set_result(reply)


class Lane:
    """Some connections to a server, and the calls that wait for them.

    Args:
        pool: where connections come from.
        connections: how many there are at most.
        timeout: seconds after which a connection that brings no answer is given up.
    """

    def __init__(self, pool: ConnectionPool, connections: int, timeout: float) -> None:
        self._pipes = [_Pipe(pool, timeout, self._take) for _ in range(connections)]
        self._waiting: list[Call] = []
        self._timer: asyncio.TimerHandle | None = None

    def send(self, call: Call) -> asyncio.Future[Any]:
        """Send a call; the future has the reply, or the error."""
        loop = asyncio.get_running_loop()
        call.future = loop.create_future()
        self._waiting.append(call)
        if len(self._waiting) == 1:
            for pipe in self._pipes:
                if pipe.idle:
                    pipe.start()  # those that are made in this turn of the loop travel with it
                    return call.future
            if self._timer is None:
                self._timer = loop.call_later(PATIENCE, self._out_of_patience)
        return call.future

    async def close(self) -> None:
        """Return when nothing is under way."""
        for pipe in self._pipes:
            await pipe.close()
        if self._timer is not None:
            self._timer.cancel()

    def _take(self) -> list[Call]:
        calls, self._waiting = self._waiting, []
        return calls

    def _out_of_patience(self) -> None:
        self._timer = None
        if self._waiting:
            min(self._pipes, key=lambda pipe: pipe.under_way).send(self._take())


class _Pipe:
    """One connection: what is to be written on it, and whose answers are still to come."""

    def __init__(self, pool: ConnectionPool, timeout: float, take: Callable[[], list[Call]]) -> None:
        self._pool = pool
        self._timeout = timeout
        self._take = take
        self._unwritten: deque[list[Call]] = deque()
        self._unread: deque[list[Call]] = deque()  # those among them
        self._connection: AbstractConnection | None = None  # which more may be written on
        self._running: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Is nothing under way?"""
        return self._running is None

    @property
    def under_way(self) -> int:
        """How many groups of calls are."""
        return len(self._unread)

    def start(self) -> None:
        """Send what waits."""
        self._running = asyncio.create_task(self._run())

    def send(self, calls: list[Call]) -> None:
        """Send calls behind those that are under way."""
        self._unread.append(calls)
        self._unwritten.append(calls)
        if self._running is None:
            self.start()
        elif self._connection is not None and self._writing is None:
            self._writing = asyncio.create_task(self._write_more(self._connection))

    async def close(self) -> None:
        """Return when nothing is under way."""
        while self._running is not None:
            await asyncio.wait({self._running})

    async def _run(self) -> None:
        while self._unread or self._pull():
            connection: AbstractConnection | None = None
            failure: Exception | None = None
            try:
                connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
                while self._unread or self._pull():
                    while self._unwritten and self._writing is None:
                        await _write(connection, self._unwritten.popleft())
                    self._connection = connection
                    async with asyncio.timeout(self._timeout):
                        await _read(connection, self._unread[0])
                    self._unread.popleft()
            except (RedisError, OSError) as error:
                failure = error
            self._connection = None  # what comes now is for the next one
            if failure is not None and connection is not None:
                await connection.disconnect()
            if self._writing is not None:
                await asyncio.wait({self._writing})
            if connection is not None:
                await self._pool.release(connection)
            if failure is not None:
                self._fail(failure)
        self._running = None

    def _pull(self) -> bool:
        if calls := self._take():
            self._unread.append(calls)
            self._unwritten.append(calls)
        return bool(calls)

    async def _write_more(self, connection: AbstractConnection) -> None:
        try:
            while self._unwritten and self._connection is connection:
                await _write(connection, self._unwritten.popleft())
        except (RedisError, OSError):
            await connection.disconnect()  # whoever reads meets it
        finally:
            self._writing = None

    def _fail(self, error: Exception) -> None:
        """Have everything fail that is under way: no answer belongs to its question any more."""
        self._unwritten.clear()
        while self._unread:
            for call in self._unread.popleft():
                call.settle(error)


async def _write(connection: AbstractConnection, calls: Iterable[Call]) -> None:
    if not connection.is_connected:  # which would connect it anew
        raise ConnectionResetError("the connection is closed")
    commands = connection.pack_commands(command for call in calls for command in call.commands())
    await connection.send_packed_command(commands, check_health=False)


async def _read(connection: AbstractConnection, calls: Iterable[Call]) -> None:
    """Read the replies to calls, and give them to those who wait."""
    for call in calls:
        if call.asking:
            await _reply(connection)
        reply = await _reply(connection)
        if call.replicas:
            found = await _reply(connection)
            if not isinstance(reply, Exception) and (not isinstance(found, int) or found < call.replicas):
                reply = FewReplicasError(f"{found} replicas of {call.replicas} have the batch")
        call.settle(reply)


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(timeout=math.inf)
    except ResponseError as error:
        return error
