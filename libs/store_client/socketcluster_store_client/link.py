"""One link to one store: keeps a stream open, sends operations in batches, hands replies on."""

from __future__ import annotations

import asyncio
import math
import random
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Protocol, cast

import grpc
from grpc import aio

from socketcluster_proto.v1 import store_pb2, store_pb2_grpc
from socketcluster_runtime import rpc
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.tls.rpc_tls import RpcTls
from socketcluster_store_client.messages import Operation, encode_operations

log = get_logger(__name__)

FIRST_PAUSE = 0.05
"""Seconds between the first two attempts to link; it doubles, with jitter, up to ``LONGEST_PAUSE``."""
LONGEST_PAUSE = 1.0
REJECTED_PAUSE = 2.0
"""Seconds between two attempts while the store refuses this caller."""
CONNECT_TIMEOUT = 5.0
"""Seconds until an attempt to connect begins anew, with the host's name resolved again."""
REQUEST_BYTES = 4 * 1024 * 1024
"""What is gathered in one LinkRequest, unless a single operation is larger."""
_OPERATION_BYTES = 64
"""What an operation costs beside its value, roughly."""

_ADVICE = {
    grpc.StatusCode.UNAUTHENTICATED: "the store has another secret: give both the same SOCKETCLUSTER_SECRET",
    grpc.StatusCode.FAILED_PRECONDITION: "the store has another app name: give both the same SOCKETCLUSTER_APP_NAME",
    grpc.StatusCode.ALREADY_EXISTS: (
        "another process has this worker's id and was started later, by the clocks of their machines: give each worker"
        " a name of its own, SOCKETCLUSTER_NAME, or end one of them"
    ),
}


class LinkOwner(Protocol):
    """What is told of a link's doings."""

    def on_reply(self, link: StoreLink, reply: store_pb2.LinkReply) -> None:
        """Take a reply; the first one of a stream has an announcement."""

    def on_broken(self, link: StoreLink) -> None:
        """Take back what was sent on the stream and not answered: it is gone."""


