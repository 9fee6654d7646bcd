"""What a link needs of a stream to a store, and how it has one by gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, cast

import grpc
from grpc import aio

from socketcluster_proto.v1 import store_pb2, store_pb2_grpc
from socketcluster_runtime import rpc
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.tls.rpc_tls import RpcTls

log = get_logger(__name__)

CONNECT_TIMEOUT = 5.0
"""Seconds until an attempt to connect begins anew, with the host's name resolved again."""


class LinkCall(Protocol):
    """A stream to a store."""

    at_once: bool
    """Is a request sent in the turn of the event loop in which it is written?"""

    async def serve(self, take: Callable[[store_pb2.LinkReply], None]) -> grpc.StatusCode:
        """Hand replies on until the stream ends; return why it did. What ``take`` raises ends it, too."""

    @property
    def writable(self) -> Awaitable[None] | None:
        """Done when more is to be written; ``None``: now."""

    def write(self, request: store_pb2.LinkRequest) -> Awaitable[None] | None:
        """Send a request; what it returns is to be awaited before the next one.

        Raises:
            StreamEndedError: nothing is sent any more; so does what it returns.
        """

    def cancel(self) -> None:
        """End the stream."""


class StreamEndedError(Exception):
    """A stream has ended; ``serve`` tells why."""


class Dialer(Protocol):
    """Opens streams to stores."""

    is_second: bool
    """Has the worker another link to each store, whose log lines say the same as those of this one?"""

    def dial(self, address: str) -> AbstractAsyncContextManager[LinkCall | grpc.StatusCode]:
        """Open a stream, or say why there is none; it ends with the context."""


class GrpcDialer:
    """Opens streams of gRPC.

    Args:
        secret: the cluster's.
        tls: what links to stores on other machines are secured with.
        explains: is the log to say why there is no connection, where TLS is why?
    """

    is_second = False

    def __init__(self, secret: str, tls: RpcTls | None, *, explains: bool = True) -> None:
        self.credentials = rpc.credentials(secret)
        self.tls = tls
        self._explains = explains
        self._explained = False

    @asynccontextmanager
    async def dial(self, address: str) -> AsyncIterator[LinkCall | grpc.StatusCode]:
        """Open a stream, or say why there is none."""
        async with self.stub(address) as stub:
            yield grpc.StatusCode.UNAVAILABLE if stub is None else GrpcCall(stub.Link(metadata=self.credentials))

    @asynccontextmanager
    async def stub(self, address: str) -> AsyncIterator[store_pb2_grpc.StoreAsyncStub | None]:
        """Connect to a store; ``None``: it is not there."""
        channel = rpc.connect(address, self.tls)
        try:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await channel.channel_ready()
            except TimeoutError:
                if self._explains:
                    await self._explain(channel, address)
                yield None
            else:
                self._explained = False
                yield store_pb2_grpc.StoreStub(channel)
        finally:
            await channel.close()

    async def _explain(self, channel: aio.Channel, address: str) -> None:
        """Say once why there is no connection, if TLS is why; a call fails with the reason, a channel only waits."""
        try:
            stub = store_pb2_grpc.StoreStub(channel)
            await stub.Hello(store_pb2.HelloRequest(), metadata=self.credentials, timeout=1.0)
        except aio.AioRpcError as error:
            if rpc.is_about_tls(error.details()) and not self._explained:
                self._explained = True
                log.error(
                    "the store and this worker do not accept each other's TLS",
                    store=address,
                    error=error.details(),
                    what_to_do=rpc.TLS_ADVICE,
                )


class GrpcCall:
    """A stream of gRPC."""

    at_once = False
    writable = None

    def __init__(self, call: Any) -> None:
        self._call = call

    async def serve(self, take: Callable[[store_pb2.LinkReply], None]) -> grpc.StatusCode:
        """Hand replies on until the stream ends; return why it did."""
        try:
            while (reply := await self._call.read()) is not aio.EOF:
                take(reply)
        except aio.AioRpcError as error:
            return error.code()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return grpc.StatusCode.INTERNAL  # the writer has ended the call
        return cast(grpc.StatusCode, await self._call.code())

    async def write(self, request: store_pb2.LinkRequest) -> None:
        """Send a request, as soon as gRPC takes it."""
        try:
            await self._call.write(request)
        except (aio.AioRpcError, asyncio.InvalidStateError):
            raise StreamEndedError from None

    def cancel(self) -> None:
        """End the stream."""
        self._call.cancel()
