"""A channel as the stores have it, and a worker's feed of it, without stores and links."""

from __future__ import annotations

import asyncio
from typing import Any

from socketcluster_store_client.channel_feed import ChannelFeed, Gap
from socketcluster_store_client.messages import ChannelPosition, HistoryPage, Position


class Channel:
    """A channel as the stores have it, and a worker's feed of it; links carry nothing until they are told to."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.epoch = 100
        self.messages: list[bytes] = []
        self.owner: object = None  # the link to it
        self.link: list[Any] = []  # what is on its way to the feed
        self.late: list[tuple[bytes, int, int, object]] = []  # and what is on other links
        self.linked = True
        self.asked: asyncio.Queue[tuple[Position, int, asyncio.Future[HistoryPage]]] = asyncio.Queue()
        self.answers: list[tuple[HistoryPage, asyncio.Future[HistoryPage]]] = []  # that are on their way
        self.got: list[tuple[int, int]] = []
        self.gaps: list[Gap] = []
        self.told: list[tuple[int, int] | Gap] = []  # both, in their order
        self.feed = ChannelFeed("c", self.ask, self.deliver, self.missed)
        self.operation = 0
        self.subscribe()

    @property
    def offset(self) -> int:
        return len(self.messages)

    @property
    def first(self) -> int:
        return max(1, self.offset + 1 - self.kept)

    def subscribe(self) -> None:
        self.operation += 1
        self.feed.reopen(self.operation)
        self.link = [ChannelPosition(self.epoch, self.offset, self.first)]

    def move(self, *, same_link: bool) -> None:
        """Have another owner; a channel without a history begins a new epoch then."""
        late = [(*item, self.owner) for item in self.link if not isinstance(item, ChannelPosition)]
        if not self.kept:
            self.epoch += 100
            self.messages.clear()
        if same_link:
            self.subscribe()
            self.link[:0] = [item[:3] for item in late]
        else:
            self.late += late
            self.owner = object()
            self.subscribe()

    def publish(self) -> None:
        self.messages.append(f"{self.epoch}-{self.offset + 1}".encode())
        if self.linked:
            self.link.append((self.messages[-1], self.offset, self.epoch))

    def carry(self, count: int) -> None:
        for _ in range(min(count, len(self.link))):
            item = self.link.pop(0)
            if isinstance(item, ChannelPosition):
                self.feed.opened(item, self.owner)
            else:
                value, offset, epoch = item
                self.feed.take(value, offset, epoch, self.owner)

    def carry_late(self, count: int) -> None:
        for _ in range(min(count, len(self.late))):
            value, offset, epoch, link = self.late.pop(0)
            self.feed.take(value, offset, epoch, link)

    def deliver(self, channel: str, value: bytes, offset: int, epoch: int) -> None:
        assert channel == "c"
        assert value == f"{epoch}-{offset}".encode()
        self.got.append((epoch, offset))
        self.told.append((epoch, offset))

    def missed(self, gap: Gap) -> None:
        self.gaps.append(gap)
        self.told.append(gap)

    async def ask(self, channel: str, since: Position, limit: int) -> HistoryPage:
        assert channel == "c"
        answer: asyncio.Future[HistoryPage] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait((since, limit, answer))
        return await answer

    def page(self, since: Position, limit: int) -> HistoryPage:
        known = since.epoch in (0, self.epoch) and since.offset <= self.offset
        start = max(self.first, since.offset + 1) if known else self.first
        messages = self.messages[start - 1 : start - 1 + limit]
        return HistoryPage(self.epoch, self.offset, self.first, start, known, messages)

    async def answer(self) -> None:
        if not self.answers:
            since, limit, answer = await self.asked.get()
            self.answers.append((self.page(since, limit), answer))
        page, answer = self.answers.pop()
        answer.set_result(page)
        for _ in range(3):
            await asyncio.sleep(0)

    async def asked_once(self) -> None:
        """Wait until the history is asked."""
        self.asked.put_nowait(await self.asked.get())

    def read(self) -> None:
        """Read the history, and let the answer be on its way."""
        if not self.asked.empty():
            since, limit, answer = self.asked.get_nowait()
            self.answers.append((self.page(since, limit), answer))

    async def settle(self) -> None:
        """Carry everything, answer everything, until the feed is where the channel is."""
        if not self.linked:
            self.linked = True
            self.subscribe()
        while self.link or self.feed._task is not None:
            self.carry(100)
            self.carry_late(100)
            await asyncio.sleep(0)
            while self.answers or not self.asked.empty():
                await self.answer()

    def check(self) -> None:
        """Make sure that whatever was told follows on what was told before, epoch for epoch."""
        place: tuple[int, int] | None = None
        for told in self.told:
            if isinstance(told, Gap):
                assert place in (None, (told.seen.epoch, told.seen.offset))
                assert told.now.epoch >= told.seen.epoch
                place = told.now.epoch, told.now.offset
            else:
                assert place is None or told == (place[0], place[1] + 1) or (told[0] > place[0] and told[1] == 1)
                place = told
        assert place in (None, self.feed.position)
