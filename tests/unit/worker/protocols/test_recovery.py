"""Socket.IO's connection state recovery, packet by packet, on two workers."""

from __future__ import annotations

import asyncio
import json
from hashlib import blake2b
from typing import Any

import pytest
from support.clients.raw import RawWebSocket, frame
from support.worker.running import Probe, RunningWorker, StartWorker, until

from socketcluster_store_client import client as client_module
from socketcluster_store_client import resync
from socketcluster_store_client.errors import StoreUnavailableError
from socketcluster_store_client.messages import Position
from socketcluster_worker.api.data.values import pack
from socketcluster_worker.api.sockets.action import Action
from socketcluster_worker.api.sockets.broadcast import Broadcast
from socketcluster_worker.api.sockets.broadcast_log import BroadcastLog
from socketcluster_worker.api.sockets.recovery_states import AT_ONCE, RecoveryState, RecoveryStates
from socketcluster_worker.errors import EventError

PATH = "/socket.io/?EIO=4&transport=websocket"
Workers = list[RunningWorker]


class Client:
    """A client that remembers what it recovers with."""

    def __init__(self, websocket: RawWebSocket, told: dict[str, Any]) -> None:
        self.websocket = websocket
        self.sid: str = told["sid"]
        self.pid: str = told["pid"]
        self.offset: str | None = None
        self.events: list[list[Any]] = []

    @classmethod
    async def connect(cls, worker: RunningWorker, cookie: str = "", **auth: Any) -> Client:
        websocket = await worker.websocket(PATH, **({"Cookie": cookie} if cookie else {}))
        await websocket.next()
        await websocket.send_text("40" + (json.dumps(auth) if auth else ""))
        return cls(websocket, json.loads((await websocket.next_text())[2:]))

    async def next(self) -> list[Any]:
        """Return the next event without its offset, which is the last argument."""
        text = await self.websocket.next_text()
        event: list[Any] = json.loads(text[text.index("[") :])
        self.offset = event.pop()
        return event

    async def lose(self, probe: Probe) -> None:
        """Lose the connection."""
        self.websocket.client.abort()
        assert (await probe.ends.get())[1] == 1006


@pytest.fixture
async def workers(start_worker: StartWorker, probe: Probe) -> Workers:
    return [await start_worker(probe.run, recovery_window=60) for _ in range(2)]


async def heard_last(workers: Workers, text: str) -> None:
    """Wait until every worker has heard a broadcast."""

    def heard(worker: RunningWorker) -> bool:
        broadcast_log = worker.worker.ws_server.broadcast_log
        assert broadcast_log is not None
        return bool(broadcast_log._entries) and broadcast_log._entries[-1].emission().args == (text,)

    await until(lambda: all(map(heard, workers)))


async def state_of(worker: RunningWorker, pid: str) -> Any:
    """Return what the store keeps for a ticket."""
    key = "\0recovery\0" + blake2b(pid.encode(), digest_size=16).hexdigest()
    return await worker.worker.store.get(key)


async def kept(worker: RunningWorker, client: Client, **wanted: Any) -> None:
    """Wait until the store keeps a client's state, and in it what is wanted."""
    while True:
        state = await state_of(worker, client.pid)
        if state is not None and all(state[name] == value for name, value in wanted.items()):
            return


@pytest.mark.parametrize("home", [0, 1])
async def test_a_client_recovers_on_any_worker(workers: Workers, probe: Probe, home: int) -> None:
    client = await Client.connect(workers[0])
    socket = await probe.sockets.get()
    socket.join("room")
    socket.data["kept"] = 1
    server = workers[0].worker.ws_server
    server.emit("news", "before")
    assert await client.next() == ["news", "before"]
    await client.lose(probe)
    server.to("room").emit("news", "missed in the room")
    server.to("another room").emit("news", "not mine")
    server.volatile.emit("news", "volatile")
    server.to(client.sid).emit("news", "missed by id")
    await heard_last(workers, "missed by id")
    again = await Client.connect(workers[home], pid=client.pid, offset=client.offset)
    assert again.sid == client.sid
    assert again.pid == client.pid  # by which npm's client knows that it has recovered
    assert [await again.next() for _ in range(2)] == [["news", "missed in the room"], ["news", "missed by id"]]
    recovered = await probe.sockets.get()
    assert recovered.recovered
    assert recovered.rooms == {"room", client.sid}
    assert recovered.data == {"kept": 1}
    assert recovered.session.id == socket.session.id
    recovered.emit("news", "after")
    assert await again.next() == ["news", "after"]


