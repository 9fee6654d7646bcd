"""What is said of a run when it is over."""

from __future__ import annotations

import pytest
from rich.console import Console

from socketcluster.bench.generators import Generators
from socketcluster.bench.plan import Mode, Plan, Protocol
from socketcluster.bench.summary import milliseconds, problems, report, shown, too_busy
from socketcluster.bench.tally import Snapshot, Tally


def run_of(tally: Tally, fatal: str = "", **options: object) -> Generators:
    made = Generators(Plan(url="http://a", **{"connections": 2, **options}))  # type: ignore[arg-type]
    made.phase = "done"
    made._latest = [Snapshot("done", tally, fatal)]
    return made


def text(run: Generators) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(shown(run))
    return capture.get()


def well(**counts: object) -> Tally:
    tally = Tally(opened=2, open=2, seconds=10.0, busiest=0.1, **counts)  # type: ignore[arg-type]
    tally.connecting.record(1_000_000)
    tally.latency.record(2_000_000)
    tally.lag.record(1000)
    return tally


def test_a_run_that_went_well() -> None:
    run = run_of(well(sent=100, answered=100))
    assert problems(run) == []
    said = report(run)
    assert said["ok"]
    assert said["messages"] == {"sent": 100, "answered": 100, "unanswered": 0, "rate": 10.0}
    assert said["latency_ms"]["max"] == 2.0
    assert said["generator"]["bottleneck"] is False
    assert "all well" in text(run)
    assert "100 sent, 100 answered" in text(run)


def test_lost_deliveries_are_counted_and_no_success() -> None:
    run = run_of(well(sent=10, answered=10, joined=2, delivered=19), mode=Mode.BROADCAST)
    assert problems(run) == ["1 of 20 deliveries were lost"]
    assert report(run)["deliveries"] == {"members": 2, "expected": 20, "delivered": 19, "lost": 1, "rate": 1.9}
    assert "19 of 20 to 2 members" in text(run)


@pytest.mark.parametrize(
    ("tally", "options", "problem"),
    [
        (Tally(), {}, "nothing could connect"),
        (Tally(opened=1), {}, "1 of 2 could not connect"),
        (Tally(opened=1), {"mode": Mode.STORM}, "1 of 2 were not served again"),
        (Tally(opened=2, lost=1), {"mode": Mode.IDLE}, "1 connections were lost"),
        (Tally(opened=2, unanswered=3), {}, "3 messages had no answer, or an error for one"),
    ],
)
def test_what_makes_it_no_success(tally: Tally, options: dict[str, object], problem: str) -> None:
    run = run_of(tally, "", **options)
    assert problems(run) == [problem]
    assert problem in text(run)
    assert not report(run)["ok"]


def test_errors_come_with_what_to_do() -> None:
    run = run_of(Tally(errors={"connection refused": 2}), "connection refused")
    assert "2 times: connection refused" in text(run)
    assert text(run).count("is the server running") == 1
    run = run_of(Tally(opened=2), "no answer in time")
    assert problems(run) == ["it could not begin: no answer in time"]
    assert '@socket.on("bench")' in text(run)
    assert report(run_of(Tally(errors={"a": 1, "b": 2})))["errors"] == {"b": 2, "a": 1}


def test_a_generator_that_was_the_bottleneck_is_told() -> None:
    assert too_busy(run_of(well())) == ""
    busy = well()
    busy.busiest = 0.97
    assert "97%" in too_busy(run_of(busy))
    late = well()
    for _ in range(10):
        late.lag.record(50_000_000)
    assert "49.9 ms late" in too_busy(run_of(late))
    assert report(run_of(late))["generator"]["bottleneck"]
    assert "machine of its own" in text(run_of(late))


def test_modes_say_only_what_they_are_about() -> None:
    idle = report(run_of(well(), mode=Mode.IDLE, protocol=Protocol.SOCKETCLUSTER))
    assert idle.keys() & {"messages", "deliveries", "latency_ms"} == set()
    assert "served again" in text(run_of(well(), mode=Mode.STORM))


def test_times_are_told_as_people_read_them() -> None:
    assert [milliseconds(value) for value in (1e4, 12.34e6, 123.4e6, 2.345e9)] == [
        "0.01 ms",
        "12.3 ms",
        "123 ms",
        "2.35 s",
    ]
