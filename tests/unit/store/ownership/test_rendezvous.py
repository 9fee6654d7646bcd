"""Which partitions are a store's share."""

from __future__ import annotations

import pytest

from socketcluster_store.ownership.rendezvous import share_of
from socketcluster_store_client.partitioning import PARTITION_COUNT


def shares(stores: list[str]) -> dict[str, frozenset[int]]:
    return {store: share_of(store, stores) for store in stores}


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 63, 64, 70])
def test_shares_are_even_and_leave_nothing_out(count: int) -> None:
    made = shares([f"store-{number}-{number:08x}" for number in range(count)])
    assert sorted(number for share in made.values() for number in share) == list(range(PARTITION_COUNT))
    assert max(map(len, made.values())) - min(map(len, made.values())) <= 1


def test_a_store_that_starts_again_gets_its_partitions_back() -> None:
    before = shares(["one-aaaaaaaa", "two-aaaaaaaa", "three-aaaaaaaa"])
    after = shares(["three-aaaaaaaa", "one-bbbbbbbb", "two-aaaaaaaa"])
    assert [after[store] for store in ("one-bbbbbbbb", "two-aaaaaaaa", "three-aaaaaaaa")] == list(before.values())


def test_few_partitions_move_when_a_store_comes() -> None:
    stores = [f"store-{number}-0" for number in range(5)]
    for count in range(1, 5):
        before, after = shares(stores[:count]), shares(stores[: count + 1])
        moved = sum(len(before[store] - after[store]) for store in stores[:count])
        assert PARTITION_COUNT // (count + 1) <= moved <= 2 * PARTITION_COUNT // (count + 1)


def test_stores_of_one_name_share_too() -> None:
    made = shares(["host-00000001", "host-00000002"])
    assert [len(share) for share in made.values()] == [32, 32]
