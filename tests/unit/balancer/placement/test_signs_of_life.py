"""How the balancer notices that a worker hangs, and what it does then."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest
from support.balancer.bench import Bench, LogLines, link_of

from socketcluster_balancer.placement.signs_of_life import (
    AGAIN_WITHIN,
    HANG_AFTER,
    LOOK_INTERVAL,
    MAX_LOOK_INTERVAL,
    OwnTime,
    SignOfLife,
    pause,
)
from socketcluster_runtime.sockets.beats import Beats
from socketcluster_wire.handoff import encode_ack

PROMISE = {"alive_every_ms": 10}


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a worker for hung that is silent for a moment."""
    monkeypatch.setattr("socketcluster_balancer.placement.signs_of_life.HANG_AFTER", 0.1)
    monkeypatch.setattr("socketcluster_balancer.placement.signs_of_life.LOOK_INTERVAL", 0.01)
    monkeypatch.setattr("socketcluster_balancer.placement.signs_of_life.LOOK_INTERVAL", 0.01)


def looks(time: OwnTime, begin: float, end: float) -> float:
    """Look as often as the balancer does; return the time of the last look."""
    now = begin
    while now < end:
        time.look(now)
        now += LOOK_INTERVAL
    return now


def test_a_worker_is_missing_after_two_seconds_of_silence_and_not_before() -> None:
    time = OwnTime()
    sign = SignOfLife(time)
    now = looks(time, 100.0, 101.0)
    sign.heard("a", 500)
    now = looks(time, now, now + HANG_AFTER - LOOK_INTERVAL)
    assert not sign.missing
    now = looks(time, now, now + 2 * LOOK_INTERVAL)
    assert sign.missing
    sign.heard("a", 500)
    assert not sign.missing


def test_who_promises_fewer_signs_gets_longer_and_who_promises_none_is_never_missing() -> None:
    time = OwnTime()
    slow, old, lost = SignOfLife(time), SignOfLife(time), SignOfLife(time)
    slow.heard("a", 2000)
    old.heard("b", 0)
    lost.heard("c", 500)
    lost.lost()
    now = looks(time, 0.0, 7.5)
    assert not slow.missing
    looks(time, now, 9.0)
    assert slow.missing
    assert not old.missing
    assert not lost.missing


def test_the_balancer_s_own_pause_is_no_silence_of_the_workers() -> None:
    time = OwnTime()
    sign = SignOfLife(time)
    now = looks(time, 0.0, 1.0)
    sign.heard("a", 500)
    now += 3600  # stopped, asleep
    now = looks(time, now, now + 1.0)
    assert not sign.missing
    looks(time, now, now + HANG_AFTER)
    assert sign.missing


def test_while_all_are_well_looks_are_rare_and_nobody_is_missing_right_after_a_pause_of_the_balancer() -> None:
    own = OwnTime()
    sign = SignOfLife(own)
    assert pause([sign]) == MAX_LOOK_INTERVAL  # nobody promises anything
    own.look(100.0)
    sign.heard("a", 500)
    rare = pause([sign])
    assert LOOK_INTERVAL < rare <= HANG_AFTER - 2 * LOOK_INTERVAL
    own.look(100.0, rare)
    own.go_on(100.0 + 3600)
    assert not sign.missing
    assert pause([sign]) == LOOK_INTERVAL
    own.look(100.0 + 3600)
    own.go_on(100.0 + 3600 + 2 * LOOK_INTERVAL)
    assert sign.missing
    sign.hangs()
    assert pause([sign]) == LOOK_INTERVAL


def test_what_is_heard_between_two_looks_is_heard_then() -> None:
    own = OwnTime()
    sign = SignOfLife(own)
    own.look(100.0, 1.5)
    own.go_on(101.0)
    sign.heard("a", 500)
    own.go_on(101.5)
    assert sign.silent_for == pytest.approx(0.5)
    assert sign.left == pytest.approx(HANG_AFTER - 0.5)


