"""Which workers have members of which rooms, against sets of names."""

from __future__ import annotations

import random

import pytest

from socketcluster_worker.mesh import interest
from socketcluster_worker.mesh.interest import OthersRooms, OwnRooms, bits, bucket_of


def test_the_first_and_the_last_room_of_a_bucket_are_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interest, "BUCKETS", 1)
    own = OwnRooms()
    assert own.add("/", "a") == 0
    assert own.add("/", "b") is None
    assert own.remove("/", "a") is None
    assert own.remove("/", "b") == 0
    assert own.all() == {"/": []}


def test_a_namespace_is_news_once() -> None:
    own = OwnRooms()
    assert own.listen("/chat")
    assert not own.listen("/chat")
    assert own.all() == {"/chat": []}


def test_a_room_may_have_any_name() -> None:
    assert 0 <= bucket_of("\ud800 half a pair") < interest.BUCKETS


def test_everybody_of_a_namespace_is_on_the_workers_that_have_clients_there() -> None:
    others = OthersRooms()
    others.know(1, {"/": []})
    others.know(2, {"/chat": [], "/": []})
    assert others.find("/", None) == 3
    assert others.find("/chat", None) == 2
    assert others.find("/none", None) == 0


def test_a_worker_of_which_nothing_is_known_gets_everything() -> None:
    others = OthersRooms()
    others.know(1, {"/": [bucket_of("a")]})
    others.forget(1)
    others.know(2, {"/": [bucket_of("b")]})
    assert others.find("/", ["c"]) == 1
    assert others.find("/none", None) == 1
    others.know(1, {"/": []})
    assert others.find("/", ["a"]) == 0
    others.forget(2)
    others.drop(2)
    assert others.find("/", ["b"]) == 0


@pytest.mark.parametrize("seed", range(30))
def test_no_worker_is_left_out_that_has_a_room_and_none_is_found_that_is_gone(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interest, "BUCKETS", 5)
    chance = random.Random(seed)
    workers = {1 << number: OwnRooms() for number in range(3)}
    rooms: dict[int, set[tuple[str, str]]] = {bit: set() for bit in workers}
    others = OthersRooms()
    known = set(workers)
    for bit in workers:
        others.know(bit, {})
    for _ in range(400):
        bit = chance.choice(list(workers))
        namespace, room = chance.choice(("/", "/chat")), chance.choice("abcdefgh")
        own = workers[bit]
        step = chance.random()
        if step < 0.03:
            others.forget(bit)
            known.discard(bit)
        elif step < 0.08:
            others.know(bit, own.all())
            known.add(bit)
        elif (namespace, room) not in rooms[bit]:
            rooms[bit].add((namespace, room))
            bucket = own.add(namespace, room)
            if bucket is not None and bit in known:
                others.listen(bit, namespace)
                others.add(bit, namespace, bucket)
        else:
            rooms[bit].discard((namespace, room))
            bucket = own.remove(namespace, room)
            if bucket is not None and bit in known:
                others.remove(bit, namespace, bucket)
        for name in ("/", "/chat"):
            for asked in ("a", "h"):
                found = set(bits(others.find(name, [asked])))
                same = {letter for letter in "abcdefgh" if bucket_of(letter) == bucket_of(asked)}
                wanted = {each for each in workers if each not in known or {(name, one) for one in same} & rooms[each]}
                assert found == wanted
