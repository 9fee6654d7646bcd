"""What the clients of a worker do, each until the worker stops."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from history.record import Call, Outcome
from history.sessions import LONG
from history.workers import CHANNELS, ClientLoop, Worker, encode, packed, size_of, token_of
from socketcluster_proto.v1 import store_pb2 as pb

SMALL_LISTS, LARGE_LISTS = 8, 4
SMALL_LIST, LARGE_LIST, LARGE_ITEM = 40_000, 900_000, 4_000
"""Bytes of a list after which all go on with another one, and of an item that belongs into a large one."""
COUNTERS = 4
REGISTERS = 8
BURST_REGISTERS = 60
BURST_SIZES = (100_000, 400_000)
RUSH_SIZES = (1_000, 60_000)
PAUSE = 0.03
"""Seconds between two calls of a client, on average."""
SHORT_EXPIRY, LONG_EXPIRY = 4.0, 500.0


@dataclass
class Keys:
    """What there is by now, known to the clients of both workers."""

    session_timeout: float
    lists: list[str] = field(default_factory=lambda: [f"list{place}.0" for place in range(SMALL_LISTS + LARGE_LISTS)])
    room: dict[str, int] = field(default_factory=dict)
    registers: list[str] = field(default_factory=list)
    published: dict[str, list[str]] = field(default_factory=lambda: {channel: [] for channel in CHANNELS})
    expiring: list[str] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)  # that are held, and by whom

    def list_for(self, size: int, chance: random.Random) -> str:
        """Return a list that has room for an item."""
        large = size > LARGE_ITEM
        place = SMALL_LISTS + chance.randrange(LARGE_LISTS) if large else chance.randrange(SMALL_LISTS)
        name = self.lists[place]
        room = self.room.get(name, LARGE_LIST if large else SMALL_LIST) - size
        if room < 0:
            head, generation = name.split(".")
            name = self.lists[place] = f"{head}.{int(generation) + 1}"
            room = (LARGE_LIST if large else SMALL_LIST) - size
        self.room[name] = room
        return name


class Calls:
    """Calls of a client that are under way; the order of their begins is that of ``begin``."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Call]] = set()

    async def begin(self, call: Any) -> None:
        """Make a call without waiting for its answer."""
        task: asyncio.Task[Call] = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.sleep(0)

    async def at_most(self, count: int) -> None:
        """Return when no more than that are under way."""
        while len(self._tasks) > count:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)


def clients(keys: Keys) -> dict[str, ClientLoop]:
    """Return the clients of a worker."""
    kinds: dict[str, tuple[int, Callable[[Keys, Worker, str, random.Random], Any]]] = {
        "adder": (2, add),
        "counter": (2, count),
        "writer": (1, write),
        "reader": (2, read),
        "publisher": (2, publish),
        "visitor": (1, visit),
        "expirer": (1, expire),
    }

    def bound(loop: Callable[[Keys, Worker, str, random.Random], Any]) -> ClientLoop:
        return lambda worker, client, chance: loop(keys, worker, client, chance)

    return {f"{kind}{number}": bound(loop) for kind, (many, loop) in kinds.items() for number in range(many)}


async def pause(chance: random.Random) -> None:
    """Leave the machine to others."""
    await asyncio.sleep(chance.expovariate(1 / PAUSE))


async def add(keys: Keys, worker: Worker, client: str, chance: random.Random) -> None:
    """Add to lists that others add to as well, often several at a time."""
    calls = Calls()
    for number in itertools.count():
        if worker.stopping.is_set():
            break
        size = size_of(chance, worker.weight)
        token = f"{worker.name}/{client}/{number}"
        name = keys.list_for(size, chance)
        value = packed(token, size)
        await calls.begin(worker.call(client, "add", name, token, pb.VERB_ADD, value=value, read=int))
        await calls.at_most(chance.choice((0, 3, 30)))
        await pause(chance)
    await calls.at_most(0)


async def count(_keys: Keys, worker: Worker, client: str, chance: random.Random) -> None:
    """Raise counters that others raise as well: each number is made of the one before."""
    while not worker.stopping.is_set():
        key = f"counter{chance.randrange(COUNTERS)}"
        call = await worker.call(client, "count", key, None, pb.VERB_GET, read=number_of)
        if call.done:
            seen = encode(call.answer or None)
            value = encode([blake2b(seen, digest_size=16).digest(), call.answer + 1])
            await worker.call(
                client, "update", key, call.answer, pb.VERB_UPDATE, value=value, read=lambda done: done[0]
            )
        await pause(chance)


async def write(keys: Keys, worker: Worker, client: str, chance: random.Random) -> None:
    """Write registers that nobody else writes, without waiting; at a burst very many large values."""
    calls = Calls()
    small = [f"register{number}.{worker.name}" for number in range(REGISTERS)]
    large = [f"burst{number}.{worker.name}" for number in range(BURST_REGISTERS)]
    numbers = dict.fromkeys([*small, *large], 0)
    keys.registers += numbers

    async def put(key: str, size: int) -> None:
        numbers[key] += 1
        value = packed(numbers[key], size)
        await calls.begin(worker.call(client, "write", key, numbers[key], pb.VERB_SET, value=value))

    while not worker.stopping.is_set():
        await put(chance.choice(small), size_of(chance, worker.weight))
        await calls.at_most(30)
        await pause(chance)
        while not worker.bursts.empty():
            for number in range(int(worker.bursts.get_nowait() * worker.weight)):
                await put(chance.choice(small), 20)
                await put(large[number % BURST_REGISTERS], chance.randrange(*BURST_SIZES))
    await calls.at_most(0)


