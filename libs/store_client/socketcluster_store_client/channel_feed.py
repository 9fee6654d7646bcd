"""One subscriber's view of a channel: every message in order, once, whatever becomes of the link to the store.

Offsets are consecutive within an epoch, so a feed knows what it misses. It asks the history for that, holds what comes
meanwhile, and tells of a gap what the history no longer has.

Only the words of the owner that has the subscription count. What a former one said may come late: on its own link after
the present owner's first words, or on the same link before the subscription's answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store_client.errors import LinkError, StoreUnavailableError
from socketcluster_store_client.messages import ChannelPosition, HistoryPage, Position

log = get_logger(__name__)

PAGE = 1000
"""Messages that are asked for at a time."""
MAX_HELD_BYTES = 16 * 1024 * 1024
"""What is held while the history is asked; more than that is dropped, and asked of the history in its turn."""
RETRY_PAUSE = 1.0
"""Seconds until a history is asked again that did not answer."""
_LEFT_EPOCHS = 8
"""Former epochs of a channel that a feed remembers, so that it does not go back to one."""
_MESSAGE_BYTES = 200
"""What a held message takes beside its value."""


@dataclass(frozen=True, slots=True)
class Gap:
    """What a subscriber of a channel did not get, and cannot get any more."""

    channel: str
    seen: Position
    """Where the subscriber was."""
    now: Position
    """Where it goes on: what comes next has the offset after this one."""

    @property
    def missing(self) -> range | None:
        """The offsets that are missing; ``None``: the channel began a new epoch, so their number is not known."""
        if self.seen.epoch not in (0, self.now.epoch) or self.now.offset < self.seen.offset:
            return None
        return range(self.seen.offset + 1, self.now.offset + 1)


class _Held(NamedTuple):
    """A message that waits for those before it."""

    value: bytes
    offset: int
    epoch: int
    link: object


Ask = Callable[[str, Position, int], Awaitable[HistoryPage]]
"""Asks a channel's history what came after a position: at most so many messages."""