async def test_a_client_that_got_nothing_recovers_too(workers: Workers, probe: Probe) -> None:
    workers[0].worker.ws_server.emit("news", "before it came")
    await heard_last(workers, "before it came")
    client = await Client.connect(workers[0])
    await probe.sockets.get()
    await client.lose(probe)
    workers[0].worker.ws_server.emit("news", "missed")
    await heard_last(workers, "missed")
    again = await Client.connect(workers[1], pid=client.pid)
    assert again.sid == client.sid
    assert await again.next() == ["news", "missed"]


@pytest.mark.parametrize("case", ["unknown pid", "pid of no form", "offset too old", "sent away"])
async def test_a_client_that_cannot_recover_begins_anew(workers: Workers, probe: Probe, case: str) -> None:
    server = workers[0].worker.ws_server
    client = await Client.connect(workers[0])
    socket = await probe.sockets.get()
    server.emit("news", "before")
    await client.next()
    if case == "sent away":
        socket.disconnect()
        assert await client.websocket.next_text() == "41"
        await probe.ends.get()
    else:
        await client.lose(probe)
    if case == "offset too old":
        broadcast_log = server.broadcast_log
        assert broadcast_log is not None
        broadcast_log._entries.clear()
        server.emit("news", "what is kept begins here")
        server.emit("news", "and goes on")
        await heard_last(workers[:1], "and goes on")
        client.offset = client.offset and client.offset.rpartition("-")[0] + "-0"
    pids = {"unknown pid": client.pid + "x", "pid of no form": "x"}
    again = await Client.connect(workers[0], pid=pids.get(case, client.pid), offset=client.offset)
    fresh = await probe.sockets.get()
    assert again.sid != client.sid
    assert again.pid != client.pid
    assert not fresh.recovered


@pytest.mark.parametrize("home", [0, 1])
async def test_a_client_that_recovers_takes_its_old_connection_s_place(
    workers: Workers, probe: Probe, home: int
) -> None:
    client = await Client.connect(workers[0])
    old = await probe.sockets.get()
    old.join("room")
    await kept(workers[0], client, rooms=["room"])
    again = await Client.connect(workers[home], pid=client.pid)  # the old one is half-open, say
    assert again.sid == client.sid
    new = await probe.sockets.get()
    assert await probe.ends.get() == (old, 4100, "another connection took this one's place")
    assert not old.connected
    assert await client.websocket.next_close() == (4100, "another connection took this one's place")
    server = workers[1 - home].worker.ws_server
    server.to("room").emit("news", "by the room")
    server.to(new.id).emit("news", "by the id")
    new.session.emit("news", "by the session")
    heard = {(await again.websocket.next_text()).partition(",")[2].split('"')[1] for _ in range(3)}
    assert heard == {"by the room", "by the id", "by the session"}
    assert [len(worker.worker.ws_server.sockets) for worker in workers] == [1 - home, home]
    assert new.session.sockets == (new,)
    await again.lose(probe)


async def test_an_offset_comes_behind_the_attachments_placeholders(workers: Workers, probe: Probe) -> None:
    client = await Client.connect(workers[0])
    (await probe.sockets.get()).emit("bytes", b"\1")
    assert await client.next() == ["bytes", {"_placeholder": True, "num": 0}]
    assert client.offset
    await client.websocket.next()


