"""One link to one store: keeps a stream open, sends operations in batches, hands replies on."""

from __future__ import annotations

import asyncio
import math
import random
from collections import OrderedDict
from collections.abc import Iterable
from typing import Protocol

import grpc

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store_client.messages import Operation, encode_operations
from socketcluster_store_client.streams.dialing import Dialer, LinkCall, StreamEndedError

log = get_logger(__name__)

FIRST_PAUSE = 0.05
"""Seconds between the first two attempts to link; it doubles, with jitter, up to ``LONGEST_PAUSE``."""
LONGEST_PAUSE = 1.0
REJECTED_PAUSE = 2.0
"""Seconds between two attempts while the store refuses this caller."""
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

    def __init__(self, address: str, opening: store_pb2.LinkOpen, owner: LinkOwner, dialer: Dialer) -> None:
        self.address = address
        self.linked = False
        """Has the present stream brought a reply?"""
        self.heard_at = -math.inf
        """When the store said something last, by the clock that tells the deadlines of operations."""
        self.stale: dict[int, int] = {}
        """By the id of an operation that was taken back after it was sent, how many answers to it are still to come."""
        self._opening = opening
        self._owner = owner
        self._dialer = dialer
        self._outbox: OrderedDict[int, Operation] = OrderedDict()  # by their ids
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._call: LinkCall | None = None  # the present stream
        self._at_once: LinkCall | None = None  # the same, if its requests are sent at the end of a turn, without a task
        self._linked_at = math.inf
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
            if self._at_once is None:
                self._wake.set()
            else:
                asyncio.get_running_loop().call_soon(self._send_outbox)
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
                self._say("warning", "store link broke", status=status.name)
                self._owner.on_broken(self)
            if clock() - self._linked_at > LONGEST_PAUSE:  # it was well: link again at once
                pause = FIRST_PAUSE
                continue
            if status in _ADVICE:
                if status is not self._complained:
                    self._say("error", "the store refuses this worker", what_to_do=_ADVICE[status])
                await asyncio.sleep(REJECTED_PAUSE)
            else:
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # spreads attempts, keeps no secret
                pause = min(2 * pause, LONGEST_PAUSE)
            self._complained = status

    async def _stream(self) -> grpc.StatusCode:
        """Serve one stream until it ends; return its status."""
        async with self._dialer.dial(self.address) as call:
            if isinstance(call, grpc.StatusCode):
                return call
            self._call = call
            writer = asyncio.create_task(self._write(call))
            try:
                return await call.serve(self._take)
            finally:
                self._call = self._at_once = None
                writer.cancel()
                await asyncio.wait({writer})

    def _take(self, reply: store_pb2.LinkReply) -> None:
        if not self.linked:
            self.linked = True
            self._linked_at = asyncio.get_running_loop().time()
            self._complained = None
            self._say("info", "linked to a store")
        self._owner.on_reply(self, reply)

    async def _write(self, call: LinkCall) -> None:
        """Send what there is to send; when the stream breaks, its reader learns why."""
        try:
            if (opening := call.write(store_pb2.LinkRequest(open=self._opening))) is not None:
                await opening
            if call.at_once:
                self._at_once = call
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._outbox:
                    if (writable := call.writable) is not None:
                        await writable  # and gather then: what is sent without this task is not to overtake that
                    elif (writing := call.write(self._request())) is not None:
                        await writing
        except StreamEndedError:
            pass
        except Exception:  # else the link would be one that hears and does not speak
            log.exception("operations could not be sent", store=self.address)
            call.cancel()

    def _send_outbox(self) -> None:
        """Send what was gathered in a turn, or leave it to ``_write`` if that has to wait."""
        call = self._at_once
        while self._outbox:
            if call is None or call.writable is not None:
                self._wake.set()
                return
            try:
                call.write(self._request())
            except StreamEndedError:
                return
            except Exception:
                log.exception("operations could not be sent", store=self.address)
                call.cancel()

    def _request(self) -> store_pb2.LinkRequest:
        return store_pb2.LinkRequest(operations=encode_operations(self._gather()))

    def _say(self, level: str, event: str, **context: object) -> None:
        """Log what happens to the link, for debugging alone if another link's lines say the same."""
        getattr(log, "debug" if self._dialer.is_second else level)(event, store=self.address, **context)

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
