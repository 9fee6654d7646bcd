"""How two workers that connect show each other who they are, and that both know the cluster's secret.

Whoever is connected to says a nonce; the other one a ``Hello`` with a nonce of its own and a proof over both; the first
one its ``Hello``. From there on each says what it has, and what has come from the other one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import msgspec

from socketcluster_runtime.sockets.framed import MAX_FRAME_BYTES, FramedStream
from socketcluster_worker.mesh.frames import MAX_GREETING_BYTES, NONCE_BYTES, Hello, encode, proof_of, read_hello

PATIENCE = 5.0
"""Seconds that a greeting may take."""
_DIALS, _ACCEPTS = b"dials", b"accepts"


class Greeting:
    """A connection before both know who the other one is.

    Args:
        key: what both derive from the cluster's secret.
        worker_id: this worker's.
        origin: this worker's process.
        app_name: the application.
        met: is given the stream and the other one's hello; it takes what comes from then on.
        ended: is called when there is no connection any more.
        accepts: did the other one connect?
    """

    def __init__(
        self,
        key: bytes,
        worker_id: str,
        origin: str,
        app_name: str,
        *,
        met: Callable[[FramedStream, Hello], None],
        ended: Callable[[FramedStream], None],
        accepts: bool,
    ) -> None:
        receive = self._hello if accepts else self._challenged
        self.stream = FramedStream(receive, self._ended, max_bytes=MAX_GREETING_BYTES)
        self._key = key
        self._own = worker_id, origin, app_name
        self._met = met
        self._tell_ended = ended
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._nonces = b""
        self._patience = asyncio.get_running_loop().call_later(PATIENCE, self.stream.abort)

    def begin(self) -> None:
        """Say the nonce, as who is connected to."""
        self.stream.send(self._nonce)

    def _challenged(self, nonce: bytes) -> None:
        self._nonces = nonce + self._nonce
        self.stream.received = self._answered
        self._say_hello(_DIALS)

    def _hello(self, message: bytes) -> None:
        hello = self._read(message)
        if hello is None:
            return
        self._nonces = self._nonce + hello.nonce
        if hello.is_proven(self._key, _DIALS, self._nonces) and hello.app_name == self._own[2]:
            self._say_hello(_ACCEPTS)
            self._end(hello)
        else:
            self.stream.abort()

    def _answered(self, message: bytes) -> None:
        hello = self._read(message)
        if hello is None:
            return
        if hello.is_proven(self._key, _ACCEPTS, self._nonces) and hello.app_name == self._own[2]:
            self._end(hello)
        else:
            self.stream.abort()

    def _read(self, message: bytes) -> Hello | None:
        try:
            return read_hello(message)
        except msgspec.MsgspecError:
            self.stream.abort()
            return None

    def _say_hello(self, role: bytes) -> None:
        worker_id, origin, app_name = self._own
        proof = proof_of(self._key, role, self._nonces, worker_id, origin, app_name)
        self.stream.send(encode(Hello(worker_id, origin, app_name, self._nonce, proof)))

    def _end(self, hello: Hello) -> None:
        self._patience.cancel()
        self.stream.max_bytes = MAX_FRAME_BYTES
        self._met(self.stream, hello)

    def _ended(self, _reason: bytes | None) -> None:
        self._patience.cancel()
        self._tell_ended(self.stream)
