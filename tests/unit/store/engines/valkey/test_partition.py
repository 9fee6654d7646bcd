"""A partition in Valkey, with a server that the test plays: what its answers mean, and what becomes of batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command, Outcome
from socketcluster_store.engines.sorted_map import SortedMap
from socketcluster_store.engines.valkey import partition as module
from socketcluster_store.engines.valkey import scripts
from socketcluster_store.engines.valkey.losses import Had, Loss, Losses
from socketcluster_store.engines.valkey.partition import ValkeyPartition
from socketcluster_store.errors import EngineError, FencedError, UnreachableError
from socketcluster_store.executor import Executor, ExecutorOptions

NUMBER, EPOCH = 7, 5
DONE = [b"DONE"]
NAMES = {scripts.APPLY: "apply", scripts.LOOK: "look", scripts.CONFIRM: "confirm"}

Answer = list[bytes] | Exception


class PlayedServer:
    """Answers the calls of a partition, in order: with what it is told to, else that all is well."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.answers: list[Answer] = []
        self.open = asyncio.Event()
        self.open.set()
        self.breaks = 0
        self.closed: list[ValkeyPartition] = []
        self.given_up: list[tuple[int, Had]] = []
        self.losses = Losses()
        self.partition = ValkeyPartition(
            NUMBER,
            EPOCH,
            b"life",
            SortedMap(),
            Executor(NUMBER, ExecutorOptions(1000)),
            self._call,
            self.closed.append,
            lambda: self.breaks,
            0,
            self.losses,
            lambda number, had: self.given_up.append((number, had)),
        )

    async def _call(self, script: scripts.Script, *args: Any) -> Any:
        self.calls.append((NAMES[script], args))
        await self.open.wait()
        answer = self.answers.pop(0) if self.answers else DONE
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def called(self) -> list[str]:
        """Return which scripts were called since the last time."""
        calls, self.calls = self.calls, []
        return [name for name, _ in calls]


@pytest.fixture
async def server() -> PlayedServer:
    return PlayedServer()


def put(key: str, value: object = 1) -> list[Command]:
    return [Command(store_pb2.VERB_SET, b"s", [key], msgspec.msgpack.encode(value))]


def get(key: str) -> list[Command]:
    return [Command(store_pb2.VERB_GET, b"s", [key])]


NIL, ONE = msgspec.msgpack.encode(None), msgspec.msgpack.encode(1)
UNKNOWN = [*put("half"), Command(-999, b"s")]
"""A batch that fails between two commands."""


async def together(partition: ValkeyPartition, *batches: Sequence[Command]) -> list[list[Outcome] | BaseException]:
    return await asyncio.gather(*map(partition.apply, batches), return_exceptions=True)


async def test_batches_that_come_together_are_one_call(server: PlayedServer) -> None:
    assert await together(server.partition, put("a"), get("a"), put("b")) == [[b""], [ONE], [b""]]
    ((name, args),) = server.calls
    assert (name, args[:2]) == ("apply", (1, 4))
    assert server.called
    assert await server.partition.apply(get("b")) == [ONE]
    assert server.calls == [("look", (1, 0))]


async def test_a_batch_that_fails_fails_alone(server: PlayedServer) -> None:
    first, failed, third = await together(server.partition, put("a"), UNKNOWN, put("b"))
    assert (first, third) == ([b""], [b""])
    assert isinstance(failed, KeyError)
    ((_, args),) = server.calls
    assert b"half" not in b"".join(arg for arg in args if isinstance(arg, bytes))
    assert await together(server.partition, get("half"), get("a"), get("b")) == [[NIL], [ONE], [ONE]]


async def test_what_could_not_be_written_is_undone_and_the_next_call_is_as_if_it_had_not_been(
    server: PlayedServer,
) -> None:
    await server.partition.apply([*put("a"), Command(store_pb2.VERB_EXPIRE, b"s", ["a"], ONE)])
    before = server.partition.next_expiry()
    server.answers = [EngineError("no memory")]
    failed = await together(
        server.partition, put("a", 2), put("b"), [Command(store_pb2.VERB_UNEXPIRE, b"s", ["a"])], get("a")
    )
    assert [str(each) for each in failed] == ["no memory"] * 4
    assert await together(server.partition, get("a"), get("b")) == [[ONE], [NIL]]
    assert server.partition.next_expiry() == before
    assert not server.partition.fenced
    await server.partition.apply(put("c"))
    assert server.calls[-1][1][0] == 2  # the number that the one had that failed


async def test_batches_that_come_meanwhile_are_the_next_call(server: PlayedServer) -> None:
    server.open.clear()
    first = asyncio.ensure_future(server.partition.apply(put("a")))
    await until(lambda: bool(server.calls))
    others = asyncio.ensure_future(together(server.partition, get("a"), put("b")))
    await asyncio.sleep(0)
    assert not first.done()
    server.open.set()
    assert await first == [b""]
    assert await others == [[ONE], [b""]]
    assert server.called == ["apply", "apply"]


async def test_a_caller_that_has_gone_takes_nothing_with_it(server: PlayedServer) -> None:
    server.open.clear()
    gone = asyncio.ensure_future(server.partition.apply(put("a")))
    stays = asyncio.ensure_future(server.partition.apply(put("b")))
    await until(lambda: bool(server.calls))
    gone.cancel()
    server.open.set()
    assert await stays == [b""]
    assert await server.partition.apply(get("a")) == [ONE]


