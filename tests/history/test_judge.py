"""Each rule, with a history that keeps it and one that breaks it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from history.judge import judge
from history.record import Call, Ended, History, Loss, Message, Missed, Outcome, Place, Subscribed

DONE, REFUSED, UNKNOWN = Outcome.DONE, Outcome.REFUSED, Outcome.UNKNOWN


class Made:
    """A history that a test makes up; each call takes a tenth of a second, unless it says when."""

    def __init__(self, **options: Any) -> None:
        self.history = History(alive={"w1.1", "w2.1"}, **options)
        self.now = 0.0

    def call(
        self,
        what: str,
        given: Any = None,
        answer: Any = None,
        *,
        key: str = "k",
        client: str = "w1.1/a",
        outcome: Outcome = DONE,
        begun: float | None = None,
        ended: float | None = None,
    ) -> Call:
        begun = self.now if begun is None else begun
        ended = begun + 0.1 if ended is None else ended
        self.now = max(self.now, begun + 0.2, 0 if ended == math.inf else ended + 0.1)
        call = Call(self.history.next_number(), client, what, key, given, begun, ended, outcome, answer)
        self.history.calls.append(call)
        return call

    def tell(self, kind: Any, *more: Any, key: str = "k", worker: str = "w1.1") -> None:
        self.history.told.append(kind(self.history.next_number(), worker, self.now, key, *more))
        self.now += 0.1

    def lose(self) -> None:
        """Take everything away."""
        self.history.losses.append(Loss(self.now, self.now + 0.1))
        self.now += 0.2

    def listen(self, *heard: Place | tuple[Place, Place], key: str = "k", at: Place = (1, 0)) -> None:
        """Subscribe, and hear messages, whose tokens are their offsets' numbers, and gaps."""
        self.tell(Subscribed, at, key=key)
        for each in heard:
            if isinstance(each[0], tuple):
                self.tell(Missed, *each, key=key)
            else:
                self.tell(Message, each, f"{each[0]}.{each[1]}", key=key)

    def publish(self, *places: Place, key: str = "k") -> None:
        """Publish what got these places."""
        for epoch, offset in places:
            self.call("publish", f"{epoch}.{offset}", (epoch, offset), key=key)

    def wrong(self) -> list[str]:
        return [violation.text for violation in judge(self.history)]


@pytest.fixture
def made() -> Made:
    """An empty one."""
    return Made()


def test_an_answer_is_one_to_its_call(made: Made) -> None:
    made.call("update", 0, outcome=Outcome.CONFUSED)
    made.call("count", answer=1)
    assert made.wrong() == ["that is no answer to such a call"]


# Lists


def test_a_list_with_all_that_was_acknowledged_and_some_that_is_open_is_well(made: Made) -> None:
    made.call("add", "a", 0)
    made.call("add", "b", outcome=UNKNOWN, ended=math.inf)
    made.call("add", "c", outcome=UNKNOWN)
    made.call("add", "d", 2)
    made.call("add", "e", outcome=REFUSED)
    made.call("list", answer=["a", "b", "d"])
    assert made.wrong() == []


@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        (["a"], ["b was acknowledged, and is not there"]),
        (
            ["b", "a"],
            ["b is at 0, and was told 1", "a stands after a later one of its client", "a is at 1, and was told 0"],
        ),
        (["a", "b", "b"], ["b is there twice", "b is at 2, and was told 1"]),
        (["a", "b", "c"], ["c was refused, and is there"]),
        (["a", "b", "z"], ["z was added by nobody"]),
    ],
)
def test_a_list_is_what_was_acknowledged(made: Made, read: list[str], wrong: list[str]) -> None:
    made.call("add", "a", 0)
    made.call("add", "b", 1)
    made.call("add", "c", outcome=REFUSED)
    made.call("list", answer=read)
    assert made.wrong() == wrong


def test_an_item_that_has_no_answer_does_not_go_again(made: Made) -> None:
    made.call("add", "a", outcome=UNKNOWN)
    made.call("list", answer=["a"])
    made.call("list", answer=[])
    assert made.wrong() == ["what was read before is not there any more"]


def test_two_items_have_no_common_index(made: Made) -> None:
    made.call("add", "a", 0)
    made.call("add", "b", 0, client="w2.1/a")
    assert made.wrong() == ["two items were told that they have the index 0"]


def test_a_read_that_began_before_the_answer_may_lack_the_item(made: Made) -> None:
    made.call("add", "a", 0, begun=0, ended=2)
    made.call("list", answer=[], begun=1, ended=3)
    assert made.wrong() == []


def test_what_was_taken_away_may_be_missing_but_nothing_later(made: Made) -> None:
    made.call("add", "a", 0)
    made.lose()
    made.call("add", "b", 0)
    made.call("list", answer=["b"])
    assert made.wrong() == []
    made.call("add", "c", 1)
    made.call("list", answer=["b", "b"])
    assert made.wrong() == ["b is there twice", "c was acknowledged, and is not there"]