def test_a_beat_counts_from_when_it_was_given_but_not_from_before_the_look_that_did_not_find_it() -> None:
    own = OwnTime()
    sign = SignOfLife(own)
    own.look(100.0, 1.5)
    sign.heard("a", 500)
    own.look(101.5, 1.5)
    sign.beat(0.25, 0.0)
    assert sign.silent_for == pytest.approx(0.25)
    own.look(103.0, 1.5)
    sign.beat(1e9, 1.5)  # another clock
    assert sign.silent_for == pytest.approx(1.5)


class Watched:
    """A worker that gives a sign of life at each look, or none, and the balancer that listens."""

    def __init__(self) -> None:
        self.time = OwnTime()
        self.sign = SignOfLife(self.time)
        self.now = 0.0
        self.worker_id = "a"
        self.speaks(1.0)

    def speaks(self, seconds: float) -> None:
        self._pass(seconds, speaks=True)

    def is_silent(self, seconds: float) -> None:
        self._pass(seconds, speaks=False)

    def steady_after(self) -> float:
        """Return for how long it has to speak until it is well."""
        began = self.now
        while self.sign.hung:
            self.speaks(LOOK_INTERVAL)
        return self.now - began - LOOK_INTERVAL  # counted from the first sign

    def _pass(self, seconds: float, *, speaks: bool) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += LOOK_INTERVAL
            self.time.look(self.now)
            if speaks:
                self.sign.heard(self.worker_id, 500)
            elif self.sign.missing and not self.sign.silent:
                self.sign.hangs()


def test_who_hung_is_well_after_two_seconds_of_signs_and_speaks_from_the_first_one_on() -> None:
    worker = Watched()
    worker.is_silent(600.0)
    assert (worker.sign.hung, worker.sign.silent) == (True, True)
    worker.speaks(LOOK_INTERVAL)
    assert (worker.sign.hung, worker.sign.silent) == (True, False)
    assert worker.steady_after() == 2.0 - LOOK_INTERVAL
    assert not worker.sign.hung


def test_who_hangs_again_and_again_stays_hung_in_between_and_has_to_give_signs_for_longer_each_time() -> None:
    worker = Watched()
    steady = []
    for _ in range(5):
        worker.is_silent(3.0)
        worker.speaks(0.75)
        worker.is_silent(1.0)  # no gap: one that is well may be silent for as long
        steady.append(1.75 + worker.steady_after())
    assert steady == [2.0, 4.0, 8.0, 10.0, 10.0]
    worker.speaks(AGAIN_WITHIN)
    worker.is_silent(3.0)
    assert worker.steady_after() == 2.0


def test_a_silence_while_it_recovers_begins_anew() -> None:
    worker = Watched()
    for _ in range(8):
        worker.is_silent(3.0)
        worker.speaks(0.75)
        assert worker.sign.hung
    assert worker.steady_after() == 10.0 - 0.75


def test_what_follows_a_gap_that_no_look_has_found_is_counted_from_there() -> None:
    worker = Watched()
    worker.is_silent(3.0)
    worker.speaks(1.5)
    worker.time.seconds += HANG_AFTER
    assert worker.steady_after() == 2.0


def test_another_process_has_a_clean_record_and_a_broken_connection_is_a_gap() -> None:
    worker = Watched()
    worker.is_silent(3.0)
    worker.sign.lost()
    worker.speaks(LOOK_INTERVAL)
    assert worker.sign.hung
    worker.speaks(1.0)
    worker.sign.lost()
    assert worker.sign.silent
    assert worker.steady_after() == 2.0
    worker.is_silent(3.0)
    worker.sign.lost()
    worker.worker_id = "another"
    worker.speaks(LOOK_INTERVAL)
    assert (worker.sign.hung, worker.sign.silent) == (False, False)
    worker.speaks(LOOK_INTERVAL)
    worker.is_silent(3.0)
    assert worker.steady_after() == 2.0


