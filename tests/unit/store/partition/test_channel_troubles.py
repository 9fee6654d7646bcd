"""What is said of channels whose upkeep the engine refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from structlog.testing import capture_logs
from support.store.channels import Bench, make_engine

from socketcluster_store.errors import EngineError
from socketcluster_store.partition.channel_troubles import ChannelTroubles
from socketcluster_store.partition.channels import Channels


async def test_one_line_tells_of_all_partitions_and_one_that_it_is_over_in_each() -> None:
    trouble = ChannelTroubles().expiring
    with capture_logs() as logs:
        for _ in range(3):
            for number in range(64):
                trouble.add(number, EngineError("the disk is full"))
        for number in range(64):
            assert len(logs) == 1
            trouble.end(number)
        trouble.end(0)
    began, ended = logs
    assert (began["event"], began["log_level"]) == ("messages that are too old cannot be removed", "error")
    assert (ended["event"], ended["times"]) == ("messages that are too old are removed again", 192)


async def test_what_the_log_was_told_of_otherwise_is_no_line() -> None:
    trouble = ChannelTroubles().reserving
    error = EngineError("Valkey is away")
    error.told = True
    with capture_logs() as logs:
        trouble.add(1, error)
        trouble.end(1)
    assert not logs


async def test_messages_that_cannot_be_removed_for_long_are_one_condition(tmp_path: Path) -> None:
    bench = Bench(await make_engine("memory", tmp_path).open(7))
    await bench.channels.load()

    async def fail(_batch: Any) -> Any:
        raise EngineError("the disk is full")

    works, bench.apply = bench.apply, fail
    with capture_logs() as logs:
        for _ in range(10):
            await bench.channels._expire()
        assert [line["event"] for line in logs] == ["messages that are too old cannot be removed"]
        bench.apply = works
        await bench.channels._expire()
    assert [line["event"] for line in logs[1:]] == ["messages that are too old are removed again"]
    await bench.channels.close()
    await bench.engine.close()


async def test_a_partition_that_is_given_up_fails_no_longer(tmp_path: Path) -> None:
    engine = await make_engine("lmdb", tmp_path).open(7)
    bench = Bench(engine)
    troubles = ChannelTroubles()
    channels: Channels[Any] = Channels(bench.rules, 300, bench, lambda: bench.now, troubles)
    await channels.load()
    with capture_logs() as logs:
        troubles.expiring.add(channels, EngineError("the disk is full"))
        await channels.close()
    assert [line["event"] for line in logs] == [
        "messages that are too old cannot be removed",
        "messages that are too old are removed again",
    ]
    await engine.close()
