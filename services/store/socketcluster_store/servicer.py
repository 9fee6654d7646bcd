"""The gRPC service of a store: says hello, and applies what comes on the links of workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Generator, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import grpc
import msgspec
from grpc import aio

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime import rpc
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store.commands import Outcome
from socketcluster_store.engine import Engine
from socketcluster_store.links import Links, WorkerLink
from socketcluster_store.ownership.partitions import Partitions
from socketcluster_store.partition.deduplication import NOT_OWNED
from socketcluster_store.settings import StoreSettings
from socketcluster_store.streams import Request, StreamCall, StreamServer
from socketcluster_store_client.messages import Error, Operation, Result, decode_operations
from socketcluster_store_client.partitioning import PARTITION_COUNT, partition_of

log = get_logger(__name__)

MAX_ID = 64
"""Characters of the name of a worker or of its process."""
MAX_HOST = 255
"""Characters of a worker's host."""
MAX_PORT = 65_535
APPLIED_AT_ONCE = 48
"""Operations of a request that are applied and answered before the rest is, if that is half as many at least: so worker
and store work at the same time, an answer still costs little for each result, and answers that a worker does not take
yet are not piled up."""
SIDE_BY_SIDE_AT_ONCE = 256
"""The same where all of them wait together for the disk, or for Valkey."""
PATIENCE = 0.01
"""Seconds that operations of a link wait for those of its request before, where an answer of Valkey is long on its way:
whoever waits longer has what follows carried out beside it, in order in each partition."""
UNDER_WAY = 256
"""Portions of a link's requests that may be under way at a time."""
UNDER_WAY_BYTES = 16 * 1024 * 1024
"""Bytes of values in them."""
DRAIN_TIMEOUT = 1.0
"""Seconds that a stopping store gives its workers to take what waits for them."""


_Steps = Generator[Awaitable[list[Outcome]], list[Outcome], None]


