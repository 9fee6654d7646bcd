"""What becomes of clients' states when the store does not do what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest
from support.log import WrittenLog

from socketcluster_proto.v1 import store_pb2 as pb
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.errors import LinkError, OperationError, StoreUnavailableError
from socketcluster_worker.api.data.values import pack, unpack
from socketcluster_worker.api.sockets.recovery_states import RecoveryState, RecoveryStates

STATE: dict[str, Any] = {"session": "s", "data": {}}
KEPT = pack([[True, None], True])
TAKEN_BY_ANOTHER = pack([[False, None], False])
LOG = "clients' states could not be kept or read"


class Store:
    """Answers operations with what a test says, one after the other."""

    def __init__(self) -> None:
        self.answers: list[bytes | LinkError] = []
        self.asked: list[tuple[int, bytes]] = []

    def call(self, verb: int, *, value: bytes = b"", **_: Any) -> asyncio.Future[bytes]:
        self.asked.append((verb, value))
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        answer = self.answers.pop(0)
        if isinstance(answer, bytes):
            done.set_result(answer)
        else:
            done.set_exception(answer)
        return done

    @property
    def verbs(self) -> list[int]:
        return [verb for verb, _ in self.asked]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def states(store: Store) -> Iterator[RecoveryStates]:
    made = RecoveryStates(cast(StoreClient, store), 60)
    yield made
    for state in tuple(made._due):
        state.leave()


def refused() -> OperationError:
    return OperationError("refused")


async def keep(states: RecoveryStates, store: Store) -> RecoveryState:
    """Return a state that the store keeps."""
    state = states.new()
    store.answers.append(KEPT)
    await state.keep(STATE, connected=True)
    return state


async def test_the_last_state_is_kept_for_the_window_and_not_renewed(states: RecoveryStates, store: Store) -> None:
    state = await keep(states, store)
    assert len(states) == 1
    store.answers.append(KEPT)
    await state.keep(STATE, connected=False)
    assert (len(states), state.over) == (0, True)
    seconds = [unpack(unpack(value)[1][2]) for _, value in store.asked]
    assert seconds == [75.0, 60.0]
    await state.keep(STATE, connected=True)
    await state.drop()
    assert len(store.asked) == 2  # it is over, so nothing more is asked


async def test_data_without_a_form_leave_what_is_kept(
    states: RecoveryStates, store: Store, service_log: WrittenLog
) -> None:
    state = await keep(states, store)
    await state.keep(STATE | {"data": {"x": object()}}, connected=False)
    assert store.verbs == [pb.VERB_TRANSACTION]
    assert (len(states), state.over) == (1, False)
    assert ["cannot be kept, so it cannot recover" in line for line in service_log.lines] == [True]
    store.answers.append(KEPT)
    await state.keep(STATE, connected=True)
    assert not state.over


@pytest.mark.parametrize("error", [refused(), StoreUnavailableError("no store")])
async def test_a_failure_is_told_unless_no_store_answers_at_all(
    states: RecoveryStates, store: Store, service_log: WrittenLog, error: LinkError
) -> None:
    state = await keep(states, store)
    store.answers += [error] * 6
    store.answers.insert(4, pack(STATE))
    await state.keep(STATE, connected=True)
    assert await states.look("ticket") is None
    assert await states.take("ticket") is None
    await state.drop()
    assert await states.look("ticket") is None  # the state is there, and it is not known if its session is
    assert (state.over, len(states)) == (True, 0)
    told = [line for line in service_log.lines if LOG in line]
    assert len(told) == (0 if isinstance(error, StoreUnavailableError) else 1)


async def test_a_state_that_another_worker_has_is_left_to_it(states: RecoveryStates, store: Store) -> None:
    state = await keep(states, store)
    store.answers.append(TAKEN_BY_ANOTHER)
    await state.keep(STATE, connected=True)
    assert (state.over, len(states)) == (True, 0)
    await state.drop()
    assert store.verbs == [pb.VERB_TRANSACTION] * 2


async def test_a_state_that_is_another_by_now_is_not_dropped(states: RecoveryStates, store: Store) -> None:
    first, second = await keep(states, store), await keep(states, store)
    store.answers += [pack([False, None]), pack([True, None]), pack(True)]
    await first.drop()
    await second.drop()
    assert store.verbs[2:] == [pb.VERB_UPDATE, pb.VERB_UPDATE, pb.VERB_REMOVE]


@pytest.mark.parametrize("ticket", [None, 5, "", "x" * 65, "é", ["x"]])
async def test_what_can_be_no_ticket_is_not_looked_for(states: RecoveryStates, store: Store, ticket: object) -> None:
    assert await states.look(ticket) is None
    assert store.asked == []


async def test_what_is_no_state_is_not_given(states: RecoveryStates, store: Store) -> None:
    store.answers += [pack(None), pack("text"), pack(STATE), pack(["s"]), pack(STATE), pack([])]
    assert [await states.look("ticket") for _ in range(4)] == [None, None, None, STATE]
    store.answers += [pack(None), pack(STATE)]
    assert [await states.take("ticket") for _ in range(2)] == [None, STATE]


async def test_an_expiry_that_cannot_be_put_off_now_is_put_off_later(states: RecoveryStates, store: Store) -> None:
    state = await keep(states, store)
    store.answers += [refused(), pack(True)]
    state.put_off()
    state.put_off()
    await asyncio.sleep(0)
    assert store.verbs[1:] == [pb.VERB_EXPIRE] * 2
    assert not state.over
