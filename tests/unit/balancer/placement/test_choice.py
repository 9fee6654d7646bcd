"""The choice of a worker, by itself."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from socketcluster_balancer.placement.choice import choose, rendezvous


@dataclass
class Candidate:
    worker_id: str
    load: int = 0


def never(_count: int) -> int:
    raise AssertionError("nothing is left to chance here")


WORKERS = [Candidate(letter * 8) for letter in "abcd"]


def test_a_sid_names_its_worker_whatever_the_cookie_says() -> None:
    assert choose(WORKERS, "bbbbbbbb-rest", "cccccccc-rest.sig", never) is WORKERS[1]


def test_without_the_sids_worker_the_cookie_decides() -> None:
    assert choose(WORKERS, "xxxxxxxx-rest", "cccccccc-rest.sig", never) is WORKERS[2]
    assert choose(WORKERS, None, "cccccccc-rest.sig", never) is WORKERS[2]


def test_a_cookie_whose_worker_is_gone_leads_to_one_and_the_same() -> None:
    chosen = choose(WORKERS, None, "zzzzzzzz-1.sig", never)
    assert chosen is choose(list(reversed(WORKERS)), None, "zzzzzzzz-1.other signature", never)
    others = {choose(WORKERS, None, f"zzzzzzzz-{number}.sig", never).worker_id for number in range(100)}
    assert len(others) == len(WORKERS)


def test_without_a_name_the_less_loaded_of_two_is_chosen() -> None:
    candidates = [Candidate("aaaaaaaa", 5), Candidate("bbbbbbbb", 3), Candidate("cccccccc", 9)]
    draws = iter([0, 0, 2, 1])  # aaaaaaaa and bbbbbbbb; cccccccc and bbbbbbbb
    assert choose(candidates, None, None, lambda count: next(draws)) is candidates[1]
    assert choose(candidates, "", "", lambda count: next(draws)) is candidates[1]


def test_the_two_are_never_the_same_one() -> None:
    loaded, free = Candidate("aaaaaaaa", 1), Candidate("bbbbbbbb", 0)
    assert all(choose([loaded, free], None, None, random.Random(seed).randrange) is free for seed in range(50))


def test_clients_without_a_name_spread_evenly() -> None:
    draw = random.Random(1).randrange
    candidates = [Candidate(letter * 8) for letter in "abcdefgh"]
    for _ in range(8000):
        choose(candidates, None, None, draw).load += 1
    assert max(candidate.load for candidate in candidates) - min(candidate.load for candidate in candidates) <= 10


@given(st.text(max_size=40))
def test_when_a_worker_goes_only_its_own_keys_move(key: str) -> None:
    before = rendezvous(WORKERS, key)
    for gone in WORKERS:
        if gone is not before:
            assert rendezvous([worker for worker in WORKERS if worker is not gone], key) is before


def test_keys_spread_evenly() -> None:
    counts = Counter(rendezvous(WORKERS, f"key {number}").worker_id for number in range(4000))
    assert min(counts.values()) > 850


@given(st.text(max_size=30), st.text(max_size=30), st.integers(1, 4))
def test_whatever_a_client_sends_there_is_a_choice(sid: str, cookie: str, count: int) -> None:
    assert choose(WORKERS[:count], sid, cookie, lambda limit: limit - 1) in WORKERS