async def test_without_the_option_there_is_nothing_to_recover_with(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.websocket(PATH)
    await websocket.next()
    await websocket.send(frame('40{"pid":"x","offset":"1-1"}'))
    assert set(json.loads((await websocket.next_text())[2:])) == {"sid"}
    socket = await probe.sockets.get()
    assert not socket.recovered
    socket.emit("news", 1)
    assert await websocket.next_text() == '42["news",1]'


Case = tuple[bool, str]


async def test_a_worker_without_recovery_reaches_by_their_ids_those_who_recovered_elsewhere(
    workers: Workers, start_worker: StartWorker, probe: Probe
) -> None:
    without = (await start_worker(probe.run)).worker.ws_server
    logs = [worker.worker.ws_server.broadcast_log for worker in workers]
    await until(lambda: all(log is not None and log.latest is not None for log in logs))  # there is a start
    client = await Client.connect(workers[0])
    await probe.sockets.get()
    await kept(workers[0], client)
    await client.lose(probe)
    again = await Client.connect(workers[1], pid=client.pid)
    assert again.sid == client.sid
    await probe.sockets.get()
    there = without._mesh.neighbours[workers[1].worker.id].bit
    await until(lambda: without._mesh.find("/", [again.sid]) & there)
    without.to(again.sid).emit("news", "by id")
    assert await again.websocket.next_text() == '42["news","by id"]'
    await again.lose(probe)
    await until(lambda: not without._mesh.find("/", [again.sid]) & there)


@pytest.mark.parametrize("shown", ["none", "its own", "another"])
@pytest.mark.parametrize("had", [True, False])
async def test_a_ticket_belongs_to_the_cookie_if_there_is_one(
    workers: Workers, probe: Probe, had: bool, shown: str
) -> None:
    first = await Client.connect(workers[0])
    cookie = first.websocket.response.headers["set-cookie"].partition(";")[0]
    session = (await probe.sockets.get()).session.id
    client = await Client.connect(workers[0], cookie=cookie) if had else first
    if had:
        await probe.sockets.get()
    other = await Client.connect(workers[1])
    await probe.sockets.get()
    another = other.websocket.response.headers["set-cookie"].partition(";")[0]
    await kept(workers[0], client)
    again = await Client.connect(
        workers[1], cookie={"none": "", "its own": cookie, "another": another}[shown], pid=client.pid
    )
    socket = await probe.sockets.get()
    recovers = shown == "its own" or (shown == "none" and not had)
    assert socket.recovered is recovers
    assert (again.sid == client.sid) is recovers
    assert (socket.session.id == session) is recovers
    if recovers:
        await probe.ends.get()
    elif had:  # the ticket of which somebody else knows is good for its own client still
        assert (await Client.connect(workers[0], cookie=cookie, pid=client.pid)).sid == client.sid
        await probe.ends.get()


async def test_a_ticket_belongs_to_a_cookie_from_when_it_is_shown(workers: Workers, probe: Probe) -> None:
    client = await Client.connect(workers[0])
    await probe.sockets.get()
    await kept(workers[0], client, has_cookie=False)
    cookie = client.websocket.response.headers["set-cookie"].partition(";")[0]
    await Client.connect(workers[0], cookie=cookie)
    await kept(workers[0], client, has_cookie=True)
    assert (await Client.connect(workers[1], pid=client.pid)).sid != client.sid


async def test_a_ticket_says_nothing_and_its_state_is_given_once(workers: Workers, probe: Probe) -> None:
    client = await Client.connect(workers[0])
    socket = await probe.sockets.get()
    assert socket.session.id not in client.pid
    assert socket.id not in client.pid
    assert len(client.pid) >= 22
    await client.lose(probe)
    await kept(workers[0], client, connected=False)
    states = [worker.worker.ws_server.recovery_states for worker in workers]
    taken = await asyncio.gather(*(each.take(client.pid) for each in states if each is not None))
    assert sorted(state is None for state in taken) == [False, True]
    assert (await Client.connect(workers[1], pid=client.pid)).sid != client.sid


async def test_a_client_recovers_again_and_again_with_its_ticket(workers: Workers, probe: Probe) -> None:
    client = first = await Client.connect(workers[0])
    for home in (1, 0, 1):
        await client.lose(probe)
        await kept(workers[0], client, connected=False)
        client = await Client.connect(workers[home], pid=first.pid)
        assert (client.sid, client.pid) == (first.sid, first.pid)


async def test_a_worker_waits_until_it_has_heard_what_its_client_has(workers: Workers, probe: Probe) -> None:
    client = await Client.connect(workers[0])
    await probe.sockets.get()
    workers[0].worker.ws_server.emit("news", "heard there")
    assert await client.next() == ["news", "heard there"]
    await heard_last(workers, "heard there")
    await client.lose(probe)
    await kept(workers[0], client, connected=False)
    broadcast_log = workers[1].worker.ws_server.broadcast_log
    assert broadcast_log is not None
    behind = broadcast_log._entries.pop()
    broadcast_log.latest = Position(behind.position.epoch, behind.position.offset - 1)
    coming = asyncio.create_task(Client.connect(workers[1], pid=client.pid, offset=client.offset))
    await until(lambda: broadcast_log._news is not None)
    broadcast_log.append(behind.position, behind.choice, behind.event, behind.args)
    assert (await coming).sid == client.sid


async def test_what_no_worker_has_heard_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socketcluster_worker.api.sockets.broadcast_log.HEAR_TIMEOUT", 0.001)
    broadcast_log = BroadcastLog(60)
    broadcast_log.begin(Position(7, 3))
    await broadcast_log.hear(Position(7, 3))
    await broadcast_log.hear(Position(7, 99))
    await broadcast_log.hear(Position(8, 99))


async def test_a_worker_that_has_not_heard_of_the_recovery_drops_nothing(workers: Workers, probe: Probe) -> None:
    client = await Client.connect(workers[0])
    await probe.sockets.get()
    await kept(workers[0], client)
    states = workers[0].worker.ws_server.recovery_states
    assert states is not None
    (state,) = states._due
    again = await Client.connect(workers[1], pid=client.pid)
    await probe.ends.get()
    await kept(workers[1], again)
    state.over = False  # as it is until it hears
    await state.drop()
    await kept(workers[1], again)
    await again.lose(probe)
    assert (await Client.connect(workers[0], pid=client.pid)).sid == client.sid


@pytest.mark.parametrize("end", ["the client leaves", "it is sent away", "it is lost"])
async def test_what_is_kept_is_dropped(start_worker: StartWorker, probe: Probe, end: str) -> None:
    worker = await start_worker(probe.run, recovery_window=1)
    client = await Client.connect(worker)
    socket = await probe.sockets.get()
    await kept(worker, client)
    server = worker.worker.ws_server
    assert server.recovery_states is not None
    assert len(server.recovery_states) == 1
    if end == "the client leaves":
        await client.websocket.send_text("41")
        await probe.ends.get()
    elif end == "it is sent away":
        socket.disconnect()
        await probe.ends.get()
    else:
        await client.lose(probe)
    while await state_of(worker, client.pid) is not None:
        pass
    assert await socket.session.get_all() == {}
    assert len(server.recovery_states) == 0
    again = await Client.connect(worker, pid=client.pid)
    assert again.sid != client.sid


async def test_what_is_kept_of_a_connected_client_does_not_expire(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, recovery_window=2)
    client = await Client.connect(worker)
    await probe.sockets.get()
    await kept(worker, client)
    server = worker.worker.ws_server
    assert server.recovery_states is not None
    state = next(iter(server.recovery_states._due))
    renewals = {server.recovery_states._due[state]}
    while len(renewals) < 6:  # more than the window
        await state_of(worker, client.pid)
        renewals.add(server.recovery_states._due[state])
    again = await Client.connect(worker, pid=client.pid)
    assert again.sid == client.sid
    await probe.ends.get()


async def test_one_timer_puts_all_expiries_off(worker: RunningWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    states = RecoveryStates(worker.worker.ws_server.sessions.client, 0.04)
    put_off: list[RecoveryState] = []
    monkeypatch.setattr(RecoveryState, "put_off", lambda state: put_off.append(state))  # a method, as append is not
    armed: list[RecoveryStates] = []
    arm = RecoveryStates._arm

    def counted(self: RecoveryStates) -> None:
        armed.append(self)
        arm(self)

    monkeypatch.setattr(RecoveryStates, "_arm", counted)
    kept = [states.new() for _ in range(AT_ONCE + 3)]
    for state in kept:
        states.renew(state)
    assert len(armed) == 1
    await until(lambda: len(put_off) > 5 * len(kept))
    assert max(map(put_off.count, kept)) - min(map(put_off.count, kept)) <= 1  # one after the other
    for state in kept:
        states.forget(state)
    assert states._timer is None


async def test_a_state_whose_session_has_ended_is_not_given(workers: Workers, probe: Probe) -> None:
    client = await Client.connect(workers[0])
    await probe.sockets.get()
    await kept(workers[0], client)
    key = "\0recovery\0" + blake2b(client.pid.encode(), digest_size=16).hexdigest()
    await workers[0].worker.store.set([key, "session"], "of a session that nobody has")
    assert (await Client.connect(workers[1], pid=client.pid)).sid != client.sid


@pytest.mark.parametrize("allowed", [True, False])
async def test_the_middleware_judges_the_session_that_the_client_ends_up_with(
    workers: Workers, probe: Probe, allowed: bool
) -> None:
    client = await Client.connect(workers[0])
    old = await probe.sockets.get()
    old.join("room")
    await client.lose(probe)
    await kept(workers[0], client, connected=False)
    seen: list[Any] = []

    def judge(action: Action) -> None:
        seen.append((action.socket.session.id, action.socket.id, action.socket.rooms, action.socket.recovered))
        if not allowed:
            raise EventError("no")

    workers[1].worker.ws_server.use("handshake", judge)
    websocket = await workers[1].websocket(PATH)
    await websocket.next()
    await websocket.send_text("40" + json.dumps({"pid": client.pid}))
    assert (await websocket.next_text()).startswith("40" if allowed else "44")
    assert seen == [(old.session.id, old.id, {"room", old.id}, True)]


def test_the_broadcast_log_has_a_limit_in_bytes() -> None:
    broadcast_log = BroadcastLog(3600)
    choice = Broadcast(None)  # type: ignore[arg-type]
    for offset in range(1, 1001):
        broadcast_log.append(Position(1, offset), choice, "news", pack(("x" * 100_000,)))
        assert broadcast_log.size <= 16 * 1024 * 1024
    assert broadcast_log.since(Position(1, 999)) is not None
    assert broadcast_log.since(Position(1, 1)) is None
    for offset in range(1001, 1101):
        broadcast_log.append(Position(1, offset), choice, "news", pack(("x",)))
    assert broadcast_log.size == sum(entry.size for entry in broadcast_log._entries)
    broadcast_log.append(Position(1, 1101), choice, "news", pack(("x" * 20_000_000,)))
    assert broadcast_log.since(Position(1, 1100)) is not None  # one is always kept
    many = Broadcast(None, frozenset(f"room {number}" for number in range(100_000)))  # type: ignore[arg-type]
    broadcast_log.append(Position(1, 1102), many, "news", pack(("x",)))
    assert broadcast_log.size > 10_000_000


async def test_a_state_follows_its_session_to_another_id(workers: Workers, probe: Probe) -> None:
    first = await Client.connect(workers[0])
    socket = await probe.sockets.get()
    cookie = first.websocket.response.headers["set-cookie"].partition(";")[0]
    client = await Client.connect(workers[1], cookie)
    other = await probe.sockets.get()
    await kept(workers[1], client, has_cookie=True)
    former = socket.session.id
    token = await socket.session.renew()
    answer = await (await workers[0].connect()).request("POST", "/socketcluster/session", token.encode(), Cookie=cookie)
    renewed = answer.headers["set-cookie"].partition(";")[0]
    await until(lambda: other.session.id == socket.session.id != former)
    await kept(workers[1], client, session=socket.session.id)
    await client.lose(probe)
    await kept(workers[1], client, connected=False)
    refused = await Client.connect(workers[0], cookie, pid=client.pid, offset=client.offset)
    assert refused.sid != client.sid  # whoever has the old cookie, and the ticket
    assert (await probe.sockets.get()).session.id not in (former, socket.session.id)
    back = await Client.connect(workers[0], renewed, pid=client.pid, offset=client.offset)
    assert back.sid == client.sid
    assert (await probe.sockets.get()).session is socket.session
    for one in (first, refused, back):
        await one.lose(probe)


async def test_recovery_begins_when_the_namespace_is_heard_though_that_failed_at_first(
    start_worker: StartWorker, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the first broadcast: whoever connected before that could not recover."""
    worker = await start_worker(probe.run, recovery_window=60)
    namespace = worker.worker.ws_server.of("/late")
    monkeypatch.setattr(resync, "RETRY_PAUSE", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(client_module, "MAX_PENDING", 0)
        listening = namespace.listen()
        assert listening is not None
        assert isinstance(listening.exception(), StoreUnavailableError)
    broadcast_log = namespace.broadcast_log
    assert broadcast_log is not None
    await until(lambda: broadcast_log.latest is not None)