class StoreServicer:
    """What workers talk to; ``add_to_server`` serves it.

    Args:
        settings: the store's.
        engine: keeps the data.
        store_id: the store's.
        links: are opened and ended here.
        partitions: do what operations say.
    """

    def __init__(
        self, settings: StoreSettings, engine: Engine, store_id: str, links: Links, partitions: Partitions
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._store_id = store_id
        self._links = links
        self._partitions = partitions
        self._side_by_side = engine.remote or settings.fsync == "always"
        self._graces: dict[WorkerLink, asyncio.TimerHandle] = {}
        self._releases: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.streams: StreamServer | None = None
        """Where workers may link to as well; set before anything is served."""

    async def Hello(self, request: store_pb2.HelloRequest, context: Any) -> store_pb2.HelloReply:  # noqa: N802
        """Say who the store is."""
        await self._check_app_name(request.app_name, context)
        return store_pb2.HelloReply(
            store_id=self._store_id,
            engine=self._engine.name,
            version=version("socketcluster-store"),
            partition_count=PARTITION_COUNT,
            stream_port=0 if self.streams is None else self.streams.port,
            stream_ticket=b"" if self.streams is None else self.streams.tickets.give(),
        )

    async def Link(self, request_iterator: Any, context: Any) -> None:  # noqa: N802
        """Serve a worker's stream until one of both ends it."""
        requests: AsyncIterator[Any] = aiter(request_iterator)
        first = await anext(requests, store_pb2.LinkRequest())
        opening = first.open
        if not 1 <= len(opening.worker_id) <= MAX_ID or not 1 <= len(opening.incarnation) <= MAX_ID:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"a link begins with LinkOpen, which names the worker and its process in 1 to {MAX_ID} characters each",
            )
        if len(opening.http_host) > MAX_HOST or max(opening.http_port, opening.mesh_port) > MAX_PORT:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "LinkOpen names no host and ports of a worker")
        await self._check_app_name(opening.app_name, context)
        if self._stopping:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the store stops")
        http = (opening.http_host or rpc.peer_host(context.peer()), opening.http_port) if opening.http_port else None
        most, mesh_port = self._settings.max_link_bytes, opening.mesh_port
        link = WorkerLink(opening.worker_id, opening.incarnation, most, http, mesh_port)
        if self._links.refuses(link):
            await context.abort(
                grpc.StatusCode.ALREADY_EXISTS, "another process with this worker's id is linked, and was started later"
            )
        link.announce(self._partitions.announcement())
        self._links.add(link)
        log.info("worker linked", worker=link.worker_id)
        reader = asyncio.create_task(self._read(link, first, requests))
        if isinstance(context, StreamCall):
            context.begin = partial(self._begin, link)
            writer = asyncio.create_task(link.write_at_once(context.stream))
        else:
            writer = asyncio.create_task(link.write(context.write))
        try:
            ends: set[asyncio.Future[Any]] = {reader, writer, link.closing}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not link.applying:
                reader.cancel()
            writer.cancel()
            status, reason = link.closing.result() if link.closing.done() else (grpc.StatusCode.OK, "")
            self._lost(link, status)  # before anything is awaited: gRPC may cancel this handler here once more
            # unlike gather, it breaks nothing off if it is cancelled
            await asyncio.wait((reader, writer, *link.under_way))
        for task in (reader, writer):
            outcome = None if task.cancelled() else task.exception()
            if isinstance(outcome, aio.BaseError | aio.UsageError):
                log.debug("a link broke", worker=link.worker_id, error=str(outcome))
            elif outcome is not None:
                log.error("a link failed", worker=link.worker_id, exc_info=outcome)
                await context.abort(grpc.StatusCode.INTERNAL, "the store failed; its log says more")
        if status is not grpc.StatusCode.OK:
            await context.abort(status, reason)

    async def close(self) -> None:
        """Hand all partitions over; end all links, as soon as workers have what was to be sent to them."""
        self._stopping = True
        await self._partitions.close()
        links = list(self._links)
        for link in links:
            link.finish(grpc.StatusCode.UNAVAILABLE, "the store stops")
        if links:
            await asyncio.wait([link.closing for link in links], timeout=DRAIN_TIMEOUT)
        for link in links:
            link.close(grpc.StatusCode.UNAVAILABLE, "the store stops")
        for timer in self._graces.values():
            timer.cancel()
        if self._releases:
            await asyncio.wait(self._releases)

    async def _check_app_name(self, app_name: str, context: Any) -> None:
        if app_name != self._settings.app_name:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this store belongs to the application {self._settings.app_name!r}, not to {app_name!r}",
            )

    async def _read(self, link: WorkerLink, first: store_pb2.LinkRequest, requests: AsyncIterator[Request]) -> None:
        request: Request | None = first
        while request is not None:
            if isinstance(request, store_pb2.LinkRequest):
                await link.drained()
                if not link.open:
                    return  # no answer could be sent: the worker asks again
                link.applying = True
                request = self._apply(link, request)
            try:
                await request
            finally:
                link.applying = False
            if not link.open:
                return  # nobody breaks off any more what would be waited for here
            request = await anext(requests, None)

    def _begin(self, link: WorkerLink, request: store_pb2.LinkRequest) -> Request | None:
        """Apply a request in the turn in which it comes, if nothing has to be waited for: else return what waits."""
        if link.full or not link.open:
            return request
        link.applying = True  # what is not done here is to be done by whoever reads the link
        if self._side_by_side or (operations := self._decode(link, request)) is None:
            return self._apply(link, request)
        if len(operations) > APPLIED_AT_ONCE:
            return self._apply_portions(link, operations)
        try:
            steps = self._in_turn(link, operations)
            if (pending := next(steps, None)) is not None:
                return _finish(steps, pending)
        except Exception as error:
            return _failed(error)
        link.applying = False
        return None

    async def _apply(self, link: WorkerLink, request: store_pb2.LinkRequest) -> None:
        if (operations := self._decode(link, request)) is not None:
            await self._apply_portions(link, operations)

    def _decode(self, link: WorkerLink, request: store_pb2.LinkRequest) -> list[Operation] | None:
        try:
            return decode_operations(request.operations) if request.operations else []
        except msgspec.DecodeError as error:
            link.close(grpc.StatusCode.INVALID_ARGUMENT, f"the operations are no MessagePack of operations: {error}")
            return None

    async def _apply_portions(self, link: WorkerLink, operations: list[Operation]) -> None:
        """Apply operations: in order, except that those on different partitions do not wait for each other."""
        apply = self._apply_side_by_side if self._side_by_side else self._apply_in_turn
        portions = _portions(operations, SIDE_BY_SIDE_AT_ONCE if self._side_by_side else APPLIED_AT_ONCE)
        for number, some in enumerate(portions):
            if number:
                await asyncio.sleep(0)  # the answers so far are sent, and the worker goes on with them
            if link.full:
                await link.drained()
            if link.closing.done():
                return  # the worker sends what is left again, and that must not overtake it
            await apply(link, some)

    async def _apply_side_by_side(self, link: WorkerLink, operations: list[Operation]) -> None:
        """Have the partitions wait for the disk or Valkey together; return when they have answered, or take long."""
        under_way = link.under_way
        while len(under_way) >= UNDER_WAY or sum(under_way.values()) > UNDER_WAY_BYTES:
            await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        portion = asyncio.create_task(self._apply_portion(link, operations))
        under_way[portion] = sum([len(operation.value) for operation in operations])
        portion.add_done_callback(partial(self._portion_ended, link))
        await asyncio.wait({portion}, timeout=PATIENCE if self._engine.remote else None)

    def _portion_ended(self, link: WorkerLink, portion: asyncio.Task[None]) -> None:
        del link.under_way[portion]
        if not portion.cancelled() and (error := portion.exception()) is not None:
            log.error("a link failed", worker=link.worker_id, exc_info=error)
            link.close(grpc.StatusCode.INTERNAL, "the store failed; its log says more")
        if not link.open and not link.under_way:
            self._forget(link)  # it may have subscribed after its end

    async def _apply_portion(self, link: WorkerLink, operations: list[Operation]) -> None:
        calls = []
        for number, some in _groups(operations).items():
            call = asyncio.create_task(self._apply_alone(number, link, some, link.last_call.get(number)))
            link.last_call[number] = call
            calls.append(call)
        for failure in await asyncio.gather(*calls, return_exceptions=True):  # when none of them goes on any more
            if failure is not None:
                raise failure

    async def _apply_in_turn(self, link: WorkerLink, operations: list[Operation]) -> None:
        steps = self._in_turn(link, operations)
        if (pending := next(steps, None)) is not None:
            await _finish(steps, pending)

    def _in_turn(self, link: WorkerLink, operations: list[Operation]) -> _Steps:
        """Apply operations, and answer; what has to be waited for is yielded, and what it returns to be sent here."""
        results: list[Result] = []
        owned = self._partitions.owned
        for number, some in _groups(operations).items():
            if link.closing.done():
                return
            partition = owned.get(number)
            outcomes = [NOT_OWNED] * len(some) if partition is None else partition.apply(link, some)
            if not isinstance(outcomes, list):
                link.answer(results)  # they do not wait with it
                results = []
                outcomes = yield outcomes
            for operation, outcome in zip(some, outcomes, strict=True):
                results.append(Result(operation.id, outcome) if type(outcome) is bytes else _result(operation, outcome))
        link.answer(results)

    async def _apply_alone(
        self, number: int, link: WorkerLink, operations: list[Operation], before: asyncio.Task[None] | None
    ) -> None:
        """Apply operations on one partition, and answer: behind those ``before`` it, whatever becomes of the partition.

        A worker takes the answers to the sendings of an operation for that in which it sent it.
        """
        if before is not None and not before.done():
            await asyncio.wait({before})
        if not link.open:  # the worker sends on its next link again what would be overtaken here
            return
        partition = self._partitions.owned.get(number)
        if partition is None:
            outcomes: list[Outcome] = [NOT_OWNED] * len(operations)
        else:
            applying = partition.apply(link, operations)
            outcomes = applying if isinstance(applying, list) else await applying
        link.answer(_results(operations, outcomes))

    def _lost(self, link: WorkerLink, status: grpc.StatusCode) -> None:
        """Clean up behind a link; its sessions stay attached until its worker has had its time to come back."""
        link.close(status, "")
        self._links.remove(link)
        self._forget(link)
        if self._stopping:
            return
        log.info("worker's link ended", worker=link.worker_id)
        loop = asyncio.get_running_loop()
        self._graces[link] = loop.call_later(self._settings.link_grace, self._grace_over, link)

    def _forget(self, link: WorkerLink) -> None:
        """Tell a link that has ended of no channels and key chains any more."""
        for number, channels in _by_partition(link.channels).items():
            if (partition := self._partitions.owned.get(number)) is not None:
                partition.unsubscribe(link, channels)
        for partition in self._partitions.owned.values():
            partition.unwatch(link)

    def _grace_over(self, link: WorkerLink) -> None:
        del self._graces[link]
        task = asyncio.create_task(self._release(link))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def _release(self, link: WorkerLink) -> None:
        for number, session_ids in _by_partition(link.sessions).items():
            if (partition := self._partitions.owned.get(number)) is not None:
                await partition.release(link, session_ids)


