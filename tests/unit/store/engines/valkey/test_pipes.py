"""Connections to Valkey whose answers are long on their way: calls follow each other, in order, and fail together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError
from support.worker.running import until

from socketcluster_store.engines.valkey.pipes import Call, Lane
from socketcluster_store.engines.valkey.scripts import Script
from socketcluster_store.engines.valkey.troubles import FewReplicasError

SCRIPT = Script("return ARGV[1]")


class Slow:
    """A server that reads everything, and answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read commands."""
        self.writers.append(writer)
        while head := await reader.readline():
            words = []
            for _ in range(int(head[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            if words[0] == b"CLIENT":
                writer.write(b"+OK\r\n")
            else:
                self.asked.append(words[-1])
        writer.close()

    def answer(self, *replies: bytes) -> None:
        """Answer on the first connection."""
        self.writers[0].write(b"".join(replies))


@pytest.fixture
async def slow() -> AsyncIterator[tuple[Slow, Lane]]:
    """A lane of one connection to it."""
    server = Slow()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    pool = ConnectionPool(host="127.0.0.1", port=listening.sockets[0].getsockname()[1], protocol=2)
    lane = Lane(pool, 1, 30)
    try:
        yield server, lane
    finally:
        for writer in server.writers:
            writer.close()
        await lane.close()
        await pool.disconnect()
        listening.close()


def send(lane: Lane, word: str, replicas: int = 0) -> asyncio.Future[Any]:
    return lane.send(Call(b"key", SCRIPT, (word,), replicas))


async def test_calls_do_not_wait_for_the_answers_to_those_before(slow: tuple[Slow, Lane]) -> None:
    server, lane = slow
    calls = []
    for number in range(5):
        calls.append(send(lane, str(number)))
        await until(lambda: len(server.asked) == len(calls))  # with no answer yet
    assert not any(call.done() for call in calls)
    assert server.asked == [b"0", b"1", b"2", b"3", b"4"]
    server.answer(*(b"$1\r\n%d\r\n" % number for number in range(5)))
    assert await asyncio.gather(*calls) == [b"0", b"1", b"2", b"3", b"4"]
    assert len(server.writers) == 1


async def test_calls_of_one_turn_travel_together(slow: tuple[Slow, Lane]) -> None:
    server, lane = slow
    calls = [send(lane, str(number)) for number in range(3)]
    await until(lambda: len(server.asked) == 3)
    server.answer(b"$1\r\na\r\n", b"-ERR no\r\n", b"$1\r\nc\r\n")
    replies = await asyncio.gather(*calls, return_exceptions=True)
    assert [replies[0], str(replies[1]), replies[2]] == [b"a", "no", b"c"]


async def test_all_that_is_under_way_fails_with_its_connection(slow: tuple[Slow, Lane]) -> None:
    server, lane = slow
    calls = []
    for number in range(3):
        calls.append(send(lane, str(number)))
        await until(lambda: len(server.asked) == len(calls))
    server.answer(b"$1\r\n0\r\n")
    assert await calls[0] == b"0"
    server.writers.pop().close()
    for call in calls[1:]:
        with pytest.raises((OSError, RedisError)):
            await call
    again = send(lane, "again")
    await until(lambda: server.asked[-1] == b"again")
    server.answer(b"$5\r\nagain\r\n")
    assert await again == b"again"


async def test_a_write_that_too_few_replicas_have_fails_alone(slow: tuple[Slow, Lane]) -> None:
    server, lane = slow
    few, enough, none = send(lane, "few", 2), send(lane, "enough", 2), send(lane, "none")
    await until(lambda: server.asked[-1:] == [b"none"])
    server.answer(b"$3\r\nfew\r\n", b":1\r\n", b"$6\r\nenough\r\n", b":2\r\n", b"$4\r\nnone\r\n")
    with pytest.raises(FewReplicasError, match="1 replicas of 2"):
        await few
    assert await enough == b"enough"
    assert await none == b"none"
