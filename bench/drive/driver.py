"""What the generator's process does: its commands, each a method that returns what it counted."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from bench.drive.client import Client, connect
from bench.drive.dialects import DIALECTS, Dialect
from bench.reporting.statistics import quantiles

PATIENCE = 60.0
"""Seconds without any answer after which a command fails."""
LONG = 180.0
"""Seconds within which very many clients must have been served."""
SPARE = 200
"""Clients that are tried, beside twenty times as many as are wanted, until enough are on each process of a server."""
PER_SOURCE = 2000
"""Connections from one address, before the next one of 127.0.0.0/8 has its turn."""


class Driver:
    """Clients of one server.

    Args:
        dialect: what they speak.
        port: of the server, on 127.0.0.1.
        number: of this process, which chooses its addresses.
        authority: file of the certificate that the server must show; without, there is no TLS.
    """

    def __init__(self, dialect: str, port: int, number: int, authority: str | None) -> None:
        self._dialect: Dialect = DIALECTS[dialect]
        self._port = port
        self._tls = None if authority is None else ssl.create_default_context(cafile=authority)
        self._clients: list[Client] = []
        self._members: dict[str, list[Client]] = {}
        self._sources = self._addresses(number)

    def _addresses(self, number: int) -> Callable[[], str]:
        made = itertools.count()

        def following() -> str:
            place = next(made) // PER_SOURCE
            return f"127.{1 + number % 200}.{1 + place // 250 % 250}.{1 + place % 250}"

        return following

    async def open(self, count: int) -> dict[str, Any]:
        """Add clients, 100 of them under way at a time."""
        return await self.come(count, 100)

    async def come(self, count: int, at_once: int = 0) -> dict[str, Any]:
        """Add clients, so many of them under way at a time, or all; who is refused tries again, as clients do.

        Returns the seconds until all, and until each, were served, and how many tries were in vain, by why. A client
        waits half a second to a second before it tries again.
        """
        began = time.perf_counter()
        times: list[float] = []
        vain: dict[str, int] = {}
        left = iter(range(count))

        async def some() -> None:
            for _ in left:
                asked = time.perf_counter() if at_once else began
                times.append(await self._come(asked, vain))

        try:
            async with asyncio.timeout(LONG):
                await asyncio.gather(*(some() for _ in range(min(at_once or count, count))))
        except TimeoutError:
            raise RuntimeError(f"{len(times)} of {count} were served in {LONG:g} s; in vain: {vain}") from None
        return {"opened": count, "seconds": time.perf_counter() - began, "served": quantiles(times), "vain": vain}

    async def _come(self, asked: float, vain: dict[str, int]) -> float:
        """Add a client; return the seconds since it was ``asked`` for."""
        while True:
            try:
                client = await connect(self._dialect, self._port, self._sources(), self._tls, patience=LONG)
            except OSError as error:  # TimeoutError is one
                text = f"{type(error).__name__}: {error}"
                vain[text] = vain.get(text, 0) + 1
                await asyncio.sleep(random.uniform(0.5, 1.0))  # noqa: S311  # it spreads, and keeps no secret
            else:
                self._clients.append(client)
                return time.perf_counter() - asked

    async def close(self) -> dict[str, Any]:
        """End all connections; return how many had been lost before."""
        lost = sum(client.gone for client in self._clients)
        await _ended(self._clients)
        self._clients, self._members = [], {}
        return {"lost": lost}

    async def check(self, size: int = 20) -> dict[str, Any]:
        """See that an acknowledged event comes back with what it had."""
        data = json.dumps({"n": 987_654_321, "text": "x" * size}, separators=(",", ":"))
        answers = await self._call_all(self._clients[:1], "echo", data)
        if data.encode() not in answers[0]:
            raise RuntimeError(f"another answer than the event: {answers[0][:200]!r}")
        return {}

    async def acknowledge(
        self, seconds: float, window: int = 0, payload: int = 0, event: str = "echo"
    ) -> dict[str, Any]:
        """Have ``window`` events under way at a time, all clients in turn, until the time is over; count the answers.

        Without a window, each client has one. ``payload`` is the size of a text in each event, in bytes.
        """
        clients, dialect = self._clients, self._dialect
        answers, tail = dialect.answers, f',"text":"{"x" * payload}"}}' if payload else "}"
        counted, running, finished = 0, True, asyncio.get_running_loop().create_future()
        under_way = 0
        turn = itertools.cycle(clients) if 0 < window < len(clients) else None

        def send(client: Client) -> None:
            client.number = number = client.number + 1
            client.send(dialect.event(number, event, f'{{"n":{number}{tail}'))

        def answered(client: Client, data: bytes) -> None:
            nonlocal counted, under_way
            if data.startswith(answers):
                counted += 1
                if running:
                    send(client if turn is None else next(turn))
                else:
                    under_way -= 1
                    if not under_way:
                        finished.set_result(None)

        began = time.perf_counter()
        for client in clients:
            client.handler = answered
        first = clients if turn is None else list(itertools.islice(turn, window))
        under_way = len(first)
        for client in first:
            send(client)
        await asyncio.sleep(seconds)
        running = False
        await _within(finished, lambda: f"{under_way} events without an answer, {counted} with one")
        return {"events": counted, "seconds": time.perf_counter() - began}

    async def paced(self, seconds: float, rate: float, payload: int = 0) -> dict[str, Any]:
        """Send so many events a second, whether or not the ones before were answered.

        Returns the quantiles of the seconds from the write of an event to its answer, and of how late the writes were.
        """
        loop, dialect = asyncio.get_running_loop(), self._dialect
        answers, tail = dialect.answers, f',"text":"{"x" * payload}"}}' if payload else "}"
        sent: dict[int, list[float]] = {id(client): [] for client in self._clients}
        kept: list[float] = []
        late: list[float] = []
        total = round(seconds * rate)
        finished = loop.create_future()
        clock = time.perf_counter

        def answered(client: Client, data: bytes) -> None:
            if data.startswith(answers):
                kept.append(clock() - sent[id(client)].pop(0))  # each server answers a client's events in order
                if len(kept) == total:
                    finished.set_result(None)

        for client in self._clients:
            client.handler = answered
        turn = itertools.cycle(self._clients)
        began = clock() + 0.01
        done = 0
        while done < total:
            due = began + done / rate
            now = clock()
            if now < due:
                await asyncio.sleep(due - now)
                continue
            client = next(turn)
            client.number = number = client.number + 1
            late.append(now - due)
            sent[id(client)].append(clock())
            client.send(dialect.event(number, "echo", f'{{"n":{number}{tail}'))
            done += 1
        await _within(finished, lambda: f"{total - len(kept)} of {total} events without an answer")
        return {"events": total, "kept": quantiles(kept), "late": quantiles(late)}

    async def join(self, room: str, count: int, first: int = 0) -> dict[str, Any]:
        """Make clients members of a room."""
        members = self._clients[first : first + count]
        await self._ask_all(members, lambda client: self._dialect.joining(client.number, room))
        self._members[room] = self._members.get(room, []) + members
        return {"members": len(members)}

    async def join_spread(self, room: str, count: int, places: int) -> dict[str, Any]:
        """The same, with as many members on each of so many processes of the server; opens clients as needed."""
        share = -(-count // places)
        while True:
            found: dict[bytes, list[Client]] = {}
            for client, answer in zip(self._clients, await self._call_all(self._clients, "where", "1"), strict=True):
                place = answer.replace(str(client.number).encode(), b"", 1)
                found.setdefault(place, []).append(client)
            chosen = sorted(found.values(), key=len, reverse=True)[:places]
            if len(chosen) == places and len(chosen[-1]) >= share:
                break
            if len(self._clients) > 20 * count + SPARE:
                raise RuntimeError(f"clients are on {[len(clients) for clients in chosen]}: not {share} on each")
            await self.open(count)
        members = [client for clients in chosen for client in clients[:share]]
        await self._ask_all(members, lambda client: self._dialect.joining(client.number, room))
        self._members[room] = members
        return {"members": len(members), "clients": len(self._clients)}

    async def join_many(self, rooms: int) -> dict[str, Any]:
        """Make each client a member of its share of so many rooms, named by their numbers."""
        for first in range(0, rooms, len(self._clients)):
            some = self._clients[: rooms - first]
            numbers: dict[Client, int] = {}
            for number, client in enumerate(some, first):
                self._members[f"room{number}"] = [client]
                numbers[client] = number
            await self._ask_all(some, partial(self._joining_own, numbers))
        return {"rooms": rooms}

    def _joining_own(self, numbers: Mapping[Client, int], client: Client) -> str:
        return self._dialect.joining(client.number, f"room{numbers[client]}")

    async def broadcast(
        self, seconds: float, rooms: Sequence[str], rate: float = 0, payload: int = 0
    ) -> dict[str, Any]:
        """Have the last client say something to each room in turn, until the time is over.

        One is under way at a time, or there are ``rate`` a second. Each one must reach each member once: any other
        number of deliveries is an error. Returns how many were said and delivered, and the quantiles of the seconds
        until the last member had it.
        """
        speaker, said = self._clients[-1], self._dialect.said
        tail = f',"text":"{"x" * payload}"}}' if payload else "}"
        said_to, expected, delivered, spoken = itertools.cycle(rooms), 0, 0, 0
        clock, reached, began_at = time.perf_counter, [], 0.0
        complete = asyncio.Event()

        def heard(_client: Client, data: bytes) -> None:
            nonlocal delivered
            if data.startswith(said):
                delivered += 1
                if delivered == expected:
                    reached.append(clock() - began_at)
                    if not rate and clock() < end:
                        speak()
                    else:
                        complete.set()

        def speak() -> None:
            nonlocal expected, spoken, began_at
            room = next(said_to)
            spoken += 1
            expected += len(self._members[room])
            began_at = clock()
            speaker.send(self._dialect.saying(room, f'{{"n":{spoken}{tail}'))

        for client in self._clients:
            client.handler = heard
        began = clock()
        end = began + seconds
        if rate:
            for number in range(max(1, round(seconds * rate))):
                await asyncio.sleep(max(0.0, began + number / rate - clock()))
                complete.clear()
                speak()
        else:
            speak()
        await _within(
            asyncio.ensure_future(complete.wait()), lambda: f"{delivered} of {expected} deliveries came", seconds
        )
        await asyncio.sleep(0.02)  # one too many would come now
        if delivered != expected:
            raise RuntimeError(f"{delivered} deliveries instead of {expected}")
        return {
            "spoken": spoken,
            "delivered": delivered,
            "seconds": clock() - began,
            "reached": quantiles(reached),
        }

    async def churn(self, count: int, at_once: int = 100) -> dict[str, Any]:
        """Connect, greet, have one event acknowledged and leave, again and again."""
        left = iter(range(count))
        errors: dict[str, int] = {}
        came = 0

        async def some() -> None:
            nonlocal came
            for _ in left:
                try:
                    client = await connect(self._dialect, self._port, self._sources(), self._tls)
                    await self._call_all([client], "echo", "1")
                    await _ended([client])
                    came += 1
                except OSError as error:
                    text = f"{type(error).__name__}: {error}"[:200]
                    errors[text] = errors.get(text, 0) + 1

        began = time.perf_counter()
        await asyncio.gather(*(some() for _ in range(min(at_once, count))))
        return {"came": came, "seconds": time.perf_counter() - began, "errors": errors}

    async def _call_all(self, clients: Sequence[Client], event: str, data: str) -> list[bytes]:
        return await self._ask_all(clients, lambda client: self._dialect.event(client.number, event, data))

    async def _ask_all(self, clients: Sequence[Client], text: Callable[[Client], str]) -> list[bytes]:
        """Send each client's text; return their acknowledgements, in order."""
        answers: dict[int, bytes] = {}
        finished = asyncio.get_running_loop().create_future()

        def answered(client: Client, data: bytes) -> None:
            if data.startswith(self._dialect.answers) and id(client) not in answers:
                answers[id(client)] = data
                if len(answers) == len(clients):
                    finished.set_result(None)

        for client in clients:
            client.handler = answered
            client.number += 1
            client.send(text(client))
        await _within(finished, lambda: f"{len(answers)} of {len(clients)} answered")
        return [answers[id(client)] for client in clients]


async def _within(finished: asyncio.Future[Any], lack: Callable[[], str], more: float = 0) -> None:
    """Wait, but not for ever.

    Raises:
        RuntimeError: with what ``lack`` says.
    """
    try:
        async with asyncio.timeout(PATIENCE + more):
            await finished
    except TimeoutError:
        raise RuntimeError(lack()) from None


async def _ended(clients: Sequence[Client]) -> None:
    """Close connections; return when they are."""
    if not clients:
        return
    left, finished = len(clients), asyncio.get_running_loop().create_future()

    def closed() -> None:
        nonlocal left
        left -= 1
        if not left:
            finished.set_result(None)

    for client in clients:
        client.close(closed)
    await finished
