"""Workers are told to end what is copied for them when the balancer stops."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from grpc import StatusCode
from support.balancer.bench import PATIENCE, Bench, LogLines
from support.balancer.clients import GET, connected, trusting
from support.network import certificates


async def test_workers_are_told_to_end_what_is_copied_when_the_balancer_stops(
    bench: Bench, files: certificates.Files
) -> None:
    worker, other = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for each in (worker, other):  # the balancer that has no client left asks nobody any more
            await each.ended.wait()
        writer.write(b"farewell")
        writer.close()

    worker.serve = other.serve = serve
    balancer = await bench.start(worker, other, tls_cert=files.cert, tls_key=files.key)
    async with connected(bench, trusting(files)) as (reader, writer):
        writer.write(GET.replace(b"/", b"/?sid=aaaaaaaa.1", 1))
        await bench.until(lambda: bench.relays == 1)
        stopping = asyncio.create_task(bench.stop(PATIENCE))
        assert await reader.read() == b"farewell"
        await stopping
    for each in (worker, other):
        ((name, seconds),) = each.asked_to_end
        assert name == balancer.dispatcher.id
        assert 0 < seconds < PATIENCE


async def test_a_worker_that_does_not_do_so_is_named(
    bench: Bench, files: certificates.Files, log_lines: LogLines
) -> None:
    worker = await bench.worker("aaaaaaaa")
    said = "a worker does not end the connections that are copied for it: they may be cut off"

    async def refuse(_request: Any, context: Any) -> None:
        await context.abort(StatusCode.UNIMPLEMENTED, "")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await bench.until(lambda: said in log_lines(logging.WARNING))
        writer.close()

    await worker.stop_grpc()
    worker.EndRelayed = refuse  # type: ignore[assignment, method-assign]
    worker.serve = serve
    await worker.start_grpc()
    await bench.start(worker, tls_cert=files.cert, tls_key=files.key)
    async with connected(bench, trusting(files)) as (reader, writer):
        writer.write(GET)
        await bench.until(lambda: bench.relays == 1)
        stopping = asyncio.create_task(bench.stop(PATIENCE))
        assert await reader.read() == b""
        await stopping
