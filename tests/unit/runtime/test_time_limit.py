"""A plain function that takes too long is ended; whatever needs its end is not."""

from __future__ import annotations

import signal
import time

import pytest

from socketcluster_runtime.time_limit import REPEAT, TimeLimit, TookTooLong

SOON = 0.001


def work(seconds: float = 60) -> None:
    """Keep the process busy for that long, as a function of a user may."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_one_that_is_in_time_goes_on_undisturbed() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with TimeLimit(60).running():
        work(0)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_one_that_takes_too_long_is_ended_and_nothing_follows() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TookTooLong), TimeLimit(SOON).running():
        work()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is before
    work(2 * REPEAT)


def test_one_that_waits_is_ended_too() -> None:
    with pytest.raises(TookTooLong), TimeLimit(SOON).running():
        time.sleep(60)


def test_what_it_catches_does_not_save_it() -> None:
    caught: list[str] = []

    def careless() -> None:
        for _ in range(2):
            try:
                work()
            except Exception:
                caught.append("an error")
            except BaseException:
                caught.append("the end")
        work()

    with pytest.raises(TookTooLong), TimeLimit(SOON).running():
        careless()
    assert caught == ["the end", "the end"]


def test_what_others_need_runs_to_its_end_and_is_told_behind_it() -> None:
    limit = TimeLimit(SOON)
    done: list[str] = []

    def run() -> None:
        with limit.shielded():
            work(5 * REPEAT)
            done.append("what others need")
        done.append("the rest")

    with pytest.raises(TookTooLong), limit.running():
        run()
    assert done == ["what others need"]


def test_a_shield_within_the_time_changes_nothing() -> None:
    limit = TimeLimit(60)
    with limit.running(), limit.shielded():
        work(0)


def test_an_error_of_the_function_is_its_own() -> None:
    with pytest.raises(ValueError, match="mine"), TimeLimit(60).running():
        raise ValueError("mine")
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_each_run_has_its_whole_time() -> None:
    limit = TimeLimit(SOON)
    with pytest.raises(TookTooLong), limit.running():
        work()
    limit.seconds = 60
    with limit.running(), limit.shielded():  # what was over before is not over now
        work(0)
