"""A run: who takes part, what becomes of who fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.drive.remote import GeneratorError
from bench.peers.install import Peers
from bench.peers.running import Running
from bench.peers.side import FLOOR, SESSIONS, SIDES, SOCKETCLUSTER, SOCKETIO
from bench.reporting.sections import Section
from bench.works.bench import Bench
from bench.works.servers import Servers
from bench.works.stand import Options, Stand


def bench(options: Options | None = None) -> Bench:
    return Bench(options or Options(), Servers(Peers(), keep=False), SIDES)


def stand(name: str) -> Stand:
    (side,) = (side for side in SIDES if side.name == name)
    return Stand(side, Running(1, []), [])


def test_servers_take_part_in_what_they_can() -> None:
    assert [side.name for side in bench().able(SESSIONS)] == [SOCKETIO, SOCKETCLUSTER]
    assert len(bench().able()) == len(SIDES)


async def test_who_fails_takes_no_further_part_and_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    section, turns = Section("work", "Work", "how"), []
    stands = [stand(FLOOR), stand(SOCKETIO)]

    async def measure(one: Stand) -> None:
        turns.append(one.name)
        if one.name == FLOOR:
            raise GeneratorError("9 of 10 deliveries came")

    await bench().rounds(section, stands, measure, "events", 2)
    assert turns == [FLOOR, SOCKETIO, SOCKETIO]
    assert section.notes == [f"**{FLOOR} failed:** 9 of 10 deliveries came"]
    assert f"work: {SOCKETIO}: events, round 2 of 2" in capsys.readouterr().err


async def test_who_does_not_start_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    section = Section("work", "Work", "how")
    async with Servers(Peers(floor=Path("/bin/false")), keep=False) as servers:
        run = Bench(Options(), servers, SIDES)
        async with run.stands(section, [side for side in SIDES if side.name == FLOOR]) as stands:
            assert stands == []
    assert section.notes == [f"**{FLOOR} failed:** {FLOOR} did not start: it said ''"]


def test_sizes_are_bounded_and_each_there_once() -> None:
    assert Options().sizes((10, 200)) == [(10, 10), (200, 200)]
    assert Options(most=50).sizes((10, 200, 1000)) == [(10, 10), (200, 50)]
    assert Options(rounds=9).few == 2


def test_the_load_generators_worst_is_kept() -> None:
    run = bench()
    told = run._health_of("work", FLOOR)
    for busy, late in ((0.5, 0.001), (0.2, 0.004)):
        told(busy, late)
    assert run.busy == {"work": {FLOOR: 0.5}}
    assert run.late == {"work": {FLOOR: 0.004}}
