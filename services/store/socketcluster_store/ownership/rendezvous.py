"""Which store is to own which partition: rendezvous hashing over the live stores, with an equal share for each."""

from __future__ import annotations

from collections.abc import Collection
from hashlib import blake2b

from socketcluster_store_client.partitioning import PARTITION_COUNT


def share_of(store_id: str, stores: Collection[str]) -> frozenset[int]:
    """Return the partitions that ``store_id`` is to own while ``stores`` live; all of them come to the same result.

    Every pair of a store and a partition has a weight; the heaviest pairs are chosen as long as the partition has no
    store yet and the store no full share. So few partitions move when a store comes or goes, and a store that is
    started again under its name gets its former partitions back.
    """
    pairs = sorted(
        ((_weight(_name(store), number), store, number) for store in stores for number in range(PARTITION_COUNT)),
        reverse=True,
    )
    least, larger = divmod(PARTITION_COUNT, len(stores))
    taken: dict[int, str] = {}
    counts = dict.fromkeys(stores, 0)
    for _, store, number in pairs:
        if number in taken or counts[store] > least or (counts[store] == least and not larger):
            continue
        larger -= counts[store] == least  # so many have one more than the others
        taken[number] = store
        counts[store] += 1
    return frozenset(number for number, store in taken.items() if store == store_id)


def _name(store_id: str) -> str:
    """Return the name in the id of a store, which it keeps when it is started again."""
    return store_id.rpartition("-")[0]


def _weight(name: str, number: int) -> bytes:
    return blake2b(f"{number} {name}".encode(), digest_size=8).digest()
