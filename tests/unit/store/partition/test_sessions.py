"""When sessions end, by a clock of the test's own."""

from __future__ import annotations

import pytest

from socketcluster_store.partition.sessions import ATTACHED, Sessions

ALL = 1000


class Holder:
    """A worker's link."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self.sessions: set[str] = set()


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(timeout=100)


def test_an_attached_session_does_not_end(sessions: Sessions) -> None:
    one, two = Holder("one"), Holder("two")
    assert sessions.attach("s", one) == ATTACHED
    assert sessions.attach("s", two) is None
    assert sessions.detach("s", one, now=0) is None
    assert sessions.due(1e9, ALL) == []
    assert list(sessions.holders("s")) == [two]
    assert sessions.detach("s", two, now=50) is not None
    assert sessions.next_deadline() == 150
    assert sessions.due(149, ALL) == []
    assert sessions.due(150, ALL) == ["s"]
    assert "s" not in sessions
    assert sessions.next_deadline() is None


def test_a_write_puts_the_end_of_a_detached_session_off(sessions: Sessions) -> None:
    sessions.touch("s", now=0)
    sessions.touch("s", now=60)
    assert sessions.due(100, ALL) == []
    assert sessions.due(160, ALL) == ["s"]


def test_many_writes_leave_one_entry(sessions: Sessions) -> None:
    for now in range(1000):
        sessions.touch("s", now=now)
    assert len(sessions._heap) == 1


def test_a_write_to_an_attached_session_needs_no_record(sessions: Sessions) -> None:
    sessions.attach("s", Holder("one"))
    assert sessions.touch("s", now=0) is None


def test_attaching_again_in_time_keeps_a_session(sessions: Sessions) -> None:
    holder = Holder("one")
    sessions.attach("s", holder)
    sessions.detach("s", holder, now=0)
    assert sessions.attach("s", holder) == ATTACHED
    assert sessions.due(1e9, ALL) == []


def test_what_does_not_exist_is_not_detached(sessions: Sessions) -> None:
    assert sessions.detach("s", Holder("one"), now=0) is None
    assert "s" not in sessions


def test_a_session_that_is_let_go_of_while_it_has_no_owner_has_its_full_time_from_then(sessions: Sessions) -> None:
    sessions.load([("s", ATTACHED)], now=0, earliest=2)
    assert sessions.detach("s", Holder("one"), now=50) is not None  # its worker did not attach it to this owner first
    assert sessions.due(149, ALL) == []
    assert sessions.due(150, ALL) == ["s"]


def test_a_session_that_is_let_go_of_after_its_link_was_lost_has_its_full_time_from_then(sessions: Sessions) -> None:
    lost = Holder("one")
    sessions.attach("s", lost)
    assert sessions.release("s", lost, now=0) is not None
    assert sessions.detach("s", Holder("one"), now=50) is not None
    assert sessions.due(149, ALL) == []
    assert sessions.due(150, ALL) == ["s"]


def test_a_later_link_takes_the_place_of_a_lost_one(sessions: Sessions) -> None:
    lost, later = Holder("one"), Holder("one")
    sessions.attach("back", lost)
    sessions.attach("gone", lost)
    sessions.attach("back", later)
    assert sessions.release("back", lost, now=0) is None
    assert sessions.release("gone", lost, now=0) is not None
    assert sessions.due(1e9, ALL) == ["gone"]
    assert list(sessions.holders("back")) == [later]


def test_a_later_link_may_detach_what_a_lost_one_attached(sessions: Sessions) -> None:
    lost, later = Holder("one"), Holder("one")
    sessions.attach("s", lost)
    assert sessions.detach("s", later, now=0) is not None
    assert sessions.release("s", lost, now=50) is None
    assert sessions.due(100, ALL) == ["s"]


def test_a_restart_keeps_deadlines_and_gives_the_attached_a_full_timeout(sessions: Sessions) -> None:
    holder = Holder("one")
    sessions.attach("detached", holder)
    record = sessions.detach("detached", holder, now=0)
    assert record is not None
    restarted = Sessions(timeout=100)
    restarted.load([("detached", record), ("attached", ATTACHED)], now=70, earliest=72)
    assert restarted.due(99, ALL) == []
    assert restarted.due(100, ALL) == ["detached"]
    assert restarted.due(169, ALL) == []
    assert restarted.due(170, ALL) == ["attached"]


def test_nothing_ends_before_the_workers_are_back(sessions: Sessions) -> None:
    record = sessions.touch("s", now=0)
    assert record is not None
    restarted = Sessions(timeout=100)
    restarted.load([("s", record)], now=1000, earliest=1002)
    assert restarted.due(1001, ALL) == []
    assert restarted.due(1002, ALL) == ["s"]


def test_a_shorter_timeout_after_a_restart_counts(sessions: Sessions) -> None:
    record = sessions.touch("s", now=0)
    assert record is not None
    restarted = Sessions(timeout=5)
    restarted.load([("s", record)], now=1, earliest=2)
    assert restarted.next_deadline() == 6
    restarted.touch("s", now=5)
    assert restarted.due(9, ALL) == []
    assert restarted.due(10, ALL) == ["s"]
    assert restarted.due(1e9, ALL) == []


def test_many_ends_come_in_portions(sessions: Sessions) -> None:
    for number in range(5):
        sessions.touch(str(number), now=0)
    assert len(sessions.due(100, 3)) == 3
    assert sessions.next_deadline() == 100
    assert len(sessions.due(100, 3)) == 2


def test_what_could_not_be_ended_is_due_again(sessions: Sessions) -> None:
    sessions.touch("s", now=0)
    sessions.touch("attached meanwhile", now=0)
    ended = sessions.due(100, ALL)
    sessions.attach("attached meanwhile", Holder("one"))
    sessions.postpone(ended, until=101)
    assert sessions.due(101, ALL) == ["s"]


def test_an_id_is_over_for_as_long_as_a_session_without_sockets_is_kept(sessions: Sessions) -> None:
    holder = Holder("one")
    sessions.attach("s", holder)
    records = dict(sessions.renew("s", "t", now=10))
    assert records["t"] == ATTACHED
    assert holder.sessions == {"t"}
    assert list(sessions.holders("t")) == [holder]
    assert "s" not in sessions
    loaded = Sessions(timeout=100)
    loaded.load(records.items(), now=20, earliest=0)
    for known in (sessions, loaded):
        assert known.over == {"s": 110}
        assert known.due(109, ALL) == []
        assert known.due(110, ALL) == ["s"]


def test_a_detached_session_stays_so_when_it_is_renewed(sessions: Sessions) -> None:
    sessions.touch("s", now=0)
    sessions.renew("s", "t", now=60)
    assert sessions.due(100, ALL) == []
    assert sorted(sessions.due(160, ALL)) == ["s", "t"]
    assert sessions.renew("unknown", "u", now=0)[1:] == []


def test_a_session_is_ended_whoever_holds_it(sessions: Sessions) -> None:
    holders = [Holder("one"), Holder("two")]
    for holder in holders:
        sessions.attach("s", holder)
    sessions.end("s", now=0)
    assert [holder.sessions for holder in holders] == [set(), set()]
    assert "s" not in sessions
    assert "s" in sessions.over