@pytest.mark.usefixtures("_impatient")
async def test_a_worker_that_hangs_is_told_once_and_gets_no_clients_until_it_is_heard_again(
    bench: Bench, log_lines: LogLines
) -> None:
    hung, other = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    balancer = await bench.start(hung, other)
    await hung.tell(**PROMISE)
    await bench.until(lambda: len(bench.available) == 1)
    assert (await bench.get("/?sid=aaaaaaaa.1")).said["worker"] == "bbbbbbbb"
    assert (await bench.get("/", cookie="socketcluster.session=aaaaaaaa12.sig")).said["worker"] == "bbbbbbbb"
    assert log_lines(logging.WARNING) == ["worker hangs: it is given no clients"]
    assert balancer.workers.hangs == 1
    await hung.tell(alive_every_ms=0)
    await bench.until(lambda: len(bench.available) == 2)
    assert (await bench.get("/?sid=aaaaaaaa.1")).said["worker"] == "aaaaaaaa"
    assert "worker gives signs of life again" in log_lines(logging.INFO)
    assert len(log_lines(logging.WARNING)) == 1


@pytest.mark.usefixtures("_impatient")
async def test_a_worker_that_speaks_again_gets_only_clients_for_whom_there_is_no_other_until_it_is_well(
    bench: Bench, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung, other = await bench.worker("aaaaaaaa", reaches_stores=True), await bench.worker("bbbbbbbb")
    balancer = await bench.start(hung, other)
    await bench.until(lambda: other.others and other.others[-1])
    await hung.tell(**PROMISE)
    await bench.until(lambda: len(bench.available) == 1)
    await hung.tell(alive_every_ms=3600_000)  # it speaks, and is not missed again in this test
    await bench.until(lambda: len(bench.available) == 2)
    assert {(await bench.get("/?sid=aaaaaaaa.1")).said["worker"] for _ in range(4)} == {"bbbbbbbb"}
    assert "worker gives signs of life again" not in log_lines(logging.INFO)
    await other.tell(ready=False)
    await bench.until(lambda: len(bench.available) == 1)
    assert (await bench.get()).said["worker"] == "aaaaaaaa"
    await other.tell(ready=True)
    await bench.until(lambda: len(bench.available) == 2)
    assert {(await bench.get("/?sid=aaaaaaaa.1")).said["worker"] for _ in range(4)} == {"bbbbbbbb"}
    assert not other.others[-1]  # nor is it one that clients are sent to
    monkeypatch.setattr(balancer.workers._own_time, "seconds", balancer.workers._own_time.seconds + 3)
    await hung.tell()
    await bench.until(lambda: "worker gives signs of life again" in log_lines(logging.INFO))
    assert (await bench.get("/?sid=aaaaaaaa.1")).said["worker"] == "aaaaaaaa"
    await bench.until(lambda: other.others[-1])
    assert log_lines(logging.WARNING) == ["worker hangs: it is given no clients"]


async def test_a_worker_of_an_older_release_promises_no_signs_and_never_hangs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_balancer.placement.signs_of_life.HANG_AFTER", 0.0)
    monkeypatch.setattr("socketcluster_balancer.placement.signs_of_life.LOOK_INTERVAL", 0.001)
    old, new = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb", alive_every_ms=1)
    await bench.start(workers=[old.address, new.address])
    await bench.until(lambda: [worker.worker_id for worker in bench.available] == ["aaaaaaaa"])


@pytest.mark.usefixtures("_impatient")
async def test_a_client_that_a_hung_worker_has_not_acknowledged_goes_to_another_one(bench: Bench) -> None:
    hung, other = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    hung.pause_taking()
    await bench.start(hung, other, handoff_timeout=60)
    asking = asyncio.ensure_future(bench.get("/?sid=aaaaaaaa.1"))
    await bench.until(lambda: any(link_of(worker).pending for worker in bench.available))
    await hung.tell(**PROMISE)
    assert (await asking).said["worker"] == "bbbbbbbb"
    hung.resume_taking()
    assert isinstance(await hung.refused_acks.get(), BrokenPipeError)  # nobody is served twice


@pytest.mark.usefixtures("_impatient")
async def test_what_a_hung_worker_has_taken_is_still_counted(bench: Bench) -> None:
    hung = await bench.worker("aaaaaaaa")
    balancer = await bench.start(hung)
    async with bench.client() as (_, writer):
        writer.write(b"POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\n")
        (known,) = bench.available
        await bench.until(lambda: link_of(known).living == 1)
        await hung.tell(**PROMISE)
        await bench.until(lambda: not bench.available)
        assert balancer.limits.connections == link_of(known).living == 1
        writer.write(b"x")
    await bench.until(lambda: balancer.limits.connections == 0)


@pytest.mark.usefixtures("_impatient")
async def test_if_all_workers_hang_clients_are_told_at_once(bench: Bench) -> None:
    hung = [await bench.worker(letter * 8) for letter in "ab"]
    await bench.start(*hung, worker_wait=3600)
    for worker in hung:
        worker.pause_taking()
    asking = asyncio.ensure_future(bench.get())
    await bench.until(lambda: any(link_of(worker).pending for worker in bench.available))
    for worker in hung:
        await worker.tell(**PROMISE)
    answer = await asking  # it was given to one of them
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    answer = await bench.get()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    for worker in hung:
        worker.resume_taking()


@pytest.mark.usefixtures("_impatient")
async def test_once_a_hung_worker_has_gone_clients_wait_for_another(bench: Bench) -> None:
    hung = await bench.worker("aaaaaaaa")
    hung.set(**PROMISE)
    balancer = await bench.start(workers=[hung.address], worker_wait=3600)
    await bench.until(lambda: balancer.workers.hangs == 1)
    assert (await bench.get()).status == 503
    await hung.stop_grpc()
    await bench.until(lambda: balancer.workers.may_come)
    asking = asyncio.ensure_future(bench.get())
    await bench.until(lambda: bench.waiting == 1)
    hung.set(alive_every_ms=0)
    await hung.start_grpc()
    assert (await asking).said["worker"] == "aaaaaaaa"


async def test_an_acknowledgement_that_came_while_the_balancer_was_stopped_is_read_first(bench: Bench) -> None:
    """Both are in this one process: stopping it stops the worker, too, whose acknowledgement lies in the socket."""
    worker = await bench.worker("aaaaaaaa")
    worker.silent = True
    balancer = await bench.start(worker, handoff_timeout=0.2)
    asking = asyncio.ensure_future(bench.get())
    taken = await worker.received.get()
    (link,) = worker._links
    link.send(encode_ack(taken.id))
    time.sleep(0.5)  # noqa: ASYNC251  # the balancer's timers are due when it goes on
    (known,) = bench.available
    await bench.until(lambda: link_of(known).living == 1)
    assert balancer.counters.handovers_failed == 0
    worker.tell_end(taken.id)
    asking.cancel()


@pytest.mark.usefixtures("_impatient")
async def test_a_worker_of_this_host_that_is_seen_to_beat_need_not_say_so(
    bench: Bench, log_lines: LogLines, tmp_path: Path
) -> None:
    beats = Beats(tmp_path / "aaaaaaaa.beats")
    worker = await bench.worker("aaaaaaaa", beats_path=str(tmp_path / "aaaaaaaa.beats"))
    worker.set(**PROMISE)
    balancer = await bench.start(worker)

    async def beating() -> None:
        while True:
            beats.beat()
            await asyncio.sleep(0.001)

    heart = asyncio.create_task(beating())
    await bench.until(lambda: worker.seen_for and worker.seen_for[-1] == worker.stream != b"")
    await bench.until(lambda: not balancer.workers.known[0].hung)
    hangs = balancer.workers.hangs
    until = asyncio.get_running_loop().time() + 0.3  # three times as long as it may be silent
    await bench.until(lambda: asyncio.get_running_loop().time() > until)
    assert balancer.workers.hangs == hangs
    heart.cancel()
    await bench.until(lambda: balancer.workers.hangs > hangs)
    assert "worker hangs: it is given no clients" in log_lines(logging.WARNING)
    heart = asyncio.create_task(beating())
    await bench.until(lambda: len(bench.available) == 1)
    heart.cancel()
    beats.close()


async def test_a_file_that_is_not_there_or_does_not_beat_is_none(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "still").write_bytes(bytes(8))
    still = await bench.worker("aaaaaaaa", beats_path=str(tmp_path / "still"))
    gone = await bench.worker("bbbbbbbb", beats_path=str(tmp_path / "gone"))
    await bench.start(still, gone)
    await bench.until(lambda: still.others and gone.others)
    assert still.seen_for == [b""] == gone.seen_for
