"""What the balancer tells of itself in numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.balancer.bench import Bench
from support.network import certificates

from socketcluster_runtime.tls.certificates import read_chain


@pytest.fixture
def read(bench: Bench) -> Callable[..., float]:
    """``read(name, label=value)`` returns the sample of that name, without the prefix that all have."""

    def sample(name: str, **labels: str) -> float:
        registry = CollectorRegistry()
        registry.register(bench.balancer.metrics)
        found = registry.get_sample_value(f"socketcluster_balancer_{name}", labels)
        assert found is not None, (name, labels)
        return found

    return sample


async def test_connections_are_told_by_the_way_that_they_went(bench: Bench, read: Callable[..., float]) -> None:
    handed, copied = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb", handoff=False)
    await bench.start(handed, copied)
    assert read("workers_ready") == 2
    post = b"POST /?sid=%s.1 HTTP/1.1\r\ncontent-length: 1\r\n\r\n"
    async with bench.client() as (_, one), bench.client() as (_, two), bench.client() as (_, three):
        one.write(post % b"aaaaaaaa")
        two.write(post % b"bbbbbbbb")
        three.write(b"GET")
        await bench.until(lambda: read("connections", transport="plain") == 3)
        await bench.until(lambda: read("connections_by_way", way="handover") == 1)
        await bench.until(lambda: read("connections_by_way", way="spliced") == 1)
        await bench.until(lambda: read("connections_by_way", way="arriving") == 1)
        await handed.tell(ready=False)
        await copied.tell(ready=False)
        await bench.until(lambda: read("workers_ready") == 0)
        three.write(b" / HTTP/1.1\r\n\r\n")
        await bench.until(lambda: read("connections_by_way", way="waiting") == 1)
        await handed.tell(ready=True)
        one.write(b"x")
        two.write(b"x")
    await bench.until(lambda: read("connections", transport="plain") == 0)
    assert read("accepted_total", transport="plain") == 3
    assert (read("clients_total", way="handover"), read("clients_total", way="spliced")) == (2, 1)
    assert read("handovers_failed_total") == read("handovers_pending") == 0


async def test_the_end_of_the_certificate_is_told(bench: Bench, read: Callable[..., float], tmp_path: Path) -> None:
    files = certificates.make(tmp_path, "any")
    await bench.start(await bench.worker("aaaaaaaa"), tls_cert=files.cert, tls_key=files.key)
    (certificate,) = read_chain(files.cert.read_bytes())
    ends = certificate.not_valid_after_utc.timestamp()
    assert read("certificate_expiry_timestamp_seconds") == ends


async def test_handovers_that_fail_and_those_under_way_are_told(bench: Bench, read: Callable[..., float]) -> None:
    mute = await bench.worker("aaaaaaaa")
    mute.silent = True
    await bench.start(mute, handoff_timeout=300, worker_wait=0)
    waiting = asyncio.ensure_future(bench.get())
    await mute.received.get()
    assert read("handovers_pending") == 1
    mute.break_links()
    assert (await waiting).status == 503
    assert read("handovers_failed_total") >= 1
    assert read("refused_total", reason="no_worker") == 1


REASONS = ("head_malformed", "head_too_large", "head_timeout", "first_byte_timeout", "socket_limit")


@pytest.mark.parametrize(
    ("sent", "reason", "options"),
    [
        (b"\0", "head_malformed", {}),
        (b"GET / HTTP/1.1\r\na: " + b"x" * 1000, "head_too_large", {"max_head_bytes": 1000}),
        (b"GET", "head_timeout", {"head_timeout": 0.05}),
        (b"", "first_byte_timeout", {"first_byte_timeout": 0.05}),
    ],
)
async def test_refusals_are_told_by_their_reason(
    bench: Bench, read: Callable[..., float], sent: bytes, reason: str, options: dict[str, Any]
) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), **options)
    async with bench.client() as (reader, writer):
        writer.write(sent)
        await reader.read()
    assert {each: read("refused_total", reason=each) for each in REASONS} == {
        each: float(each == reason) for each in REASONS
    }


async def test_workers_that_hang_or_are_full_are_told(
    bench: Bench, read: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_balancer.placement.signs_of_life.HANG_AFTER", 0.05)
    monkeypatch.setattr("socketcluster_balancer.placement.signs_of_life.LOOK_INTERVAL", 0.01)
    hung, full = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    await bench.start(hung, full)
    assert [read(name) for name in ("workers_hung", "workers_full", "worker_hangs_total")] == [0, 0, 0]
    await hung.tell(alive_every_ms=10)
    await full.tell(ready=False, full=True)
    await bench.until(
        lambda: [read(name) for name in ("workers_hung", "workers_full", "worker_hangs_total")] == [1, 1, 1]
    )
    assert read("workers_ready") == 0


async def test_clients_of_tls_are_told_apart(bench: Bench, read: Callable[..., float], tmp_path: Path) -> None:
    files = certificates.make(tmp_path, "own")
    await bench.start(await bench.worker("aaaaaaaa"), tls_cert=files.cert, tls_key=files.key)
    async with bench.client():
        await bench.until(lambda: read("connections", transport="tls") == 1)
