"""A worker: its links to the stores, what it is told, and the clients that call by it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
from support.store.processes import SECRET

from history.record import Call, Ended, History, Message, Missed, Outcome, Subscribed
from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.channel_feed import Gap
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.errors import LinkError, OperationError, ResultLostError

CHANNELS = ("kept0", "kept1", "kept2", "short0", "short1", "live0", "live1", "live2", "live3")
SIZES = ((60, 10, 200), (25, 200, 20_000), (12, 20_000, 200_000), (3, 200_000, 900_000))
"""How many of a hundred values have how many bytes."""
LARGE = 100_000
encode = msgspec.msgpack.encode
decode: Callable[[bytes], Any] = msgspec.msgpack.decode
ClientLoop = Callable[["Worker", str, random.Random], Coroutine[Any, Any, None]]


class Worker:
    """A worker that can be killed, and come back as another process of the same id does.

    Args:
        number: 1 or 2.
        addresses: of the stores.
        history: where everything is noted.
        timeout: seconds that a call waits for its answer.
        clients: what its clients do, by their names.
        seed: of their chances.
        weight: of large values, and of bursts.
    """

    def __init__(
        self,
        number: int,
        addresses: Sequence[str],
        history: History,
        timeout: float,
        clients: dict[str, ClientLoop],
        seed: int,
        weight: float = 1,
    ) -> None:
        self.number = number
        self.incarnation = 0
        self.history = history
        self.weight = weight
        self.stopping = asyncio.Event()
        self.bursts: asyncio.Queue[int] = asyncio.Queue()
        """How many large values are to be written at once."""
        self.rushes: asyncio.Queue[int] = asyncio.Queue()
        """How many messages are to be published at once."""
        self._addresses = addresses
        self._timeout = timeout
        self._clients = clients
        self._seed = seed
        self._tasks: list[asyncio.Task[None]] = []
        self.client: StoreClient

    @property
    def name(self) -> str:
        """What the record calls it."""
        return f"w{self.number}.{self.incarnation}"

    async def start(self, channels: Sequence[str] = CHANNELS) -> None:
        """Link to the stores, subscribe, and have the clients call."""
        self.incarnation += 1
        name = self.name
        told = self.history.told
        clock = asyncio.get_running_loop().time

        def heard(channel: str, value: bytes, offset: int, epoch: int) -> None:
            told.append(Message(self.history.next_number(), name, clock(), channel, (epoch, offset), unpacked(value)))

        def missed(gap: Gap) -> None:
            number = self.history.next_number()
            told.append(Missed(number, name, clock(), gap.channel, (*gap.seen,), (*gap.now,)))

        def ended(session: str) -> None:
            told.append(Ended(self.history.next_number(), name, clock(), session))

        self.client = StoreClient(
            self._addresses,
            worker_id=f"worker{self.number:02}",
            app_name="socketcluster",
            secret=SECRET,
            timeout=self._timeout,
            on_session_message=lambda *_message: None,
            on_session_destroyed=ended,
            on_channel_message=heard,
            on_channel_gap=missed,
        )
        if channels:
            self.history.alive.add(name)
        await self.client.start()
        self._tasks = [asyncio.create_task(self._subscribe(channel)) for channel in channels]
        for client, loop in self._clients.items():
            chance = random.Random(f"{self._seed} {name} {client}")
            self._tasks.append(asyncio.create_task(loop(self, client, chance), name=f"{name}/{client}"))

    async def kill(self) -> None:
        """End as a process that is killed: nobody hears what becomes of what it called."""
        self.history.alive.discard(self.name)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.client.close()

    async def finish(self) -> None:
        """Have the clients call no more, and return when each has its answers."""
        self.stopping.set()
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """End the links."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.client.close()

    async def call(
        self,
        client: str,
        what: str,
        key: str,
        given: Any,
        verb: store_pb2.Verb.ValueType,
        *,
        read: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> Call:
        """Call the stores, and note what becomes of it.

        Args:
            client: who calls.
            what: what the record calls it.
            key: a key or channel.
            given: what the record is to have of the value.
            verb: the operation.
            read: makes of the decoded result what the record is to have of it; ``None``: nothing.
            options: of the operation, as ``StoreClient.call`` takes them; without a ``name`` the key is its key chain.
        """
        if "name" not in options and "keys" not in options:
            options["keys"] = [key]
        call = self.history.begin(f"{self.name}/{client}", what, key, given)
        return await self.settled(call, self.client.call(verb, **options), read)

    async def settled(
        self, call: Call, answer: asyncio.Future[bytes], read: Callable[[Any], Any] | None = None
    ) -> Call:
        """Note what becomes of a call."""
        outcome, found, error = Outcome.DONE, b"", ""
        try:
            found = await answer
        except ResultLostError:
            outcome = Outcome.UNKNOWN
        except OperationError as refusal:
            outcome, error = Outcome.REFUSED, f"{type(refusal).__name__} {refusal}"[:120]
        except LinkError as failure:
            outcome, error = Outcome.UNKNOWN, f"{type(failure).__name__} {failure}"[:120]
        call.ended = asyncio.get_running_loop().time()
        if outcome is Outcome.DONE and read is not None:
            try:
                call.answer = read(decode(found))
            except Exception as confusion:
                outcome, error = Outcome.CONFUSED, f"{found[:20]!r}: {confusion!r}"
        call.outcome, call.error = outcome, error
        return call

    async def _subscribe(self, channel: str) -> None:
        """Subscribe; the client does so again by itself after a break."""
        record = Subscribed(self.history.next_number(), self.name, asyncio.get_running_loop().time(), channel)
        self.history.told.append(record)
        with contextlib.suppress(LinkError):  # where it is then remains unknown, until something comes
            place = decode(await self.client.subscribe(channel))
            record.place, record.at = (place["epoch"], place["offset"]), asyncio.get_running_loop().time()


def packed(token: str | int, size: int) -> bytes:
    """Return a value of about so many bytes that is named by a token."""
    return encode([token, filling(token, size)])


def unpacked(value: bytes) -> Any:
    """Return the token of a value."""
    return token_of(decode(value))


def token_of(value: Any) -> Any:
    """Return the token of a value that is decoded; of nothing, nothing.

    What is not whole, or is another one's, is no token that anybody has given.
    """
    if value is None:
        return None
    token, filled = value
    return token if filled == filling(token, len(filled)) else f"damaged {token}"


def filling(token: str | int, size: int) -> bytes:
    """Return bytes by which a value is known to be whole."""
    word = f"{token} ".encode()
    return (word * (size // len(word) + 1))[:size]


def size_of(chance: random.Random, weight: float = 1) -> int:
    """Return how large a value is to be; the weight is that of the large ones."""
    shares = [share if most < LARGE else share * weight for share, _least, most in SIZES]
    ((_share, least, most),) = chance.choices(SIZES, shares)
    return chance.randrange(least, most)
