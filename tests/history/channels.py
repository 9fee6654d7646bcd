"""What must not happen to a channel's messages, its publishers and its subscribers.

``publish`` has a token, which is the message's id too, and is answered with epoch and offset.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from history.record import Call, History, Message, Missed, Outcome, Place, Subscribed, Told, Violation, worker_of

KEPT = "kept"
"""How the names of channels begin whose whole history is kept: nothing is missing there unless it was taken away."""
NOWHERE = (0, 0)
"""The answer to a publication whose place is not known any more: it was sent again after its store died."""


def judge_channels(history: History) -> Iterator[Violation]:
    """Each message reaches each subscriber once, in order, or is named as missing; no place has two messages."""
    publications = history.by_key("publish")
    heard: dict[str, dict[str, list[Told]]] = defaultdict(lambda: defaultdict(list))  # by channel and worker
    for each in history.told:
        if isinstance(each, Subscribed | Message | Missed):
            heard[each.key][each.worker].append(each)
    for channel in sorted(publications.keys() | heard.keys()):
        published, subscribers = publications.get(channel, []), heard.get(channel, {})
        of_token: dict[str, list[Call]] = defaultdict(list)
        for call in published:
            of_token[call.given].append(call)
        yield from _answers(history, channel, published, of_token)
        yield from _places(channel, published, list(chain.from_iterable(subscribers.values())))
        for worker, told in subscribers.items():
            yield from _subscriber(history, told, of_token, worker in history.alive)


def _answers(
    history: History, channel: str, published: Sequence[Call], of_token: Mapping[str, Sequence[Call]]
) -> Iterator[Violation]:
    """Compare what each publisher was told with what it was told before."""
    known: set[str] = set()
    first: dict[str, Call] = {}
    last: dict[str, Call] = {}
    left: dict[str, set[int]] = defaultdict(set)
    for call in published:
        again = call.given in known
        known.add(call.given)
        if not call.done or call.answer == NOWHERE:
            continue
        original = first.setdefault(call.given, call)
        if original is not call:
            anew = original.answer[0] != call.answer[0] and history.epochs_end(original.begun, call.ended)
            if original.answer != call.answer and not anew:
                yield Violation("channel", channel, f"{call.given} was published twice", (original, call))
        if again or _may_be_overtaken(call, of_token[call.given]):  # its place may be that of another attempt
            continue
        before = last.get(call.client)
        last[call.client] = call
        if before is None:
            continue
        if call.answer[0] != before.answer[0]:
            left[call.client].add(before.answer[0])
            if call.answer[0] in left[call.client]:
                yield Violation("channel", channel, "an epoch that was left comes back", (before, call))
            if channel.startswith(KEPT) and not history.epochs_end(before.begun, call.ended):
                yield Violation("channel", channel, "a new epoch, and nothing was taken away", (before, call))
        elif call.answer[1] <= before.answer[1]:
            yield Violation("channel", channel, "a later message has no later offset", (before, call))


def _may_be_overtaken(call: Call, attempts: Sequence[Call]) -> bool:
    """Was the same published by another worker before there was an answer? Their links are not in order."""
    worker = worker_of(call.client)
    return any(each.begun < call.ended and worker_of(each.client) != worker for each in attempts)


def _places(channel: str, published: Sequence[Call], told: Sequence[Told]) -> Iterator[Violation]:
    """Look for places of which two messages were told."""
    tokens: dict[Place, tuple[str, Call | Told]] = {}
    for each in [*published, *told]:
        if isinstance(each, Call):
            if not each.done or each.answer == NOWHERE:
                continue
            place, token = each.answer, each.given
        elif isinstance(each, Message):
            place, token = each.place, each.token
        else:
            continue
        known, by = tokens.setdefault(place, (token, each))
        if known != token:
            yield Violation("channel", channel, f"{place} stands for two messages", (by, each))


def _subscriber(
    history: History, told: Sequence[Told], of_token: Mapping[str, Sequence[Call]], alive: bool
) -> Iterator[Violation]:
    """Follow what one subscriber was told."""
    channel = told[0].key
    gaps = [each for each in told if isinstance(each, Missed)]
    heard: dict[str, Message] = {}
    last = told[0]
    epoch, offset = -1, 0  # where it is; -1: it is not known yet
    left: set[int] = set()
    for each in told:
        if isinstance(each, Subscribed):
            epoch, offset = each.place or (-1, 0)
        elif isinstance(each, Missed):
            if epoch >= 0 and each.seen != (epoch, offset):
                yield Violation("channel", channel, f"a gap begins elsewhere than at {(epoch, offset)}", (last, each))
            if each.now[0] == each.seen[0] and each.now[1] <= each.seen[1]:
                yield Violation("channel", channel, "a gap names nothing, or leads back", (last, each))
            may_be = each.epoch_changed and history.epochs_end(told[0].at, each.at)
            if channel.startswith(KEPT) and not may_be:
                yield Violation("channel", channel, "a gap where all is kept", (last, each))
            if each.now[0] != epoch:
                left.add(epoch)
            epoch, offset = each.now
        elif isinstance(each, Message):
            yield from _message(history, each, heard.get(each.token), of_token.get(each.token, ()))
            heard[each.token] = each
            if each.place[0] != epoch:
                left.add(epoch)
            elif each.place[1] <= offset:
                yield Violation("channel", channel, "a message comes again, or late", (last, each))
            elif each.place[1] > offset + 1:
                yield Violation("channel", channel, "what is missing is not named", (last, each))
            epoch, offset = each.place
        if epoch in left and epoch:  # 0 is that of a channel to which nothing was published, also after a loss
            yield Violation("channel", channel, "an epoch that was left comes back to a subscriber", (last, each))
            left.discard(epoch)  # say it once
        last = each
    begin = told[0]
    if isinstance(begin, Subscribed) and begin.place is not None:
        for token, calls in of_token.items():
            call = next((each for each in calls if each.done), None)
            if call is None or token in heard or not _is_due(call, begin, last, alive) or _is_named(call, gaps):
                continue
            if not history.lost_since(calls[0].begun, last.at):
                text = f"{token} was acknowledged, and is neither heard nor named as missing by {told[0].worker}"
                yield Violation("channel", channel, text, (call, *_around(call, told)))


def _message(history: History, message: Message, before: Message | None, calls: Sequence[Call]) -> Iterator[Violation]:
    token = message.token
    if not calls or calls[0].begun > message.at:
        yield Violation("channel", message.key, f"{token} was published by nobody", (message,))
        return
    begun = calls[0].begun
    anew = history.epochs_end(begun, message.at)  # what is kept is heard once more in a new epoch
    if before is not None and not (anew and before.place[0] != message.place[0]):
        yield Violation("channel", message.key, f"{token} was heard twice", (*calls, before, message))
    if all(call.outcome is Outcome.REFUSED for call in calls):
        yield Violation("channel", message.key, f"{token} was refused, and heard", (*calls, message))
    others = [call for call in calls if call.done and call.answer not in (message.place, NOWHERE)]
    if any(
        call.answer[0] == message.place[0] or not history.epochs_end(begun, max(message.at, call.ended))
        for call in others
    ):
        yield Violation("channel", message.key, f"{token} was told another place", (*calls, message))


def _is_due(call: Call, begin: Subscribed, last: Told, alive: bool) -> bool:
    """Has a subscriber to have heard of a publication?"""
    epoch, offset = begin.place or (-1, 0)
    after = bool(call.answer[1] > offset if call.answer[0] == epoch else call.begun > begin.at)
    if not after or alive:
        return after
    return isinstance(last, Message) and last.place[0] == call.answer[0] and last.place > call.answer


def _is_named(call: Call, gaps: Sequence[Missed]) -> bool:
    """Does a gap say that a message is missing, or that an epoch began in which it had no place?"""
    if any(gap.names(call.answer) for gap in gaps):
        return True
    known = {epoch for gap in gaps for epoch in (gap.seen[0], gap.now[0])}
    return call.answer[0] not in known and any(gap.epoch_changed and gap.at > call.begun for gap in gaps)


def _around(call: Call, told: Sequence[Told]) -> Iterator[Told]:
    """Return what a subscriber heard last before a publication's end, and first after it."""
    before = [each for each in told if each.at <= call.ended]
    after = [each for each in told if each.at > call.ended]
    yield from [*before[-2:], *after[:2]]
