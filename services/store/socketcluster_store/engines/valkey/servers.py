"""Connections to Valkey or Redis: one server or a Cluster, calls of scripts that are sent together, and tried again.

A call may be sent more than once, when a connection breaks or a Cluster moves the key: every script bears that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import TimeoutError as LateError

from socketcluster_store.engines.valkey.password import PasswordFile
from socketcluster_store.engines.valkey.pipes import Call, Lane
from socketcluster_store.engines.valkey.scripts import Script
from socketcluster_store.engines.valkey.troubles import LOADING, UNREACHABLE, Troubles, cause_of
from socketcluster_store.engines.valkey.urls import shown_url, urls_of
from socketcluster_store.errors import EngineError, UnreachableError

CONNECTIONS = 4
"""To each server, for calls that carry data; more calls at a time travel together."""
FIRST_PAUSE = 0.01
"""Seconds between the first two attempts at a call; it doubles."""
LONGEST_PAUSE = 0.2
NEEDED = 7
"""The version of Redis that has sharded pub/sub."""

_AGAIN = (
    BrokenError,
    LateError,
    OSError,  # that of asyncio.timeout is one, too
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    TryAgainError,
)
_Address = tuple[str, int]


class _Server:
    """One server."""

    def __init__(self, options: dict[str, Any], timeout: float, on_connect: Callable[[Any], Awaitable[None]]) -> None:
        common = {"socket_timeout": timeout, "socket_connect_timeout": timeout, **options}
        self.where = f"{options.get('host') or options.get('path')}:{options.get('port', '')}".rstrip(":")
        """Its address, for the log."""
        self.client = _client(**common, redis_connect_func=on_connect)
        self.news = _client(**common)
        """For what is no call: a connection that is made for it says nothing of the data."""
        self.calls = Lane(self.client.connection_pool, CONNECTIONS, timeout)
        self.signs = Lane(self.news.connection_pool, 1, timeout)
        """For what is short and in a hurry: it never waits behind calls that carry data."""

    async def close(self) -> None:
        """End all connections."""
        for lane in (self.calls, self.signs):
            await lane.close()
        for client in (self.client, self.news):
            await client.connection_pool.disconnect()


class Servers:
    """One server, or all of a Cluster; which of both is found out.

    Args:
        url: see ``urls.urls_of``.
        timeout: seconds after which a call that found no answer fails.

    Raises:
        EngineError: the file with the password cannot be read.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._options = [_options_of(each) for each in urls_of(url)]
        self.shown = shown_url(url)
        """The URL without its password."""
        self._timeout = timeout
        self._common = {
            name: value for name, value in self._options[0].items() if name not in ("host", "port", "db", "path")
        }
        self._servers: dict[_Address, _Server] = {}
        self._slots: list[_Address | None] | None = None  # of a Cluster
        self._single: _Server | None = None
        self._finding: asyncio.Task[None] | None = None
        self.breaks = 0
        """Rises when a connection for calls is made, or a call tried again: a server may be another, or have less."""
        self.on_break: Callable[[], None] = lambda: None
        """Called when a connection for calls was made."""
        self.troubles = Troubles()

    async def connect(self) -> None:
        """Find the servers.

        Raises:
            UnreachableError: none of them answers.
            EngineError: they refuse, or are too old.
        """
        try:
            await self._find()
        except _AGAIN as error:
            raise UnreachableError(
                f"no Valkey or Redis answers at {self.shown}{_reason(error)}; is it running, and is valkey_url right?"
            ) from None
        except ResponseError as error:
            raise self._refused(self.shown, error, False) from None

    async def call(self, key: bytes, script: Script, *args: Any, replicas: int = 0, sign: bool = False) -> Any:
        """Run a script on a key, and return what it returns.

        Args:
            key: which.
            script: which; it bears to be run twice.
            args: its arguments.
            replicas: how many replicas must have what it wrote.
            sign: is it short and in a hurry? It travels apart from calls that carry data.

        Raises:
            UnreachableError: no answer came in time; it may have been run, and may even be run later.
            EngineError: the server refused it; it was not run.
        """
        call = Call(key, script, args, replicas)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        pause = FIRST_PAUSE
        asked: _Server | None = None
        unsure = False  # may an attempt that failed have been run?
        failure: BaseException = TimeoutError()
        where = self.shown
        while loop.time() < deadline:
            try:
                async with asyncio.timeout_at(deadline):
                    server = asked or await self._server_of(key)
                    where = server.where
                    call.asking, asked = asked is not None, None
                    reply = await (server.signs if sign else server.calls).send(call)
                self.troubles.answered(where, wrote=script.fills)
                return reply
            except NoScriptError:
                call.text = True
                continue
            except MovedError as error:
                failure = error
            except AskError as error:
                asked = self._server((error.host, error.port))
                continue
            except (AuthenticationError, AuthorizationError) as error:
                raise self._refused(where, error, unsure) from None
            except _AGAIN as error:
                if cause_of(failure) is UNREACHABLE or cause_of(error) is not UNREACHABLE:  # else the time was over
                    failure = error
                unsure = unsure or not isinstance(error, ResponseError)
            except ResponseError as error:
                raise self._refused(where, error, unsure) from None
            self.breaks += 1
            self.forget_slots()
            await asyncio.sleep(min(pause, max(0, deadline - loop.time())))
            pause = min(2 * pause, LONGEST_PAUSE)
        self.troubles.met(where, failure)
        cause = cause_of(failure)
        raise _told(
            UnreachableError(
                f"Valkey at {self.shown} did not answer for {self._timeout:g} s{_reason(failure)}"
                + ("" if cause in (UNREACHABLE, LOADING) else f"; {cause.what_to_do}")
            )
        )

    def _refused(self, where: str, error: Exception, unsure: bool) -> EngineError:
        self.troubles.met(where, error)
        text = f"Valkey at {self.shown} refuses: {error}; {cause_of(error).what_to_do}"
        return _told(
            UnreachableError(f"{text}; what came of an earlier attempt is not known") if unsure else EngineError(text)
        )

    async def client_of(self, key: bytes) -> Redis:
        """Return a client of the server that has a key, for subscriptions and messages to its channel.

        Raises:
            RedisError: it cannot be found now.
            OSError: likewise.
        """
        return (await self._server_of(key)).news

    async def all(self) -> list[tuple[str, Redis]]:
        """Return the address of each server that has keys, and a client of it, for what is no call.

        Raises:
            RedisError: they cannot be found now.
            OSError: likewise.
        """
        await self._server_of(b"")
        slots = {address for address in self._slots or () if address is not None}
        servers = [self._single] if self._single is not None else [self._server(address) for address in sorted(slots)]
        return [(server.where, server.news) for server in servers]

    def forget_slots(self) -> None:
        """Ask anew which server of a Cluster has what."""
        self._slots = None

    async def close(self) -> None:
        """End all connections."""
        if self._finding is not None:
            await asyncio.wait({self._finding})
        for server in [*self._servers.values(), *([self._single] if self._single else [])]:
            await server.close()
        self.troubles.close()

    async def _connected(self, connection: Any) -> None:
        await connection.on_connect()
        self.breaks += 1
        self.on_break()

    def _server(self, address: _Address) -> _Server:
        if address not in self._servers:
            host, port = address
            self._servers[address] = _Server(
                {**self._common, "host": host, "port": port}, self._timeout, self._connected
            )
        return self._servers[address]

    async def _server_of(self, key: bytes) -> _Server:
        if self._single is not None:
            return self._single
        if self._slots is None:
            if self._finding is None or self._finding.done():
                self._finding = asyncio.create_task(self._find())
                self._finding.add_done_callback(_look_at)
            await asyncio.shield(self._finding)
        if self._single is not None:
            return self._single
        address = self._slots[key_slot(key)] if self._slots is not None else None
        if address is None:
            raise ClusterDownError("no server of the Cluster has the slot of the key")
        return self._server(address)

    async def _find(self) -> None:
        """Ask the servers that are known, one after the other, who has what."""
        failure: Exception = BrokenError("no server is known")
        for options in [*({"host": host, "port": port} | self._common for host, port in self._servers), *self._options]:
            server = _Server(options, self._timeout, self._connected)
            try:
                version, mode = await _about(server.client)
                if int(version.partition(".")[0]) < NEEDED:
                    raise EngineError(f"{self.shown} is a Redis {version}; Valkey or Redis {NEEDED} is needed")
                self.troubles.answered(self.shown, wrote=False)
                if mode != "cluster":
                    self._single = server
                    return
                slots: list[_Address | None] = [None] * 16384
                for first, last, primary, *_replicas in await command(server.client, "CLUSTER", "SLOTS"):
                    host = primary[0].decode() if primary[0] else str(options.get("host"))
                    slots[first : last + 1] = [(host, primary[1])] * (last + 1 - first)
                self._slots = slots
                return
            except (AuthenticationError, AuthorizationError) as error:
                raise EngineError(f"Valkey at {self.shown} refuses: {error}; {cause_of(error).what_to_do}") from None
            except (*_AGAIN, ResponseError) as error:
                failure = error
            finally:
                if server is not self._single:
                    with contextlib.suppress(RedisError, OSError):
                        await server.close()
        raise failure