async def test_no_more_wait_than_there_is_room_for(server: PlayedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    monkeypatch.setattr(module, "BATCHES_AT_ONCE", 1)
    done = await together(server.partition, put("a"), put("b"), put("c"))
    assert done[:2] == [[b""], [b""]]
    assert isinstance(done[2], EngineError)
    assert "2 batches wait for Valkey" in str(done[2])
    assert server.called == ["apply", "apply"]
    assert await server.partition.apply(get("c")) == [NIL]


# Losses


@pytest.mark.parametrize(
    ("answer", "why", "told", "lost"),
    [
        ([b"FENCED", b"two-2", b"6"], "it was taken over by two-2", False, (0, 0)),
        ([b"FENCED", b"", b"5"], "it was taken over by nobody", False, (0, 0)),
        ([b"FENCED", b"", b"4"], "Valkey lost it", True, (2, 0)),
        ([b"FENCED", b"", b""], "Valkey lost all of it", True, (2, 2)),
        ([b"BEHIND", b"1"], "Valkey lost batches: it has 1 of 2", True, (1, 0)),
    ],
)
async def test_what_a_server_says_of_another_owner_or_of_less_ends_the_partition(
    server: PlayedServer,
    monkeypatch: pytest.MonkeyPatch,
    answer: list[bytes],
    why: str,
    lost: tuple[int, int],
    *,
    told: bool,
) -> None:
    found: list[Loss] = []
    monkeypatch.setattr(server.losses, "add", found.append)
    for key in "ab":
        await server.partition.apply(put(key))
    server.answers = [answer]
    failed = await together(server.partition, put("a", 2), get("a"))
    for error in (*failed, *await together(server.partition, get("a"))):
        assert isinstance(error, FencedError)
        assert why in str(error)
    assert (server.partition.fenced, server.partition.told) == (True, told)
    assert (sum(loss.writes for loss in found), sum(loss.keys for loss in found)) == lost
    assert not server.given_up


async def test_a_server_that_does_not_answer_ends_it_and_everything_that_waits(server: PlayedServer) -> None:
    await server.partition.apply(put("a"))
    server.open.clear()
    server.answers = [UnreachableError("no answer")]
    first = asyncio.ensure_future(server.partition.apply(put("b")))
    await until(lambda: server.calls[-1][1][0] == 2)
    second = asyncio.ensure_future(server.partition.apply(put("c")))
    await asyncio.sleep(0)
    server.open.set()
    for waiting in (first, second):
        with pytest.raises(FencedError, match="no answer"):
            await waiting
    assert server.partition.told
    ((number, had),) = server.given_up
    assert (number, had.epoch, had.batch, had.keys) == (NUMBER, EPOCH, 1, 1)
    assert server.called == ["apply", "apply"]  # nothing was sent after it


# Connections


async def test_a_connection_that_was_made_anew_has_it_noted_that_the_server_has_everything(
    server: PlayedServer,
) -> None:
    assert not server.partition.unsure
    server.breaks += 1
    assert server.partition.unsure
    server.answers = [DONE, EngineError("not yet")]
    await server.partition.apply(put("a"))
    await until(lambda: server.called == [] and server.partition._sender is None)
    assert server.partition.unsure  # the next call tries again
    await server.partition.apply(get("a"))
    await until(lambda: not server.partition.unsure)


@pytest.mark.parametrize("answer", [EngineError("no memory"), [b"FENCED", b"two-2", b"6"]])
async def test_a_check_finds_out_and_raises_nothing(server: PlayedServer, answer: Answer) -> None:
    await server.partition.check()
    assert server.called == ["look"]
    server.answers = [answer]
    await server.partition.check()
    assert server.partition.fenced == isinstance(answer, list)


# Its end


async def test_closed_it_is_released_with_all_that_was_applied(server: PlayedServer) -> None:
    server.open.clear()
    applying = asyncio.ensure_future(together(server.partition, put("a"), put("b")))
    await until(lambda: bool(server.calls))
    closing = asyncio.ensure_future(server.partition.close())
    await asyncio.sleep(0)
    server.open.set()
    await closing
    assert await applying == [[b""], [b""]]
    assert [(name, args) for name, args in server.calls if name == "confirm"] == [("confirm", (1, 1))]
    assert server.closed == [server.partition]
    with pytest.raises(FencedError, match="partition 7 is closed"):
        await server.partition.apply(get("a"))


@pytest.mark.parametrize("error", [EngineError("no memory"), UnreachableError("no answer")])
async def test_one_that_cannot_be_released_is_closed_all_the_same(server: PlayedServer, error: EngineError) -> None:
    server.answers = [error]
    await server.partition.close()
    assert server.closed == [server.partition]
    assert server.partition.fenced


async def test_one_that_is_lost_is_not_released(server: PlayedServer) -> None:
    server.answers = [[b"FENCED", b"two-2", b"6"]]
    await server.partition.check()
    assert server.called == ["look"]
    await server.partition.close()
    assert (server.called, server.closed) == ([], [server.partition])