# Counters


def test_a_counter_that_each_success_raised_is_well(made: Made) -> None:
    made.call("update", 0, True)
    made.call("update", 0, False, client="w2.1/a")
    made.call("update", 1, outcome=UNKNOWN)
    made.call("update", 2, True)
    made.call("count", answer=3)
    assert made.wrong() == []


def test_two_do_not_succeed_from_one_number(made: Made) -> None:
    made.call("update", 0, True)
    made.call("update", 0, True, client="w2.1/a")
    assert made.wrong() == ["two succeeded from 0"]


def test_a_number_was_made_by_somebody(made: Made) -> None:
    made.call("update", 0, True)
    made.call("update", 1, False)
    made.call("count", answer=2)
    assert made.wrong() == ["it is 2, and nobody made 2 of 1"]


def test_a_counter_does_not_go_back(made: Made) -> None:
    made.call("update", 0, True)
    made.call("count", answer=0)
    assert made.wrong() == ["it went back to 0"]


# Registers


def test_a_register_that_shows_the_last_write_or_one_that_is_open_is_well(made: Made) -> None:
    made.call("read", answer=0)
    made.call("write", 1)
    made.call("write", 2, outcome=UNKNOWN)
    made.call("read", answer=1, client="w2.1/r")
    made.call("read", answer=2, client="w2.1/r")
    made.call("write", 3, begun=5, ended=9)
    made.call("read", answer=3, begun=6, ended=7)
    made.call("read", answer=3, begun=8, ended=8.5)
    assert made.wrong() == []


@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        (0, "it went back to 0"),
        (1, "it went back to 1"),
        (3, "3 was refused, and is there"),
        (7, "7 was never written"),
        ("damaged 2", "damaged 2 was never written"),
    ],
)
def test_a_register_is_what_was_written(made: Made, read: Any, wrong: str) -> None:
    made.call("write", 1)
    made.call("write", 2)
    made.call("write", 3, outcome=REFUSED)
    made.call("read", answer=read)
    assert made.wrong() == [wrong]


def test_no_read_shows_less_than_one_that_ended_before_it(made: Made) -> None:
    made.call("write", 1, ended=math.inf, outcome=UNKNOWN)
    made.call("read", answer=1)
    made.call("read", answer=0, client="w2.1/r")
    assert made.wrong() == ["it went back to 0"]


def test_a_register_may_go_back_by_a_loss_alone(made: Made) -> None:
    made.call("write", 1)
    made.lose()
    made.call("read", answer=0)
    made.call("write", 2)
    assert made.wrong() == []
    made.call("read", answer=0)
    assert made.wrong() == ["it went back to 0"]


# Channels


def test_a_channel_whose_messages_are_heard_or_named_is_well(made: Made) -> None:
    made.publish((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2))
    made.call("publish", "open", outcome=UNKNOWN)
    made.listen((1, 1), ((1, 1), (1, 3)), (1, 4), ((1, 4), (2, 1)), (2, 2))
    assert made.wrong() == []


@pytest.mark.parametrize(
    ("heard", "wrong"),
    [
        ([(1, 1), (1, 2)], ["1.3 was acknowledged, and is neither heard nor named as missing by w1.1"]),
        (
            [(1, 1), (1, 3)],
            ["what is missing is not named", "1.2 was acknowledged, and is neither heard nor named as missing by w1.1"],
        ),
        ([(1, 1), (1, 2), (1, 3), (1, 3)], ["1.3 was heard twice", "a message comes again, or late"]),
        ([(1, 1), (1, 2), (1, 3), (1, 4)], ["1.4 was published by nobody"]),
        ([((1, 0), (1, 2)), (1, 3), ((1, 2), (1, 3))], ["a gap begins elsewhere than at (1, 3)"]),
        ([(1, 1), (1, 2), (1, 3), ((1, 3), (1, 3))], ["a gap names nothing, or leads back"]),
        (
            [(1, 1), (1, 2), (1, 3), ((1, 3), (2, 0)), ((2, 0), (1, 3))],
            ["an epoch that was left comes back to a subscriber"],
        ),
    ],
)
def test_a_channel_s_messages_are_heard_once_in_order_or_named(made: Made, heard: list[Any], wrong: list[str]) -> None:
    made.publish((1, 1), (1, 2), (1, 3))
    made.listen(*heard)
    assert made.wrong() == wrong


def test_a_gap_of_an_epoch_names_what_had_no_other_place(made: Made) -> None:
    made.publish((2, 1), (3, 1))
    made.listen(((1, 0), (3, 1)), (3, 2))
    assert made.wrong() == ["3.2 was published by nobody"]


def test_a_subscriber_that_was_killed_owes_only_what_lies_before_its_last_message(made: Made) -> None:
    made.history.alive.discard("w1.1")
    made.publish((1, 1), (1, 2), (1, 3))
    made.listen(((1, 0), (1, 1)), (1, 2))
    assert made.wrong() == []