async def _about(client: Redis) -> tuple[str, str]:
    """Return the version of a server, and whether it is one of a "cluster"; INFO may be forbidden."""
    try:
        info = await client.info("server")
        return str(info["redis_version"]), str(info.get("redis_mode"))
    except NoPermissionError:
        found = await command(client, "HELLO", 2)
        about = dict(zip(found[::2], found[1::2], strict=True))
        return about[b"version"].decode(), about[b"mode"].decode()


def _client(**options: Any) -> Redis:
    return Redis(
        connection_pool=ConnectionPool(**options, retry=Retry(NoBackoff(), 0), protocol=2, decode_responses=False)
    )


def _options_of(url: str) -> dict[str, Any]:
    """Return what the client library is to be told, with the password that is in a file."""
    options: dict[str, Any] = dict(parse_url(url))
    path = options.pop("password_file", None)
    if path is not None:
        if options.get("password"):
            raise EngineError("valkey_url has a password and a password_file: give one of them")
        options["credential_provider"] = PasswordFile(Path(path), options.pop("username", None) or "")
    return options


def _reason(failure: BaseException) -> str:
    """Return what is known of a failure, after a colon; a time that is over says nothing."""
    return f": {text}" if (text := str(failure)) else ""


def _told(error: EngineError) -> EngineError:
    """Mark an error as one of which ``Troubles`` has told."""
    error.told = True
    return error


def _look_at(finding: asyncio.Task[None]) -> None:
    """Have nobody complain of a failure for which nobody waits any more."""
    if not finding.cancelled():
        finding.exception()


async def command(client: Redis, *args: Any) -> Any:
    """Send a command for which the library has no method that returns what the server said."""
    return await client.execute_command(*args)  # type: ignore[no-untyped-call]
