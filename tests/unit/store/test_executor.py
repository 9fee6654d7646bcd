"""What an executor does around the commands of a batch, on each engine."""

from __future__ import annotations

from support.store.data import Data, watch

from socketcluster_store.commands import END_SESSION, Command


async def test_nobody_is_told_later_of_what_a_batch_did_that_told_nobody(data: Data) -> None:
    await watch(data, ("a",))
    await data.partition.apply([Command(END_SESSION, b"s")])  # the last watch ends with it
    await watch(data, ("a",))  # is told of its beginning alone