class ChannelFeed:
    """Puts the messages of one channel in order.

    Args:
        channel: its name.
        ask: asks its history.
        deliver: gets each message: channel, MessagePack, offset and epoch.
        missed: is told of gaps.
        begun: is called with where the channel is when the store takes the first subscription, before any message.
    """

    __slots__ = (
        "_again", "_ask", "_begun", "_channel", "_deliver", "_epoch", "_goal", "_held", "_held_bytes", "_left", "_link",
        "_missed", "_offset", "_task", "opening",
    )  # fmt: skip

    def __init__(
        self,
        channel: str,
        ask: Ask,
        deliver: Callable[[str, bytes, int, int], None],
        missed: Callable[[Gap], None],
        begun: Callable[[Position], None] | None = None,
    ) -> None:
        self._channel = channel
        self._ask = ask
        self._deliver = deliver
        self._missed = missed
        self._begun = begun
        self._epoch = -1  # the position; -1: none yet
        self._offset = 0
        self._left: tuple[int, ...] = ()  # the epochs before this one
        self._link: object = None  # on which the subscription is open
        self._held: list[_Held] | None = []  # None: messages go on at once
        self._held_bytes = 0
        self._goal: Position | None = None  # where the channel is known to be, though what lies before is not here
        self._again = False  # is the history to be asked once more?
        self._task: asyncio.Task[None] | None = None
        self.opening: int | None = None
        """As long as none has an answer, the first operation that subscribes; what comes meanwhile is held."""

    def take(self, value: bytes, offset: int, epoch: int, link: object = None) -> None:
        """Take a message that a store sent on a link."""
        if self._held is not None:
            self._hold(_Held(value, offset, epoch, link))
        elif link is not self._link or epoch in self._left:
            return  # a former owner's
        elif epoch == self._epoch and offset == self._offset + 1:
            self._pass_on(value, offset, epoch)
        elif self._is_far(offset, epoch):
            self._held = []
            self._hold(_Held(value, offset, epoch, link))
            self._catch_up()
        elif epoch != self._epoch:
            self._enter(epoch, 0)
            self._pass_on(value, offset, epoch)

    def reopen(self, operation: int) -> None:
        """Note that the store is told anew of the subscription, because the link or the owner is another."""
        if self.opening is None:  # else the answer to that, or to one between both, may come first, and is as good
            self.opening = operation
        self._held = []  # what was held for the old one counts as missed
        self._held_bytes = 0

    def opened(self, position: ChannelPosition, link: object = None) -> None:
        """Learn where the channel was when the store took the subscription, and on which link it tells what comes.

        Of what came before, only the words of that owner count.
        """
        self.opening = None
        self._link = link
        self._goal = Position(position.epoch, position.offset)
        self._sort_out(position.epoch)
        if self._task is not None:
            self._again = True
        elif self._epoch < 0:
            self._enter(position.epoch, position.offset)
            if self._begun is not None:
                self._begun(self.position)
            self._go_on()
        elif position.offset == self._offset and self._epoch in (0, position.epoch):
            self._epoch = position.epoch
            self._go_on()
        elif position.first <= position.offset:
            self._catch_up()
        else:  # nothing is kept, there is no need to ask
            self._skip(Position(position.epoch, position.offset))
            self._go_on()

    async def start(self, since: Position) -> None:
        """Deliver what came after a position, then what comes; return when it is all delivered up to now."""
        self._epoch, self._offset = since
        self._catch_up()
        if self._task is not None:
            await asyncio.wait({self._task})

    def close(self) -> None:
        """Deliver nothing more."""
        if self._task is not None:
            self._task.cancel()
        self._held = []

    @property
    def position(self) -> Position:
        """Where the subscriber is."""
        return Position(self._epoch, self._offset)

    def _is_far(self, offset: int, epoch: int) -> bool:
        """Is something missing before that message?

        Not before the first of a new epoch: on an unbroken link the old one came to its end.
        """
        return offset > self._offset + 1 if epoch == self._epoch else offset != 1

    def _pass_on(self, value: bytes, offset: int, epoch: int) -> None:
        self._offset = offset
        try:
            self._deliver(self._channel, value, offset, epoch)
        except Exception:
            log.exception("a channel's message could not be handled", channel=self._channel)

    def _enter(self, epoch: int, offset: int) -> None:
        """Be at a position; an epoch that is left so is never entered again, unless the owner says so itself."""
        if epoch != self._epoch:
            if self._epoch > 0:
                self._left = (*self._left[1 - _LEFT_EPOCHS :], self._epoch)
            if epoch in self._left:
                self._left = tuple(left for left in self._left if left != epoch)
            self._epoch = epoch
        self._offset = offset

    def _hold(self, message: _Held) -> None:
        assert self._held is not None  # noqa: S101
        value, offset, epoch, link = message
        if self.opening is None and (link is not self._link or epoch in self._left):
            return
        self._held.append(message)
        self._held_bytes += len(value) + _MESSAGE_BYTES
        if self._held_bytes > MAX_HELD_BYTES:
            self._held.clear()
            self._held_bytes = 0
            self._goal = Position(epoch, offset)
            self._again = True  # nothing else shows that hole before the next message

    def _sort_out(self, epoch: int) -> None:
        """Drop what is held of former owners: on another link, or of another epoch than the present one's answer."""
        held, self._held, self._held_bytes = self._held or (), [], 0
        for message in held:
            if message.link is not self._link:
                continue
            if message.epoch == epoch or (not epoch and message.epoch not in (self._epoch, *self._left)):
                self._hold(message)
            elif message.epoch not in (self._epoch, *self._left):
                self._again = True  # unless a new epoch has begun meanwhile: the history will tell

    def _go_on(self) -> None:
        """Go on with what was held, or with the history if that is not all."""
        if self._again:
            self._catch_up()
        else:
            self._release()

    def _release(self) -> None:
        held, self._held, self._held_bytes = self._held, None, 0
        for message in held or ():
            self.take(*message)

    def _skip(self, now: Position) -> None:
        """Go on at a later position, or one of another epoch."""
        gap = Gap(self._channel, self.position, now)
        self._enter(now.epoch, now.offset)
        if gap.missing is None or gap.missing:
            try:
                self._missed(gap)
            except Exception:
                log.exception("a channel's gap could not be handled", channel=self._channel)

    def _catch_up(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._ask_history(), name=f"history of {self._channel}")

    @property
    def _next(self) -> Position | None:
        """Where the first message is that is held and counts."""
        if not self._held or self.opening is not None:  # it may be a former owner's
            return None
        return Position(self._held[0].epoch, self._held[0].offset)

    async def _ask_history(self) -> None:
        while True:
            self._again = False
            try:
                page = await self._ask(self._channel, self.position, PAGE)
            except StoreUnavailableError:  # the log says so, once for all channels
                await asyncio.sleep(RETRY_PAUSE)
                continue
            except LinkError as error:
                if self._again:  # the one that was asked may not be the owner any more
                    continue
                log.error("a channel's history cannot be read", channel=self._channel, error=str(error))
                self._give_up()
                break
            if not self._again:
                self._goal = Position(page.epoch, page.offset)
            before = self.position
            if not self._use(page) or self._again:
                continue
            following = self._next
            if following is None or not self._is_far(following.offset, following.epoch):
                break
            if self.position == before:  # the history does not know either
                self._skip(Position(following.epoch, following.offset - 1))
                break
        self._task = None
        if self.opening is None:  # else the answer to the subscription tells what is missing, and what counts
            self._release()
            if self._held is None and self._goal is not None and self._is_before(self._goal):
                self._held = []  # what was held were a former owner's last words: what followed them is missing
                self._catch_up()

    def _is_before(self, position: Position) -> bool:
        return self._epoch == position.epoch and self._offset < position.offset

    def _give_up(self) -> None:
        """Tell of a gap what the history cannot be asked for."""
        following = self._next
        if following is not None:
            self._skip(Position(following.epoch, following.offset - 1))
        elif self.opening is None and self._goal is not None and self._goal != self.position:
            self._skip(self._goal)

    def _use(self, page: HistoryPage) -> bool:
        """Deliver a page; return whether it is the last."""
        until = page.start
        following = self._next
        if page.known and following is not None and following.epoch == page.epoch and following.offset > self._offset:
            until = min(until, following.offset)  # it is here, even if it is not kept there
        if not page.known or until > self._offset + 1:
            self._skip(Position(page.epoch, until - 1))
        self._enter(page.epoch, self._offset)
        if until < page.start:
            return True
        for offset, value in enumerate(page.messages, page.start):
            self._pass_on(value, offset, page.epoch)
        return self._offset >= page.offset
