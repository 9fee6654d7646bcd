"""One process: started, started again, stopped, killed with everything that it started."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs
from support.cluster.stage import Stage

from socketcluster.errors import ChildFailedError
from socketcluster.supervisor import FIRST_DELAY, GOOD_AFTER, LAST_DELAY, Backoff

SERVE = "ready(); signal.pause()"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); time.sleep(60)"


async def test_a_killed_process_is_started_again(stage: Stage) -> None:
    supervisor = stage.start(stage.spec(SERVE))
    first = await stage.next_ready()
    assert supervisor.pid == first
    os.kill(first, signal.SIGKILL)
    second = await stage.next_ready()
    assert second != first
    assert supervisor.pid == second


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        ("sys.exit(3)", "status 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 1)", f"signal {signal.SIGRTMIN + 1}"),  # those have no names
    ],
)
async def test_the_log_says_how_a_process_died(stage: Stage, ending: str, how: str) -> None:
    with capture_logs() as logged:
        stage.start(stage.spec(f"ready(); {ending}"))
        await stage.next_ready()
        await stage.next_ready()
    assert ("died", how) in [(entry["event"], entry.get("how")) for entry in logged]


async def test_a_process_that_ends_well_is_started_again_too(stage: Stage) -> None:
    stage.start(stage.spec("ready()"))
    assert await stage.next_ready() != await stage.next_ready()


async def test_its_readiness_is_told_each_time(stage: Stage) -> None:
    told: list[str] = []
    stage.start(stage.spec(SERVE), lambda: told.append("ready"))
    os.kill(await stage.next_ready(), signal.SIGKILL)
    await stage.next_ready()
    assert told == ["ready", "ready"]


async def test_status_78_is_not_tried_again(stage: Stage) -> None:
    supervisor = stage.start(stage.spec("sys.exit(78)", name="store-1"))
    with pytest.raises(ChildFailedError, match=r"store-1 cannot run.*status 78"):
        await stage.end(supervisor)
    assert supervisor.pid is None


async def test_stop_lets_the_process_finish(stage: Stage) -> None:
    read, write = os.pipe()
    code = f"signal.signal(signal.SIGTERM, lambda *_: (os.write({write}, b'finished'), os._exit(0))); {SERVE}"
    supervisor = stage.start(stage.spec(code, write))
    pid = await stage.next_ready()
    os.close(write)
    await supervisor.stop(timeout=30)
    assert os.read(read, 100) == b"finished"
    os.close(read)
    assert not psutil.pid_exists(pid)
    await stage.end(supervisor)


async def test_stop_kills_a_process_that_does_not_finish(stage: Stage) -> None:
    supervisor = stage.start(stage.spec(STUBBORN))
    pid = await stage.next_ready()
    await supervisor.stop(timeout=0.01)
    assert not psutil.pid_exists(pid)


async def test_kill_does_not_wait(stage: Stage) -> None:
    supervisor = stage.start(stage.spec(STUBBORN))
    pid = await stage.next_ready()
    stopped = asyncio.create_task(supervisor.stop(timeout=3600))
    supervisor.kill()
    await stopped
    assert not psutil.pid_exists(pid)


async def test_what_a_dead_process_started_dies_too(stage: Stage) -> None:
    read, write = os.pipe()
    code = f"child = os.fork() or signal.pause()\nos.write({write}, str(child).encode())\n{SERVE}"
    stage.start(stage.spec(code, write))
    pid = await stage.next_ready()
    grandchild = os.pidfd_open(int(os.read(read, 100)))
    os.kill(pid, signal.SIGKILL)
    await stage.next_ready()
    dead, _, _ = select.select([grandchild], [], [], 60)
    assert dead
    for descriptor in (grandchild, read, write):
        os.close(descriptor)


async def test_stop_while_it_waits_to_start_again(stage: Stage) -> None:
    supervisor = stage.start(stage.spec("ready(); sys.exit(1)"))
    for _ in range(3):
        await stage.next_ready()
    await supervisor.stop(timeout=30)
    await stage.end(supervisor)
    assert supervisor.pid is None


async def test_a_command_that_cannot_be_started_is_tried_again(stage: Stage, tmp_path: Path) -> None:
    command = tmp_path / "command"
    spec = stage.spec(SERVE)
    supervisor = stage.start(replace(spec, argv=(str(command), *spec.argv[1:])))
    await asyncio.sleep(0)  # the first attempt is made
    command.symlink_to(spec.argv[0])
    assert await stage.next_ready() == supervisor.pid


async def test_signals_of_the_terminal_do_not_reach_it(stage: Stage) -> None:
    stage.start(stage.spec(SERVE))
    pid = await stage.next_ready()
    assert os.getsid(pid) == pid != os.getsid(0)


def test_the_first_restart_comes_at_once_and_the_others_later_and_later() -> None:
    backoff = Backoff()
    delays = [backoff.next_delay(served=0) for _ in range(12)]
    assert delays[0] == 0
    for number, delay in enumerate(delays[1:]):
        longest = min(LAST_DELAY, FIRST_DELAY * 2**number)
        assert 0.75 * longest <= delay <= longest
    assert max(delays) > 5


def test_a_good_time_makes_the_next_death_the_first_again() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.next_delay(served=0)
    assert backoff.next_delay(served=GOOD_AFTER - 0.1) > 1
    assert backoff.next_delay(served=GOOD_AFTER) == 0
    assert backoff.next_delay(served=0) <= FIRST_DELAY


def test_delays_differ_between_processes() -> None:
    def third() -> float:
        backoff = Backoff()
        return [backoff.next_delay(served=0) for _ in range(3)][-1]

    assert len({third() for _ in range(5)}) > 1


def test_a_thousand_deaths_do_not_overflow() -> None:
    backoff = Backoff()
    assert max(backoff.next_delay(served=0) for _ in range(2000)) <= LAST_DELAY
