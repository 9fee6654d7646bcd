"""Says what of a history must not have happened, whatever time things take.

A call that was acknowledged was carried out once, between its begin and its end; one that was refused never was; one
without an answer was carried out once at most, whenever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from history.channels import judge_channels
from history.record import Call, History, Outcome, Violation
from history.sessions import judge_expiries, judge_left_sessions, judge_sessions

OPEN = (Outcome.UNKNOWN, Outcome.CONFUSED)


def judge(history: History) -> list[Violation]:
    """Return all that is wrong."""
    rules: list[Callable[[History], Iterator[Violation]]] = [
        judge_answers,
        judge_lists,
        judge_counters,
        judge_registers,
        judge_channels,
        judge_sessions,
        judge_left_sessions,
        judge_expiries,
    ]
    return [violation for rule in rules for violation in rule(history)]


def judge_answers(history: History) -> Iterator[Violation]:
    """Who calls gets the answer to what was called."""
    for call in history.calls:
        if call.outcome is Outcome.CONFUSED:
            yield Violation("answer", call.key, "that is no answer to such a call", (call,))


def judge_lists(history: History) -> Iterator[Violation]:
    """Items that were acknowledged are in their list, at the index that was told, once, in the order of each client.

    ``add`` has a token, its answer is the index; ``list`` is answered with the tokens.
    """
    reads = history.by_key("list")
    for key, adds in history.by_key("add").items():
        of_token = {add.given: add for add in adds}
        indices: dict[int, Call] = {}
        for add in adds:
            if add.done and not history.losses and (other := indices.setdefault(add.answer, add)) is not add:
                yield Violation("list", key, f"two items were told that they have the index {add.answer}", (other, add))
        done = sorted((read for read in reads.get(key, ()) if read.done), key=lambda read: read.begun)
        for read in done:
            yield from _read_of_list(history, read, adds, of_token)
        for before, after in pairwise(done):
            if before.ended < after.begun and not history.lost_since(adds[0].begun, after.ended):
                common = after.answer[: len(before.answer)]
                if common != before.answer:
                    yield Violation("list", key, "what was read before is not there any more", (before, after))


def _read_of_list(history: History, read: Call, adds: Sequence[Call], of_token: dict[str, Call]) -> Iterator[Violation]:
    lossy = history.lost_since(adds[0].begun, read.ended)
    seen: set[str] = set()
    last: dict[str, Call] = {}
    for index, token in enumerate(read.answer):
        add = of_token.get(token)
        if add is None or add.begun > read.ended:
            yield Violation("list", read.key, f"{token} was added by nobody", (read,))
            continue
        if token in seen:
            yield Violation("list", read.key, f"{token} is there twice", (add, read))
        seen.add(token)
        if add.outcome is Outcome.REFUSED:
            yield Violation("list", read.key, f"{token} was refused, and is there", (add, read))
        before = last.get(add.client)
        if before is not None and before.number > add.number:
            yield Violation("list", read.key, f"{token} stands after a later one of its client", (add, before, read))
        last[add.client] = add
        if add.done and add.answer != index and not lossy:
            yield Violation("list", read.key, f"{token} is at {index}, and was told {add.answer}", (add, read))
    for add in adds:
        if (
            add.done
            and add.ended < read.begun
            and add.given not in seen
            and not history.lost_since(add.begun, read.ended)
        ):
            yield Violation("list", read.key, f"{add.given} was acknowledged, and is not there", (add, read))


def judge_counters(history: History) -> Iterator[Violation]:
    """A counter is what its successes made of it: each number was made once.

    ``update`` is given the number that was seen, and answered whether it put the next one there; ``count`` is answered
    with the number.
    """
    counts = history.by_key("count")
    for key, updates in history.by_key("update").items():
        if history.lost_since(updates[0].begun, math.inf):
            continue  # the same number may have been made once more
        made: dict[int, Call] = {}
        for update in updates:
            if update.done and update.answer and (other := made.setdefault(update.given, update)) is not update:
                yield Violation("counter", key, f"two succeeded from {update.given}", (other, update))
        maybe = {update.given: update for update in updates if update.outcome in OPEN}
        reads = sorted((read for read in counts.get(key, ()) if read.done), key=lambda read: read.ended)
        for read in reads:
            unmade = [number for number in range(read.answer) if number not in made and number not in maybe]
            if unmade:
                around = [update for update in updates if update.given == unmade[0]]
                text = f"it is {read.answer}, and nobody made {unmade[0] + 1} of {unmade[0]}"
                yield Violation("counter", key, text, (*around, read))
        rises = [(update, update.given + 1) for update in updates if update.done and update.answer]
        yield from _goes_back(history, "counter", key, rises, reads)


def judge_registers(history: History) -> Iterator[Violation]:
    """A register is what its only writer put there last: no read shows less than was acknowledged or read before it.

    ``write`` is given a number that rises; ``read`` is answered with the number, 0: nothing is there.
    """
    reads = history.by_key("read")
    for key, writes in history.by_key("write").items():
        of_number = {write.given: write for write in writes}
        done = []
        for read in reads.get(key, ()):
            if not read.done:
                continue
            write = of_number.get(read.answer)
            if read.answer and (write is None or write.begun > read.ended):
                yield Violation("register", key, f"{read.answer} was never written", (read,))
                continue
            done.append(read)
            if write is not None and write.outcome is Outcome.REFUSED:
                yield Violation("register", key, f"{read.answer} was refused, and is there", (write, read))
        yield from _goes_back(history, "register", key, [(write, write.given) for write in writes if write.done], done)


def _goes_back(
    history: History, rule: str, key: str, rises: Sequence[tuple[Call, int]], reads: Sequence[Call]
) -> Iterator[Violation]:
    """Compare each read with the greatest number that was told before it began."""
    told = sorted([*rises, *((read, read.answer) for read in reads)], key=lambda each: each[0].ended)
    place, newest = 0, (0, -1)  # number, and where it is told
    for read in sorted(reads, key=lambda read: read.begun):
        while place < len(told) and told[place][0].ended < read.begun:
            newest = max(newest, (told[place][1], place))
            place += 1
        if read.answer >= newest[0]:
            continue
        teller = told[newest[1]][0]
        if history.losses:
            kept = [each for each in told[:place] if not history.lost_since(each[0].begun, read.ended)]
            teller, number = max(kept, key=lambda each: each[1], default=(read, read.answer))
            if read.answer >= number:
                continue
        yield Violation(rule, key, f"it went back to {read.answer}", (teller, read))