def add_to_server(servicer: StoreServicer, server: aio.Server) -> None:
    """Serve a store: as the generated code would, but the replies of a link are packed before they are written."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Hello": grpc.unary_unary_rpc_method_handler(
            servicer.Hello,
            request_deserializer=store_pb2.HelloRequest.FromString,
            response_serializer=store_pb2.HelloReply.SerializeToString,
        ),
        "Link": grpc.stream_stream_rpc_method_handler(
            servicer.Link, request_deserializer=store_pb2.LinkRequest.FromString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("socketcluster.v1.Store", handlers),))


async def _finish(steps: _Steps, pending: Awaitable[list[Outcome]]) -> None:
    """Wait for what operations have to wait for, and go on with them."""
    with contextlib.suppress(StopIteration):
        while True:
            outcomes = await pending
            pending = steps.send(outcomes)


async def _failed(error: Exception) -> None:
    """Fail where the failure of a request is told."""
    raise error


def _portions(operations: list[Operation], size: int) -> Iterator[list[Operation]]:
    start = 0
    while len(operations) - start >= size * 3 // 2:
        yield operations[start : start + size]
        start += size
    yield operations[start:]


def _groups(operations: list[Operation]) -> defaultdict[int, list[Operation]]:
    groups: defaultdict[int, list[Operation]] = defaultdict(list)
    for operation in operations:
        groups[operation.partition].append(operation)
    return groups


def _results(operations: list[Operation], outcomes: list[Outcome]) -> list[Result]:
    return [_result(operation, outcome) for operation, outcome in zip(operations, outcomes, strict=True)]


def _result(operation: Operation, outcome: Outcome) -> Result:
    if isinstance(outcome, bytes):
        return Result(operation.id, outcome)
    return Result(operation.id, b"", Error(outcome.code, str(outcome), outcome.name))


def _by_partition(names: set[str]) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = {}
    for name in names:
        groups.setdefault(partition_of(name), []).append(name)
    return groups