class StoreLink:
    """Links to the store at ``address``, again and again until closed."""

    def __init__(
        self, address: str, opening: store_pb2.LinkOpen, secret: str, owner: LinkOwner, tls: RpcTls | None = None
    ) -> None:
        self.address = address
        self.linked = False
        """Has the present stream brought a reply?"""
        self.heard_at = -math.inf
        """When the store said something last, by the clock that tells the deadlines of operations."""
        self.stale: dict[int, int] = {}
        """By the id of an operation that was taken back after it was sent, how many answers to it are still to come."""
        self._opening = opening
        self._credentials = rpc.credentials(secret)
        self._owner = owner
        self._tls = tls
        self._outbox: OrderedDict[int, Operation] = OrderedDict()  # by their ids
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._call: Any = None  # the present stream
        self._linked_at = math.inf
        self._explained = False
        self._complained: grpc.StatusCode | None = None

    def start(self) -> None:
        """Begin to link, in the background."""
        self._task = asyncio.create_task(self._run(), name=f"store link {self.address}")

    async def close(self) -> None:
        """End the link."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def send(self, operation: Operation) -> None:
        """Send an operation, with whatever else is sent in this event-loop turn."""
        if not self._outbox:
            self._wake.set()
        self._outbox[operation.id] = operation

    def forget(self, ids: Iterable[int]) -> None:
        """Do not send these operations, if they still wait: a store that does not read must not have them pile up."""
        if self._outbox:
            for operation_id in ids:
                self._outbox.pop(operation_id, None)

    def take_back(self, ids: Iterable[int]) -> None:
        """Do not send these operations, if they still wait; those that were sent will be sent again, here or elsewhere.

        A store answers the sendings of an operation in their order, so that many answers to it are not meant for the
        next sending here, whatever they say.
        """
        for operation_id in ids:
            if self._outbox.pop(operation_id, None) is None:
                self.stale[operation_id] = self.stale.get(operation_id, 0) + 1

    def restart(self) -> None:
        """End the stream, soon, and begin another one."""
        call, self._call = self._call, None
        if call is not None:
            log.info("a link begins anew: its store may own again what another one had", store=self.address)
            call.cancel()

    def is_stale(self, operation_id: int) -> bool:
        """Is this answer to an operation one to a sending that was taken back? Call it once an answer."""
        count = self.stale.get(operation_id)
        if count is None:
            return False
        if count > 1:
            self.stale[operation_id] = count - 1
        else:
            del self.stale[operation_id]
        return True

    @property
    def waiting(self) -> int:
        """How many operations wait to be sent."""
        return len(self._outbox)

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        clock = asyncio.get_running_loop().time
        while True:
            self._linked_at = math.inf
            try:
                status = await self._stream()
            except Exception:
                log.exception("store link failed", store=self.address)
                status = grpc.StatusCode.INTERNAL
            was_linked, self.linked = self.linked, False
            self._outbox.clear()
            if was_linked:
                log.warning("store link broke", store=self.address, status=status.name)
                self._owner.on_broken(self)
            if clock() - self._linked_at > LONGEST_PAUSE:  # it was well: link again at once
                pause = FIRST_PAUSE
                continue
            if status in _ADVICE:
                if status is not self._complained:
                    log.error("the store refuses this worker", store=self.address, what_to_do=_ADVICE[status])
                await asyncio.sleep(REJECTED_PAUSE)
            else:
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # spreads attempts, keeps no secret
                pause = min(2 * pause, LONGEST_PAUSE)
            self._complained = status

    async def _stream(self) -> grpc.StatusCode:
        """Serve one stream until it ends; return its status."""
        channel = rpc.connect(self.address, self._tls)
        writer = None
        try:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await channel.channel_ready()
            except TimeoutError:
                await self._explain(channel)
                return grpc.StatusCode.UNAVAILABLE
            stub = store_pb2_grpc.StoreStub(channel)
            call: Any = stub.Link(metadata=self._credentials)
            self._call = call
            writer = asyncio.create_task(self._write(call))
            try:
                while (reply := await call.read()) is not aio.EOF:
                    if not self.linked:
                        self.linked = True
                        self._linked_at = asyncio.get_running_loop().time()
                        self._complained, self._explained = None, False
                        log.info("linked to a store", store=self.address)
                    self._owner.on_reply(self, reply)
            except aio.AioRpcError as error:
                return error.code()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                return grpc.StatusCode.INTERNAL  # the writer has ended the call
            return cast(grpc.StatusCode, await call.code())
        finally:
            self._call = None
            if writer is not None:
                writer.cancel()
                await asyncio.wait({writer})
            await channel.close()

    async def _explain(self, channel: aio.Channel) -> None:
        """Say once why there is no connection, if TLS is why; a call fails with the reason, a channel only waits."""
        try:
            await store_pb2_grpc.StoreStub(channel).Hello(
                store_pb2.HelloRequest(), metadata=self._credentials, timeout=1.0
            )
        except aio.AioRpcError as error:
            if rpc.is_about_tls(error.details()) and not self._explained:
                self._explained = True
                log.error(
                    "the store and this worker do not accept each other's TLS",
                    store=self.address,
                    error=error.details(),
                    what_to_do=rpc.TLS_ADVICE,
                )

    async def _write(self, call: Any) -> None:
        """Send what there is to send; when the stream breaks, its reader learns why."""
        try:
            await call.write(store_pb2.LinkRequest(open=self._opening))
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._outbox:
                    await call.write(store_pb2.LinkRequest(operations=encode_operations(self._gather())))
        except (aio.AioRpcError, asyncio.InvalidStateError):
            pass
        except Exception:  # else the link would be one that hears and does not speak
            log.exception("operations could not be sent", store=self.address)
            call.cancel()

    def _gather(self) -> list[Operation]:
        """Take what fits one request, in order."""
        outbox = self._outbox
        gathered: list[Operation] = []
        size = 0
        while outbox:
            operation_id, operation = outbox.popitem(last=False)
            size += len(operation.value) + _OPERATION_BYTES
            if size > REQUEST_BYTES and gathered:
                outbox[operation_id] = operation
                outbox.move_to_end(operation_id, last=False)
                break
            gathered.append(operation)
        return gathered
