"""Three stores that share one partition, as seen from one worker: whatever is on the way comes when a test says so.

A link keeps its order, and different links keep none between them. Whoever owns the partition carries out what it is
sent with its epoch, and refuses everything else; a former owner's words may come at any time until its link breaks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable
from random import Random
from typing import Any

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.messages import Error, Operation, Result, encode_results
from support.store_client.hand_fed import FedLink, HandFed, encode, sent

NOT_OWNER = Error(store_pb2.Error.CODE_NOT_OWNER, "this store does not own the partition", "")
DISK_FULL = Error(store_pb2.Error.CODE_INTERNAL, "the disk is full", "")

Sent = int | Result | store_pb2.Event
"""What a store has sent: the epoch that it owns the partition with (0: it does not), a result or an event."""


class Store:
    """One store, and what is on the way from it and to it."""

    def __init__(self, link: FedLink) -> None:
        self.link = link
        self.epoch = 0
        """What it owns the partition with; 0: it does not."""
        self.out: list[Sent] = []
        self.inbox: list[Operation] = []

    def announce(self) -> None:
        """Say whether it owns the partition."""
        self.out.append(self.epoch)


class SimulatedStores:
    """The stores; subclasses say what an operation does there, and what becomes of it when owners and links change."""

    def __init__(self, random: Random, fed: HandFed, partition: int) -> None:
        self.random = random
        self.fed = fed
        self.stores = [Store(fed.link()) for _ in range(3)]
        self.owner: Store | None = None
        self.failing = True
        """Does an owner refuse some of what it is asked?"""
        self._partition = partition
        self._epoch = 1

    def carry_out(self, store: Store, operation: Operation) -> Any:
        """Return what the owner answers to an operation; ``Error``: a refusal."""
        raise NotImplementedError

    def may_fail(self, operation: Operation) -> bool:
        """May the owner refuse an operation?"""
        raise NotImplementedError

    def begin(self) -> None:
        """Have what an owner has in memory begin anew, or be no more."""

    def any(self) -> Store:
        """Choose a store."""
        return self.random.choice(self.stores)

    def move(self) -> None:
        """Have a store own the partition, maybe the same again; the former one does not always say that it is none."""
        former, self.owner = self.owner, self.any()
        if former is not None:
            former.epoch = 0
            if self.random.random() < 0.7:
                former.announce()
        self._epoch += 1
        self.owner.epoch = self._epoch
        self.begin()
        self.owner.announce()

    def break_link(self, store: Store) -> None:
        """Lose all that is on the way from a store and to it, and link again."""
        store.out, store.inbox = [], []
        store.link.restarting = False
        store.link._outbox.clear()
        self.fed.client.on_broken(store.link)
        if store is self.owner:
            self.begin()
        store.announce()

    def serve(self, store: Store, at_most: int) -> None:
        """Have a store take what was sent to it, and carry some of it out; by then a link has begun anew that is to."""
        if store.link.restarting:
            self.break_link(store)
        store.inbox += sent(store.link)
        operations, store.inbox = store.inbox[:at_most], store.inbox[at_most:]
        for operation in operations:
            if not store.epoch or operation.epoch != store.epoch:
                answer: Any = NOT_OWNER
            elif self.failing and self.may_fail(operation) and self.random.random() < 0.25:
                answer = DISK_FULL
            else:
                answer = self.carry_out(store, operation)
            error = answer if isinstance(answer, Error) else None
            store.out.append(Result(operation.id, b"" if error else encode(answer), error))

    def deliver(self, store: Store, at_most: int) -> None:
        """Have some of what a store sent come, in one reply; what follows a session's end comes in a later one."""
        reply = store_pb2.LinkReply()
        results: list[Result] = []
        ended = False
        for _ in range(at_most):
            if not store.out or (ended and not isinstance(store.out[0], store_pb2.Event)):
                break
            item = store.out.pop(0)
            if isinstance(item, Result):
                results.append(item)
            elif isinstance(item, store_pb2.Event):
                ended = ended or item.HasField("session_destroyed")
                reply.events.append(item)
            else:
                owned = [store_pb2.Ownership(partition=self._partition, epoch=item)] if item else []
                reply.announcement.CopyFrom(store_pb2.Announcement(store_id="simulated", partitions=owned))
        if results:
            reply.results = encode_results(results)
        self.fed.client.on_reply(store.link, reply)

    def tell_again(self) -> None:
        """Have the worker tell now what it could not."""
        untold = self.fed.client._untold
        if untold._timer is not None:
            untold._timer.cancel()
            untold._on_timer()

    def settle(self) -> None:
        """Have what is on the way come, and nothing fail; call it some times, with turns of the loop in between."""
        self.failing = False
        for store in self.stores:
            self.serve(store, 5)
            self.deliver(store, 5)
        self.tell_again()

    def left(self) -> str:
        """Return what the worker still waits for, or remembers in vain; call it when all is settled."""
        client = self.fed.client
        stale = any(store.link.stale for store in self.stores)
        if client._pending or client._renewing or stale or any(route.untold for route in client._routes):
            return "something is still waited for"
        return ""


def seeds(count: int) -> Iterable[int]:
    """Return the seeds to be tried: so many, or those that the environment names (``FUZZ_SEEDS=626``, ``0-20000``)."""
    chosen = os.environ.get("FUZZ_SEEDS")
    if chosen is None:
        return range(count)
    first, _, last = chosen.partition("-")
    return range(int(first), int(last or first) + 1)


async def tried(run: Callable[[int], Coroutine[Any, Any, str]], count: int) -> dict[int, str]:
    """Run a history with each seed; return what was wrong, by seed."""
    outcomes = {seed: await run(seed) for seed in seeds(count)}
    return {seed: wrong for seed, wrong in outcomes.items() if wrong}
