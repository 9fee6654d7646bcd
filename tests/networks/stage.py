"""A run: clients behind a proxy that work all the time, while a situation does to them what it does; then the judge."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from support.cluster.local import LocalCluster
from support.network.adverse.proxy import AdverseProxy

from networks.clients import Client, Open, Platform
from networks.judge import Counts, Journal, Seen, judge

CONTROLLER = Path(__file__).parents[1] / "controllers" / "networks" / "controller.py"
OPTIONS = ("--channel-history", "chat:*: 5000, 3600", "--origins", "127.0.0.1:*", "--client-publish", "deny")
"""Of every cluster here."""
SHORT_HEARTBEATS = ("--heartbeat-interval", "2", "--heartbeat-timeout", "2")
"""Of one for situations at a small scale."""
TRANSPORTS = {
    "polling": ["polling"],
    "websocket": ["websocket"],
    "upgrade": ["polling", "websocket"],
    "websocket first": ["websocket", "polling"],
}
END = "the end"
READING = 30.0
"""Seconds in which clients give their records."""


@dataclass(frozen=True)
class Scale:
    """How long things take, in seconds.

    Attributes:
        outage: that nothing comes through.
        trouble: that faults come at random.
        pause: between two of them, at most.
        away: that a page is not looked at.
        latency: each way where it is long; a quarter of it varies.
        rate: bytes a second where they are few.
        idle: after which a gateway gives a poll up.
        interval: between two calls, and two emits, of a client.
        publishing: between two messages of the server's.
        limit: of a run, by far.
        options: of the clients.
    """

    outage: float
    trouble: float
    pause: float
    away: float
    latency: float
    rate: float
    idle: float
    interval: float
    publishing: float
    limit: float
    options: dict[str, Any] = field(default_factory=dict)


SMALL = Scale(
    outage=1.5,
    trouble=2.0,
    pause=0.5,
    away=2.0,
    latency=0.2,
    rate=8000,
    idle=0.5,
    interval=0.1,
    publishing=0.1,
    limit=150,
    options={"connectTimeout": 3000, "ackTimeout": 5000, "reconnectionDelay": 100, "reconnectionDelayMax": 1000},
)
FULL = Scale(
    outage=60,
    trouble=40,
    pause=4,
    away=60,
    latency=1.0,
    rate=2000,
    idle=8,
    interval=0.5,
    publishing=0.25,
    limit=400,
)


@dataclass(frozen=True)
class Situation:
    """What happens to clients.

    Attributes:
        act: does it; it begins with ``stage.begin``.
        transports: names of ``TRANSPORTS`` in which it makes sense.
        prepare: what is so from the start, and stays so to the end unless ``act`` changes it.
        clients: how many.
        interval: between calls, as many times the scale's.
        in_browsers_only: does it need tabs?
    """

    act: Callable[[Stage], Awaitable[None]]
    transports: tuple[str, ...] = ("polling", "websocket", "upgrade")
    prepare: Callable[[Stage], None] = lambda _stage: None
    clients: int = 1
    interval: float = 1
    in_browsers_only: bool = False


@dataclass
class Report:
    """What became of a run."""

    counts: Counts
    back: float
    """Seconds from the end of the situation until all was well again."""
    violations: list[str]
    log: list[str]


class Stage:
    """What a situation acts on.

    Attributes:
        proxy: the network.
        clients: those behind it.
        chance: what happens at random is drawn from it.
        scale: how long things take.
        seed: from which all that is random follows.
        doing: what is waited for.
        log: what was done.
        happened: set once what was prepared has happened.
    """

    def __init__(
        self, situation: Situation, proxy: AdverseProxy, cluster: LocalCluster, scale: Scale, seed: int
    ) -> None:
        self.proxy = proxy
        self.clients: list[Client] = []
        self.chance = random.Random(seed)
        self.scale = scale
        self.seed = seed
        self.doing = ""
        self.log: list[str] = []
        self.back = 0.0
        self.happened = asyncio.Event()
        self.cluster_url = cluster.url
        self.channel = f"chat:{uuid.uuid4()}"
        self._begun = time.monotonic()
        self._situation = situation
        self._cluster = cluster
        self._http = httpx.AsyncClient(base_url=cluster.url, timeout=60)
        self._publisher: asyncio.Task[None] | None = None

    def note(self, line: str) -> None:
        """Log what is done, or waited for."""
        self.doing = line
        self.log.append(f"{time.monotonic() - self._begun:6.2f} s: {line}")

    async def play(self, open_client: Open, transport: str) -> None:
        """Have the situation happen, and everything end well."""
        self._situation.prepare(self)
        for number in range(self._situation.clients):
            self.clients.append(await open_client(f"client{number}", f"{self.cluster_url}/page"))
        options = {"url": self.proxy.url, "transports": TRANSPORTS[transport], **self.scale.options}
        for client in self.clients:
            await client.start(self.channel, self.channel, options)
        await self._situation.act(self)
        await self._finish()

    async def begin(self) -> None:
        """Wait until all have subscribed; let them and the server work from now on."""
        self.note("subscribing")
        for client in self.clients:
            await client.until("recorder.subscribed")
        self._publisher = asyncio.create_task(self._publish())
        for client in self.clients:
            await client.evaluate(f"recorder.work({self.scale.interval * self._situation.interval * 1000})")
        await self.progress()

    async def progress(self) -> None:
        """Wait until each client has a few more messages and answers, which were sent from now on."""
        self.note("waiting for messages and answers")
        before = [await client.evaluate("[recorder.messages.length, recorder.answered]") for client in self.clients]
        for client, (messages, answered) in zip(self.clients, before, strict=True):
            await client.until(f"recorder.messages.length > {messages} + 3 && recorder.answered > {answered} + 2")

    @asynccontextmanager
    async def losing(self) -> AsyncIterator[None]:
        """Wait until each client has noticed that what is done meanwhile has ended its connection."""
        before = [await client.evaluate("recorder.count('disconnect')") for client in self.clients]
        yield
        self.note("waiting until the connection counts as lost")
        for client, losses in zip(self.clients, before, strict=True):
            await client.until(f"recorder.count('disconnect') > {losses}")

    async def pause(self, seconds: float) -> None:
        """Let time go by."""
        self.note(f"for {seconds:.1f} s")
        await asyncio.sleep(seconds)

    async def troubles(self) -> AsyncIterator[None]:
        """Yield again and again, at random times, while there is trouble."""
        end = time.monotonic() + self.scale.trouble
        while time.monotonic() < end:
            await asyncio.sleep(self.chance.uniform(0.1, 1) * self.scale.pause)
            yield

    async def _publish(self) -> None:
        number = 0
        while True:
            number += 1
            await self._publish_one(f"server {number}")
            await asyncio.sleep(self.scale.publishing)

    async def _publish_one(self, text: str) -> None:
        response = await self._http.get("/publish", params={"channel": self.channel, "text": text})
        response.raise_for_status()

    async def _finish(self) -> None:
        """Wait until all is well and nothing is under way."""
        over = time.monotonic()
        for client in self.clients:
            self.note(f"{client.name} is to be open and answered again")
            await client.evaluate("recorder.rest()")
            await client.until("recorder.state === 'open' && recorder.call()")
        self.back = time.monotonic() - over
        if self._publisher is not None:
            self._publisher.cancel()
        await self._publish_one(END)
        for client in self.clients:
            self.note(f"{client.name} is to have all answers and the last message")
            await client.until(f"!recorder.unsettled && recorder.messages.includes({json.dumps(END)})")
            await client.until("recorder.state === 'open' && recorder.call()")
        self.note("done")

    async def judge(self) -> tuple[Counts, list[str]]:
        """Compare what the clients have seen with what the server knows."""
        seen = [Seen.load(client.name, await client.evaluate("recorder.record")) for client in self.clients]
        for each in seen:
            troubles = [event for event in each.events if event[0] != "emit"]
            self.log.append(f"{each.client}: {troubles[:200]}")
        journal = await self._journal()
        counts = sum((Counts.of(each, journal) for each in seen), Counts())
        return counts, [violation for each in seen for violation in judge(each, journal)]

    async def _journal(self) -> Journal:
        history = await self._http.get("/history", params={"channel": self.channel})
        ran: Counter[tuple[str, str, int]] = Counter()
        for name in await self._cluster.worker_names():
            url = await self._cluster.worker_url(name)
            response = await self._http.get(f"{url}/ran", params={"run": self.channel})
            ran.update((kind, client, number) for kind, client, number in response.json()["ran"])
        return Journal(ran, history.json()["messages"])

    async def close(self) -> None:
        """End the clients."""
        if self._publisher is not None:
            self._publisher.cancel()
        for client in self.clients:
            with contextlib.suppress(RuntimeError):
                await client.close()
        await self._http.aclose()


async def play(
    situation: Situation, transport: str, seed: int, scale: Scale, cluster: LocalCluster, platform: Platform
) -> Report:
    """Run a situation once, and judge it."""
    async with AdverseProxy(cluster.url, seed) as proxy, platform() as open_client:
        stage = Stage(situation, proxy, cluster, scale, seed)
        violations, counts = [], Counts()
        try:
            try:
                async with asyncio.timeout(scale.limit):
                    await stage.play(open_client, transport)
            except TimeoutError:
                violations.append(f"not well again after {scale.limit} s: {stage.doing}")
            try:
                async with asyncio.timeout(READING):
                    counts, found = await stage.judge()
                    violations += found
            except TimeoutError:
                violations.append("the clients' records cannot be read")
        finally:
            await stage.close()
    return Report(counts, stage.back, violations, stage.log)
