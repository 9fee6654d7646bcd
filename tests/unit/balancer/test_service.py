"""The balancer's end: who is under way is hurried, and nothing goes on behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.balancer.bench import PATIENCE, Bench
from support.network import certificates


async def test_who_has_not_spoken_does_not_hold_up_the_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socketcluster_balancer.entrance.reception.GRACE", 0.01)
    balancer = await bench.start(await bench.worker("aaaaaaaa"), first_byte_timeout=3600)
    async with bench.client() as (reader, _):
        await bench.until(lambda: balancer.reception.clients == 1)
        async with asyncio.timeout(PATIENCE):
            await bench.stop(3600)
        assert await reader.read() == b""
    assert bench.refused == {"first_byte_timeout": 1}
    assert balancer.limits.connections == 0


async def test_behind_the_end_nobody_watches_the_certificate_or_renews_keys(
    bench: Bench, files: certificates.Files, tmp_path: Path
) -> None:
    folder = tmp_path / "tickets"
    balancer = await bench.start(
        await bench.worker("aaaaaaaa"), tls_cert=files.cert, tls_key=files.key, tls_ticket_dir=folder
    )
    certificate = balancer.certificate
    assert certificate is not None

    def timers() -> list[asyncio.TimerHandle | None]:
        assert certificate is not None
        assert certificate._tickets is not None
        return [certificate._expiry._timer, certificate._tickets._timer]

    assert all(timers())
    certificate.reload()
    last = timers()
    await bench.stop(0)
    assert timers() == [None, None]
    assert all(timer is not None and timer.cancelled() for timer in last)
