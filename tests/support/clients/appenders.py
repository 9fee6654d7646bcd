"""Clients that write as long as they are let, reconnect when they have to, and keep record of what they were told."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from websockets.exceptions import WebSocketException

from support.clients.browser import CallError, Messages, WebSocketMessages
from support.cluster.cluster import Cluster, until

PAUSE = 0.02
"""Seconds between two writes of one client."""
SILENCE = 8.0
"""Seconds without an answer after which a client gives its connection up, as by a heartbeat that does not come."""


class Appender:
    """One browser that appends numbers to a list of its session, publishes each third one, and follows its channel."""

    def __init__(self, cluster: Cluster, number: int, channel: str) -> None:
        self.browser = cluster.browser()
        self.channel = channel
        self.acknowledged: list[int] = []
        """Numbers whose append was acknowledged."""
        self.published: list[list[int]] = []
        """What was published and acknowledged, from its first subscription on."""
        self.heard: list[Any] = []
        """What its channel brought."""
        self.gaps: list[Any] = []
        """Answers to subscriptions that said that something is missing."""
        self.refusals: Counter[str] = Counter()
        """Errors that calls were answered with."""
        self.connections = 0
        self._number = number
        self._next = 0
        self._since: str | None = None

    async def go_on(self, stop: asyncio.Event) -> None:
        """Write until it is to stop."""
        while not stop.is_set():
            try:
                async with self.browser.raw() as socket:
                    self.connections += 1
                    await self._serve(socket, stop)
            except (OSError, WebSocketException):
                await asyncio.sleep(PAUSE)

    async def _serve(self, socket: WebSocketMessages, stop: asyncio.Event) -> None:
        seen = 0
        try:
            async with asyncio.timeout(SILENCE):
                answer = await socket.call("#subscribe", {"channel": self.channel, "since": self._since})
            if "reset" in answer or "missing" in answer:
                self.gaps.append(answer)
            self._since = self._since or answer["offset"]
            while not stop.is_set():
                await self._write(socket)
                seen = self._listen(socket, seen)
                await asyncio.sleep(PAUSE)
        except TimeoutError:
            socket.connection.transport.abort()
            raise
        finally:
            self._listen(socket, seen)

    async def _write(self, socket: Messages) -> None:
        self._next += 1
        number = self._next
        try:
            async with asyncio.timeout(SILENCE):
                await socket.call("append", ["log", number])
                self.acknowledged.append(number)
                if number % 3 == 0:
                    await socket.call("#publish", {"channel": self.channel, "data": [self._number, number]})
                    self.published.append([self._number, number])
        except CallError as error:
            self.refusals[str(error)] += 1

    def _listen(self, socket: Messages, seen: int) -> int:
        for event, data in socket.events[seen:]:
            if event == "#publish":
                self.heard.append(data["data"])
                self._since = data.get("offset", self._since)
        return len(socket.events)

    async def check(self) -> list[str]:
        """Come once more; return what is wrong with what is there."""
        async with await until(lambda: self.browser.raw().open(), lambda _: True) as socket:
            log = await socket.call("get", "log")
            before = len(self.heard)
            await socket.call("#subscribe", {"channel": self.channel, "since": self._since})
            await socket.call("#publish", {"channel": self.channel, "data": ["end", self._number]})
            while ["end", self._number] not in self.heard[before:]:
                self.heard[before:] = [data["data"] for event, data in socket.events if event == "#publish"]
                await socket.call("echo", None)
        await self.browser.http.aclose()
        wrong = []
        known = set(self.acknowledged)
        if lost := known - set(log):
            wrong.append(f"{len(lost)} acknowledged appends are lost: {sorted(lost)[:5]}")
        if twice := [number for number, times in Counter(log).items() if times > 1]:
            wrong.append(f"{len(twice)} appends are there twice: {twice[:5]}")
        if [number for number in log if number in known] != self.acknowledged:
            wrong.append("acknowledged appends are out of order")  # another may come late, from a worker that slept
        heard = Counter(map(tuple, self.heard))
        if again := [data for data, times in heard.items() if times > 1]:
            wrong.append(f"{len(again)} publications came twice: {again[:5]}")
        if missed := [data for data in self.published if tuple(data) not in heard]:
            wrong.append(f"{len(missed)} of its own publications did not come: {missed[:5]}")
        if self.gaps:
            wrong.append(f"its channel had gaps: {self.gaps[:3]}")
        return wrong
