"""How often a store looks at what says that a partition is still its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import cast

from support.worker.running import until

from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.ownership.membership import Membership
from socketcluster_store.ownership.partitions import Partitions
from socketcluster_store.partition.partition import Partition
from socketcluster_store_client.partitioning import PARTITION_COUNT


class Nobody(Membership):
    """No other store, and nothing for this one."""

    interval = 0.001

    async def join(self) -> None: ...
    async def leave(self) -> None: ...
    async def look(self) -> None: ...


class Looked:
    """A partition of which it is counted how often something is asked."""

    distrusted = ""
    told = False

    def __init__(self, number: int, asked: Counter[tuple[str, int]]) -> None:
        self._number = number
        self._asked = asked
        self.lost = self.known = False

    @property
    def taken(self) -> bool:
        self._asked["memory", self._number] += 1
        return self.known

    @property
    def fenced(self) -> bool:
        self._asked["file", self._number] += 1
        return self.lost or self.known

    def lose(self) -> None: ...
    async def close(self) -> None: ...


async def test_a_store_looks_at_a_few_files_with_each_sign_of_life(tmp_path: Path) -> None:
    asked: Counter[tuple[str, int]] = Counter()
    looked = {number: Looked(number, asked) for number in range(PARTITION_COUNT)}
    partitions = Partitions(
        MemoryEngine(tmp_path, ExecutorOptions(1 << 20)),
        lambda _opened: cast(Partition, None),
        lambda: None,
        membership=lambda _changed: Nobody(),
        store_id="store-1",
        hang_timeout=3.0,
    )
    partitions.owned.update({number: cast(Partition, each) for number, each in looked.items()})
    beating = asyncio.create_task(partitions._beat())
    await until(lambda: min(asked["file", number] for number in looked) >= 3)
    fewest, most = min(asked["file", number] for number in looked), max(asked["file", number] for number in looked)
    assert most <= fewest + 1  # in turns
    looked[5].lost = True
    looked[6].known = True
    await until(lambda: beating.done() or not {5, 6} & partitions.owned.keys())
    assert not beating.done()
    assert len(partitions.owned) == PARTITION_COUNT - 2
    beating.cancel()
    await asyncio.wait({beating})