async def read(keys: Keys, worker: Worker, client: str, chance: random.Random) -> None:
    """Read what either worker writes."""
    while not worker.stopping.is_set():
        if keys.registers:
            await read_register(worker, client, chance.choice(keys.registers))
        if chance.random() < 0.2:
            await read_list(worker, client, chance.choice(keys.lists))
        await pause(chance)


async def publish(keys: Keys, worker: Worker, client: str, chance: random.Random) -> None:
    """Publish to channels of all kinds, sometimes the same once more."""
    calls = Calls()
    rush = 0
    for number in itertools.count():
        if worker.stopping.is_set():
            break
        if not rush and not worker.rushes.empty():
            rush = worker.rushes.get_nowait()
        if rush:
            rush -= 1
            options = chance.choice(CHANNELS), f"{worker.name}/{client}/{number}", chance.randrange(*RUSH_SIZES)
            await calls.begin(publication(worker, client, *options))
            continue
        channel = chance.choice(CHANNELS)
        before = keys.published[channel]
        if before and not channel.startswith("live") and chance.random() < 0.05:
            token = chance.choice(before[-20:])
        else:
            token = f"{worker.name}/{client}/{number}"
            before.append(token)
        size = size_of(chance, worker.weight) if chance.random() < 0.7 else 10
        await calls.begin(publication(worker, client, channel, token, size))
        await calls.at_most(chance.choice((0, 5, 30)))
        await pause(chance)
    await calls.at_most(0)


async def visit(keys: Keys, worker: Worker, client: str, chance: random.Random) -> None:
    """Hold sessions with data, and leave most of them after a while."""
    held: dict[str, int] = {}
    for number in itertools.count():
        if worker.stopping.is_set():
            break
        if len(held) < 5 or (keys.session_timeout > LONG and len(held) < 60):
            session = f"session{number}.{worker.name}"
            held[session] = 0
            keys.sessions[session] = worker.name
            await hold(worker, client, session)
        session = chance.choice(list(held))
        held[session] += 1
        await put(worker, client, session, held[session])
        if chance.random() < 0.3:
            await read_session(worker, client, session)
        if chance.random() < (0.7 if keys.session_timeout < LONG else 0.1):
            del held[session], keys.sessions[session]
            await leave(worker, client, session)
        await pause(chance)
    for session in held:
        if keys.session_timeout < LONG:
            await leave(worker, client, session)


async def expire(keys: Keys, worker: Worker, client: str, chance: random.Random) -> None:
    """Set values with a time, and look whether they are there."""
    for number in itertools.count():
        if worker.stopping.is_set():
            break
        key = f"expiring{number}.{worker.name}"
        seconds = chance.choice((SHORT_EXPIRY, LONG_EXPIRY))
        steps = [(pb.VERB_SET, [key], encode(1)), (pb.VERB_EXPIRE, [key], encode(seconds))]
        value = encode(steps)
        await worker.call(client, "set_expiring", key, seconds, pb.VERB_TRANSACTION, value=value)
        keys.expiring.append(key)
        for _ in range(3):
            await pause(chance)
            await read_expiring(worker, client, chance.choice(keys.expiring))


# Single calls


async def publication(worker: Worker, client: str, channel: str, token: str, size: int) -> Call:
    """Publish a message whose id is its token."""
    options: dict[str, Any] = {"name": channel, "message_id": token, "value": packed(token, size)}
    place = lambda answer: (answer["epoch"], answer["offset"])  # noqa: E731
    return await worker.call(client, "publish", channel, token, pb.VERB_CHANNEL_PUBLISH, read=place, **options)


async def hold(worker: Worker, client: str, session: str) -> None:
    """Attach to a session."""
    call = worker.history.begin(f"{worker.name}/{client}", "hold", session)
    await worker.settled(call, worker.client.attach(session))


async def leave(worker: Worker, client: str, session: str) -> None:
    """Detach from it."""
    call = worker.history.begin(f"{worker.name}/{client}", "leave", session)
    await worker.settled(call, worker.client.detach(session))


async def put(worker: Worker, client: str, session: str, number: int) -> Call:
    """Set its data."""
    options: dict[str, Any] = {"session_id": session, "keys": ["n"], "value": encode(number)}
    return await worker.call(client, "put", session, number, pb.VERB_SET, **options)


async def read_session(worker: Worker, client: str, session: str) -> Call:
    """Get its data."""
    return await worker.call(client, "get", session, None, pb.VERB_GET, session_id=session, keys=["n"], read=number_of)


async def read_register(worker: Worker, client: str, key: str) -> Call:
    """Get a register."""
    return await worker.call(client, "read", key, None, pb.VERB_GET, read=lambda value: token_of(value) or 0)


async def read_list(worker: Worker, client: str, key: str) -> Call:
    """Get a list."""
    tokens: Callable[[Any], list[Any]] = lambda items: [token_of(item) for item in items or ()]  # noqa: E731
    return await worker.call(client, "list", key, None, pb.VERB_GET, read=tokens)


async def read_expiring(worker: Worker, client: str, key: str) -> Call:
    """Look whether a value with a time is there."""
    return await worker.call(client, "get_expiring", key, None, pb.VERB_EXISTS, read=bool)


async def read_count(worker: Worker, client: str, key: str) -> Call:
    """Get a counter."""
    return await worker.call(client, "count", key, None, pb.VERB_GET, read=number_of)


def number_of(value: int | None) -> int:
    """Return a number; 0 for nothing."""
    return value or 0


async def until_done(call: Callable[[], Any], attempts: int) -> Call:
    """Call until it is answered; as often as that at most."""
    for _ in range(attempts - 1):
        done: Call = await call()
        if done.outcome is Outcome.DONE:
            return done
        await asyncio.sleep(0.5)
    last: Call = await call()
    return last