def test_where_all_is_kept_there_is_no_gap_and_no_new_epoch_but_by_a_loss(made: Made) -> None:
    made.publish((1, 1), (2, 1), key="kept")
    made.listen((1, 1), ((1, 1), (2, 0)), (2, 1), key="kept")
    assert made.wrong() == ["a new epoch, and nothing was taken away", "a gap where all is kept"]
    made.history.losses.append(Loss(0.15, 1000))
    assert made.wrong() == []


def test_a_place_has_one_message(made: Made) -> None:
    made.call("publish", "a", (1, 1))
    made.call("publish", "b", (1, 1), client="w2.1/a")
    assert made.wrong() == ["(1, 1) stands for two messages"]


def test_a_publisher_s_places_rise_and_no_epoch_comes_back(made: Made) -> None:
    made.publish((1, 1), (1, 3), (1, 2))
    assert made.wrong() == ["a later message has no later offset"]
    made.publish((2, 1), (1, 4))
    assert made.wrong()[1:] == ["an epoch that was left comes back"]


def test_a_message_that_is_published_again_keeps_its_place(made: Made) -> None:
    made.publish((1, 1))
    made.call("publish", "1.1", (1, 1))
    assert made.wrong() == []
    made.call("publish", "1.1", (1, 2))
    assert made.wrong() == ["1.1 was published twice"]


def test_a_message_that_is_published_again_may_have_the_place_of_an_attempt_without_an_answer(made: Made) -> None:
    made.call("publish", "a", outcome=UNKNOWN)
    made.publish((1, 2))
    made.call("publish", "a", (1, 1))
    assert made.wrong() == []


def test_a_message_that_another_worker_publishes_before_it_is_answered_may_have_that_one_s_place(made: Made) -> None:
    made.call("publish", "a", (1, 2), begun=1, ended=5)
    made.call("publish", "b", (1, 1), begun=2, ended=5)
    assert made.wrong() == ["a later message has no later offset"]
    made.call("publish", "b", (1, 1), client="w1.1/b", begun=3, ended=5)
    assert made.wrong() == ["a later message has no later offset"]  # a worker's calls are carried out in order
    made.call("publish", "b", (1, 1), client="w2.1/a", begun=4, ended=5)
    assert made.wrong() == []


def test_a_publisher_is_told_the_place_at_which_the_message_is_heard(made: Made) -> None:
    made.call("publish", "1.1", (1, 5))
    made.call("publish", "1.2", outcome=REFUSED)
    made.listen((1, 1), (1, 2))
    assert made.wrong()[:2] == ["1.1 was told another place", "1.2 was refused, and heard"]


def test_a_message_that_is_published_again_has_another_place_once_all_was_taken_away(made: Made) -> None:
    made.tell(Subscribed, (1, 0))
    made.call("publish", "a", (1, 1))
    made.tell(Message, (1, 1), "a")
    lost = made.now
    made.lose()
    made.call("publish", "a", (2, 1), client="w2.1/a")
    made.tell(Message, (2, 1), "a")
    assert made.wrong() == []
    made.history.losses[0] = Loss(lost + 1, lost + 1)
    assert "a was told another place" in made.wrong()


# Sessions and values with a time


def test_a_session_that_is_left_ends_once_after_its_time(made: Made) -> None:
    made.history.session_timeout = 3
    made.call("hold")
    made.call("put", 1)
    made.call("get", answer=1)
    made.call("leave")
    made.now = 4
    made.call("get", answer=0)
    assert made.wrong() == ["w1.1 was never told of its end"]
    made.tell(Ended)
    made.tell(Ended, worker="w2.1")
    assert made.wrong() == []
    made.tell(Ended)
    assert made.wrong() == ["w1.1 was told twice of its end"]


def test_a_session_that_is_held_or_was_touched_does_not_end(made: Made) -> None:
    made.call("hold")
    made.call("put", 1)
    made.tell(Ended)
    made.call("get", answer=0)
    assert made.wrong() == ["it ended before 1200 s", "its data went back to 0"]


def test_a_session_that_may_have_ended_and_begun_anew_is_not_judged(made: Made) -> None:
    made.history.session_timeout = 3
    made.call("hold")
    made.call("put", 1, begun=5, ended=6)
    made.tell(Ended)
    made.tell(Ended)
    assert made.wrong() == []


def test_a_short_session_that_is_held_may_end_while_nobody_serves_it_and_begin_anew(made: Made) -> None:
    made.history.session_timeout = 3
    made.call("hold")
    made.tell(Ended)
    made.tell(Ended)
    assert made.wrong() == []


def test_a_value_is_there_until_its_time(made: Made) -> None:
    made.call("set_expiring", 5.0)
    made.call("get_expiring", answer=False, begun=5.1)
    assert made.wrong() == []
    made.call("get_expiring", answer=False, begun=1, ended=2)
    assert made.wrong() == ["it is gone before 5 s"]
