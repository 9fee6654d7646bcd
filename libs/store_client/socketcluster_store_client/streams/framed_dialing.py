"""How a link has its stream to a store as frames, on a connection of its own.

What is framed costs a tenth of what gRPC does, so channels, of which each message goes through a store at once, have
links of that kind (docs/decisions/framed-channel-links.md). Whoever dials one asks the store by gRPC first, which
settles secret, application, TLS and place, and gives a ticket that lets the connection in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
from grpc import aio

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime import rpc
from socketcluster_runtime.addresses import split_host_port
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.sockets.framed import FramedStream
from socketcluster_runtime.tls.rpc_tls import RpcTls
from socketcluster_runtime.tls.stream_tls import client_context
from socketcluster_store_client.streams.dialing import CONNECT_TIMEOUT, GrpcCall, GrpcDialer, LinkCall, StreamEndedError

log = get_logger(__name__)

STREAM_SUFFIX = ".stream"
"""Behind the path of a store's Unix socket it is that of its framed streams."""


ANSWER_TIMEOUT = 15.0
"""Seconds until a stream ends on which nothing was said: something else may listen there, and pass nothing on."""


class FramedDialer:
    """Opens framed streams, at stores that have none streams of gRPC.

    Args:
        app_name: the application whose stores they are.
        secret: the cluster's.
        tls: what links to stores on other machines are secured with.
    """

    is_second = True

    def __init__(self, app_name: str, secret: str, tls: RpcTls | None) -> None:
        self._request = store_pb2.HelloRequest(app_name=app_name)
        self._by_grpc = GrpcDialer(secret, tls, explains=False)
        self._unreached: set[str] = set()  # the stores of which that was told

    @asynccontextmanager
    async def dial(self, address: str) -> AsyncIterator[LinkCall | grpc.StatusCode]:
        """Open a stream, or say why there is none."""
        by_grpc = self._by_grpc
        async with by_grpc.stub(address) as stub:
            if stub is None:
                yield grpc.StatusCode.UNAVAILABLE
                return
            try:
                hello = await stub.Hello(self._request, metadata=by_grpc.credentials, timeout=CONNECT_TIMEOUT)
            except aio.AioRpcError as error:
                yield error.code()
                return
            if not hello.stream_ticket:
                yield GrpcCall(stub.Link(metadata=by_grpc.credentials))
                return
        call = FramedCall()
        try:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await self._connect(call.stream, address, hello.stream_port)
            except (OSError, TimeoutError) as error:
                self._say_unreached(address, hello.stream_port, str(error))
                yield grpc.StatusCode.UNAVAILABLE
                return
            call.stream.send(hello.stream_ticket)
            silence = asyncio.get_running_loop().call_later(ANSWER_TIMEOUT, call.end_if_silent)
            try:
                yield call
            finally:
                silence.cancel()
            if call.answered:
                self._unreached.discard(address)
            else:
                self._say_unreached(address, hello.stream_port, "the connection ends without a word")
        finally:
            call.cancel()

    def _say_unreached(self, address: str, port: int, error: str) -> None:
        if address not in self._unreached:
            self._unreached.add(address)
            log.warning(
                "the store's port for channels is not reached",
                store=address,
                port=port,
                error=error or "no answer",
                what_to_do="let workers through to it, as to the port for gRPC; the store's stream_listen says which",
            )

    async def _connect(self, stream: FramedStream, address: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        if rpc.is_local(address):
            path = address.removeprefix("unix:") + STREAM_SUFFIX
            await loop.create_unix_connection(lambda: stream, path)
            return
        tls = self._by_grpc.tls
        await loop.create_connection(
            lambda: stream,
            split_host_port(address)[0],
            port,
            ssl=None if tls is None else client_context(tls),
            server_hostname=None if tls is None else tls.name,
        )


class FramedCall:
    """A framed stream."""

    at_once = True

    def __init__(self) -> None:
        self.stream = FramedStream(self._received, self._over)
        self.answered = False
        """Has the store said anything, be it why it does not serve?"""
        self._take: Callable[[store_pb2.LinkReply], None] | None = None
        self._ended: asyncio.Future[grpc.StatusCode] = asyncio.get_running_loop().create_future()

    async def serve(self, take: Callable[[store_pb2.LinkReply], None]) -> grpc.StatusCode:
        """Hand replies on, each in the turn of the loop in which it comes, until the stream ends; return why it did."""
        self._take = take  # nothing comes before this: a store speaks when it has the first request
        return await self._ended

    @property
    def writable(self) -> asyncio.Future[None] | None:
        """Done when more is to be written; ``None``: now."""
        return self.stream.writable

    def write(self, request: store_pb2.LinkRequest) -> None:
        """Send a request."""
        if not self.stream.open:
            raise StreamEndedError
        self.stream.send(request.SerializeToString())

    def cancel(self) -> None:
        """End the stream."""
        self.stream.abort()

    def end_if_silent(self) -> None:
        """End the stream if nothing has come on it."""
        if not self.answered:
            self.stream.abort()

    def _received(self, message: bytes) -> None:
        self.answered = True
        try:
            reply = store_pb2.LinkReply.FromString(message)
            if self._take is not None:
                self._take(reply)
        except Exception as error:
            if not self._ended.done():
                self._ended.set_exception(error)
            self.stream.abort()

    def _over(self, reason: bytes | None) -> None:
        self.answered |= reason is not None
        if self._ended.done():
            return
        if self.stream.error is not None:
            self._ended.set_exception(self.stream.error)
        else:
            self._ended.set_result(status_of(reason))


def status_of(reason: bytes | None) -> grpc.StatusCode:
    """Return the status that a framed stream ends with: the name of one, and a text behind a space."""
    name = (reason or b"").partition(b" ")[0].decode("ascii", "replace")
    return grpc.StatusCode[name] if name in grpc.StatusCode.__members__ else grpc.StatusCode.UNAVAILABLE


def reason_of(status: grpc.StatusCode, details: str) -> bytes:
    """Return how a framed stream's end tells a status."""
    return f"{status.name} {details}".encode()
