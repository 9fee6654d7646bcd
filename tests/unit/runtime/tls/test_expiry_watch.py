"""Certificates that end: said 14 days before, each day from then on, and when it is so; no restart needed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from support.network.certificates import Authority

from socketcluster_runtime.tls import expiry_watch
from socketcluster_runtime.tls.certificates import read_chain
from socketcluster_runtime.tls.expiry_watch import DAY, ExpiryWatch

EARLY = "a certificate is not valid yet, and is not accepted"
SOON = "a certificate expires soon"
OVER = "a certificate has expired, and is not accepted"


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_day_from_the_fourteenth_before_the_end(tmp_path: Path, lines: list[Any]) -> None:
    clock = Clock()
    path, _ = Authority(tmp_path).issue("leaf", days=100)
    (certificate,) = read_chain(path.read_bytes())
    begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    watch = ExpiryWatch("do something", clock)
    said = []
    clock.now = begin - 1.5 * DAY
    watch.take("tls_cert", path, [certificate])
    for time in (
        begin - DAY,
        begin - DAY / 2,
        begin,
        end - 14 * DAY - 1,
        end - 14 * DAY,
        end - 13.5 * DAY,
        end - 13 * DAY,
    ):
        clock.now = time
        watch.look()
        said.append([(line["log_level"], line["event"], line["days"]) for line in lines])
        lines.clear()
    early, soon = [("error", EARLY, 1.5)], [("warning", SOON, 14.0)]
    assert said == [early, [("error", EARLY, 0.5)], [], [], soon, [], [("warning", SOON, 13.0)]]
    clock.now = end
    watch.look()
    clock.now = end + DAY
    watch.look()
    assert [(line["log_level"], line["event"], line["days"]) for line in lines] == [
        ("error", OVER, 0.0),
        ("error", OVER, -1.0),
    ]
    assert lines[0]["not_after"] == f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    assert lines[0]["not_before"] == f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
    shown = {name: lines[0][name] for name in ("option", "path", "certificate", "what_to_do")}
    assert shown == {"option": "tls_cert", "path": str(path), "certificate": "CN=leaf", "what_to_do": "do something"}
    assert watch.ends == end


def test_the_first_that_ends_counts_and_a_new_file_is_looked_at_anew(tmp_path: Path, lines: list[Any]) -> None:
    authority = Authority(tmp_path)  # which ends in a day
    long, short = (read_chain(authority.issue(f"{days}", days=days)[0].read_bytes()) for days in (90, 10))
    watch = ExpiryWatch("")
    assert watch.ends is None
    watch.take("tls_cert", tmp_path, [*long, *read_chain(authority.cert.read_bytes())])
    watch.take("tls_cert", tmp_path, [*long, *short])
    assert [line["certificate"] for line in lines] == ["CN=authority", "CN=10"]
    assert watch.ends == short[0].not_valid_after_utc.timestamp()
    watch.take("tls_cert", tmp_path, long)
    assert len(lines) == 2
    watch.take("tls_cert", tmp_path, [])  # they cannot be looked into
    assert watch.ends is None


async def test_it_is_said_while_the_service_runs(
    tmp_path: Path, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry_watch, "LOOK_INTERVAL", 0.001)
    clock = Clock()
    path, _ = Authority(tmp_path).issue("leaf", days=100)
    chain = read_chain(path.read_bytes())
    clock.now = chain[0].not_valid_after_utc.timestamp() - 15 * DAY
    watch = ExpiryWatch("", clock)
    watch.take("tls_cert", path, chain)
    watch.start()
    assert not lines
    clock.now += 2 * DAY
    async with asyncio.timeout(60):
        while not lines:  # noqa: ASYNC110  # a log has no event
            await asyncio.sleep(0.001)
    watch.close()
    assert [(line["event"], line["days"]) for line in lines] == [(SOON, 13.0)]
