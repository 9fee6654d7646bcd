"""Random histories of one session's worker: sockets come and go, owners move, links break, and the session ends.

A seed that fails is run alone by ``FUZZ_SEEDS=<seed> pytest tests/unit/store_client/test_client_session_model.py``;
a range of them by ``FUZZ_SEEDS=<first>-<last>``.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import msgspec
import pytest
from support.store_client.hand_fed import HandFed
from support.store_client.simulated_stores import SimulatedStores, Store, tried

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client import resync
from socketcluster_store_client.errors import SessionOverError
from socketcluster_store_client.messages import Error, Operation
from socketcluster_store_client.partitioning import partition_of

ATTACH = store_pb2.VERB_SESSION_ATTACH
DETACH = store_pb2.VERB_SESSION_DETACH
CHECK = store_pb2.VERB_SESSION_CHECK
NUMBER = partition_of("s")
OVER = Error(store_pb2.Error.CODE_SESSION_OVER, "the session was renewed or ended", "")


class Session(SimulatedStores):
    """The stores of one session."""

    def __init__(self, random: Random, fed: HandFed) -> None:
        super().__init__(random, fed, NUMBER)
        self.exists = False
        self.is_held = False
        self.is_over = False
        """Was it ended on purpose, and is that remembered?"""
        self.ends = 0

    def begin(self) -> None:
        """Have nobody hold the session: workers say that to each owner, on each link."""
        self.is_held = False

    def end(self, *, on_purpose: bool) -> None:
        """End the session, if it may end now, and tell of that."""
        if self.exists and (on_purpose or not self.is_held):
            assert self.owner is not None
            self.exists, self.is_held, self.is_over = False, False, on_purpose
            self.ends += 1
            ended = store_pb2.SessionDestroyed(session_id="s", on_purpose=on_purpose)
            self.owner.out.append(store_pb2.Event(session_destroyed=ended))

    def may_fail(self, operation: Operation) -> bool:
        return True

    def carry_out(self, store: Store, operation: Operation) -> Any:
        if operation.verb == ATTACH:
            if self.is_over:
                return OVER
            existed, self.exists, self.is_held = self.exists, True, True
            return existed
        if operation.verb == DETACH:
            self.is_held = False
            return None
        assert operation.verb == CHECK
        return [] if self.exists else msgspec.msgpack.decode(operation.value)


class Sockets:
    """The session's sockets on this worker: some or none."""

    def __init__(self, fed: HandFed) -> None:
        self._client = fed.client
        self.are_here = False

    def come(self) -> None:
        """Have the first one come."""
        self.are_here = True
        self._client.attach("s").add_done_callback(self._attached)

    def go(self) -> None:
        """Have the last one go, if there is one."""
        if self.are_here:
            self.are_here = False
            self._client.detach("s").add_done_callback(lambda done: done.exception())

    def _attached(self, done: asyncio.Future[bytes]) -> None:
        if isinstance(done.exception(), SessionOverError):
            self.go()


async def history(seed: int) -> str:
    """Play a history; return what was wrong."""
    random = Random(seed)
    fed = HandFed()
    stores = Session(random, fed)
    sockets = Sockets(fed)
    fed.over = lambda _session_id: sockets.go()  # they are closed
    stores.move()
    for _ in range(random.randint(10, 150)):
        at = random.random()
        if at < 0.25:
            stores.serve(stores.any(), random.randint(1, 3))
        elif at < 0.55:
            stores.deliver(stores.any(), random.randint(1, 4))
            await asyncio.sleep(0)
        elif at < 0.7:
            if sockets.are_here:
                sockets.go()
            else:
                sockets.come()
        elif at < 0.78:
            stores.end(on_purpose=False)
        elif at < 0.8:
            stores.end(on_purpose=True)
        elif at < 0.82:
            stores.is_over = False
        elif at < 0.87:
            stores.move()
        elif at < 0.9:
            stores.break_link(stores.any())
        elif at < 0.95:
            stores.tell_again()
        else:
            await asyncio.sleep(0)
    for store in stores.stores:
        store.announce()
    for _ in range(60):
        stores.settle()
        await asyncio.sleep(0)
    wrong = stores.left()
    if stores.is_held != sockets.are_here:
        wrong = f"sockets are here: {sockets.are_here}; the owner thinks: {stores.is_held}"
    elif len(fed.destroyed) > stores.ends:
        wrong = f"{len(fed.destroyed)} ends were told, and there were {stores.ends}"
    elif not sockets.are_here and not stores.exists and (states := fed.client._routes[NUMBER].sessions.states):
        wrong = f"{states} are remembered for ever"
    await fed.client.close()
    return wrong


async def test_the_owner_knows_what_is_here_and_each_end_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resync, "RETRY_PAUSE", 3600)  # the history says when it is told again
    assert await tried(history, 600) == {}
