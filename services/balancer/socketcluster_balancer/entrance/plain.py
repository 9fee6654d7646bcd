"""Clients without TLS, whose sockets are handed over.

A client's socket is never given to an event loop's transport here: whoever takes it over must find it as it was.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from socketcluster_balancer.entrance import responses
from socketcluster_balancer.entrance.client import Client
from socketcluster_balancer.entrance.limits import OverLimit
from socketcluster_balancer.entrance.reception import MAX_REFUSED, Reception
from socketcluster_runtime.sockets.relay import Relay
from socketcluster_wire.proxy_protocol import ProxyHeader

MAX_DISCARDED = 256 * 1024
"""Bytes of an answered client that are read and dropped; the kernel holds up what it sends beyond them."""

ANSWERS_A_SECOND = 256
"""Refused clients that are told why; the connections of the others of that second are reset."""

_DISCARD_BYTES = 64 * 1024
_NO_LINGER = struct.pack("ii", 1, 0)  # close() resets the connection, and the kernel keeps nothing of it


class PlainClient(Client):
    """A connection without TLS."""

    __slots__ = ("discarded", "sock")

    ends_tls = False

    def __init__(self, sock: socket.socket, header: ProxyHeader | None, key: bytes) -> None:
        super().__init__(header, key)
        self.sock = sock
        """Non-blocking."""
        self.discarded = 0
        """Bytes read from it after it was answered."""

    def _socket_addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return self.sock.getpeername()[:2], self.sock.getsockname()[:2]

    async def go_on_in(self, relay: Relay, beginning: bytes) -> None:
        await relay.start(self.sock, beginning)


class PlainReception(Reception[PlainClient]):
    """Reads from sockets, those of answered clients too: unread bytes would make of the close a reset."""

    _second = 0
    _answers = 0

    def accept(self, sock: socket.socket, host: str, header: ProxyHeader | None) -> None:
        key = self._key(host)
        if (refusal := self._admit(key)) is not None:
            self._refuse(sock, key, refusal)
            return
        client = PlainClient(sock, header, key)
        self._take_in(client)
        if self._read(client):
            return
        self._loop.add_reader(sock, self._readable, client)
        (self._reading if client.data else self._silent).add(client)

    def respond(self, client: PlainClient, response: bytes) -> None:
        try:
            client.sock.send(response)
            client.sock.shutdown(socket.SHUT_WR)
        except OSError:  # it has gone
            self.release(client)
            return
        self._loop.add_reader(client.sock, self._discard, client)
        self._lingering.add(client)

    def release(self, client: PlainClient) -> None:
        client.sock.close()
        self._ended(client)

    def taken(self, client: PlainClient) -> None:
        """Close the descriptor of a client that a worker has taken over."""
        self._counters.handovers += 1
        client.sock.close()
        self.forget(client)

    def _refuse(self, sock: socket.socket, key: bytes, refusal: OverLimit) -> None:
        """Answer at once, before anything was read; what is read later is dropped, lest it reset the connection.

        In a flood most are reset instead: to answer costs several times as much, and others would wait for it.
        """
        if not self._may_answer():
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            sock.close()
            return
        status = 503 if refusal is OverLimit.SOCKETS else 429
        try:
            sock.send(responses.over_limit(status, self._limits.retry_after(refusal)))
            sock.shutdown(socket.SHUT_WR)
            received = sock.recv(_DISCARD_BYTES)
        except BlockingIOError:  # it has sent nothing yet
            over = False
        except OSError:  # it has gone
            over = True
        else:
            over = not received or received.endswith(b"\r\n\r\n")  # its whole request, mostly: no more comes
        if over or len(self._refused) >= MAX_REFUSED:
            sock.close()
            return
        client = PlainClient(sock, None, key)
        self._refused.add(client)
        self._loop.add_reader(sock, self._discard, client)
        self._lingering.add(client)

    def _may_answer(self) -> bool:
        second = int(self._loop.time())
        if second != self._second:
            self._second, self._answers = second, 0
        self._answers += 1
        return self._answers <= ANSWERS_A_SECOND

    def _readable(self, client: PlainClient) -> None:
        silent = not client.data
        if self._read(client):
            self._silent.discard(client)
            self._reading.discard(client)
            self._leaving.discard(client)
        elif silent:
            self._silent.discard(client)
            if client not in self._leaving:
                self._reading.add(client)

    def _read(self, client: PlainClient) -> bool:
        """Read what is there; return whether reading is over, for whatever reason."""
        try:
            data = client.sock.recv(self._max_head_bytes - len(client.data))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # it has gone
            data = b""
        if not data:
            self._loop.remove_reader(client.sock)
            self.release(client)
            return True
        known = len(client.data)
        client.data = client.data + data if known else data
        if status := self._look_for_head(client, known):
            self._loop.remove_reader(client.sock)
            self.answer(client, status)
            return True
        if client.head is None:
            return False
        self._loop.remove_reader(client.sock)
        self._complete(client)
        return True

    def _hurry_away(self, client: PlainClient) -> None:
        self._loop.remove_reader(client.sock)
        if client.data:
            self.answer(client, 408)
        else:  # a connection opened in advance, which waits for no answer
            self.release(client)

    def _discard(self, client: PlainClient) -> None:
        try:
            if size := len(client.sock.recv(_DISCARD_BYTES)):
                client.discarded += size
                if client.discarded > MAX_DISCARDED:
                    self._loop.remove_reader(client.sock)  # until its time to take the answer is over
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass  # reset: the same as closed
        self._lingering.discard(client)
        self._close_answered(client)

    def _close_answered(self, client: PlainClient) -> None:
        self._loop.remove_reader(client.sock)
        self.release(client)
