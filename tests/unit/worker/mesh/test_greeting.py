"""Two workers that connect: who gets through, and what is taken of somebody who does not know the secret."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from support.worker.running import until

from socketcluster_runtime.sockets.framed import FramedStream
from socketcluster_worker.mesh import greeting as greeting_module
from socketcluster_worker.mesh.frames import MAX_GREETING_BYTES, NONCE_BYTES, Hello, encode, proof_of
from socketcluster_worker.mesh.greeting import Greeting

KEY = b"k" * 32
Connect = Callable[..., Awaitable[FramedStream]]


class Side:
    """One of the two."""

    def __init__(self) -> None:
        self.met: list[Hello] = []
        self.ended = 0

    def greeting(self, name: str, *, accepts: bool, key: bytes = KEY, app_name: str = "app") -> Greeting:
        """Return what it connects by."""
        return Greeting(
            key,
            name,
            f"{name}'s process",
            app_name,
            met=lambda _stream, hello: self.met.append(hello),
            ended=lambda _stream: self._count(),
            accepts=accepts,
        )

    def _count(self) -> None:
        self.ended += 1


class Meeting:
    """A worker that is connected to."""

    def __init__(self) -> None:
        self.here, self.there = Side(), Side()
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Listen."""
        self._server = await asyncio.get_running_loop().create_server(self._accepted, "127.0.0.1", 0)

    def _accepted(self) -> FramedStream:
        greeting = self.here.greeting("here", accepts=True)
        greeting.stream.begun = greeting.begin
        self.stream = greeting.stream
        return greeting.stream

    async def connect(self, stream: FramedStream) -> FramedStream:
        """Connect."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        await asyncio.get_running_loop().create_connection(lambda: stream, "127.0.0.1", port)
        return stream

    async def close(self) -> None:
        """End."""
        assert self._server is not None
        self._server.close()


@pytest.fixture
async def meeting() -> Meeting:
    made = Meeting()
    await made.listen()
    return made


@pytest.fixture(autouse=True)
async def _closed(meeting: Meeting):  # type: ignore[no-untyped-def]
    yield
    await meeting.close()


async def test_two_that_know_the_secret_learn_who_the_other_one_is(meeting: Meeting) -> None:
    stream = await meeting.connect(meeting.there.greeting("there", accepts=False).stream)
    await until(lambda: meeting.here.met and meeting.there.met)
    assert meeting.here.met[0].worker_id == "there"
    assert meeting.here.met[0].origin == "there's process"
    assert meeting.there.met[0].worker_id == "here"
    stream.abort()
    await until(lambda: meeting.here.ended and meeting.there.ended)


@pytest.mark.parametrize("options", [{"key": b"another"}, {"app_name": "another"}])
async def test_who_has_another_secret_or_application_does_not_get_through(
    meeting: Meeting, options: dict[str, object]
) -> None:
    await meeting.connect(meeting.there.greeting("there", accepts=False, **options).stream)  # type: ignore[arg-type]
    await until(lambda: meeting.here.ended and meeting.there.ended)
    assert not meeting.here.met
    assert not meeting.there.met


async def test_a_worker_is_not_taken_in_by_its_own_proof(meeting: Meeting) -> None:
    """Whoever only repeats what it hears, with the roles changed, shows nothing."""
    heard: list[bytes] = []
    ends: list[object] = []
    stream = await meeting.connect(FramedStream(heard.append, ends.append))
    await until(lambda: heard)
    proof = proof_of(KEY, b"accepts", heard[0] + heard[0], "there", "x", "app")
    stream.send(encode(Hello("there", "x", "app", heard[0], proof)))
    await until(lambda: ends)
    assert not meeting.here.met


@pytest.mark.parametrize("said", [b"\xc1", encode(["there"]), b"x" * (MAX_GREETING_BYTES + 1)])
async def test_what_is_no_greeting_ends_the_connection(meeting: Meeting, said: bytes) -> None:
    heard: list[bytes] = []
    ends: list[object] = []
    stream = await meeting.connect(FramedStream(heard.append, ends.append))
    await until(lambda: heard)
    assert len(heard[0]) == NONCE_BYTES
    stream.send(said)
    await until(lambda: ends and meeting.here.ended)
    assert not meeting.here.met


async def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, meeting: Meeting) -> None:
    monkeypatch.setattr(greeting_module, "PATIENCE", 0.01)
    ends: list[object] = []
    await meeting.connect(FramedStream(lambda _nonce: None, ends.append))
    await until(lambda: ends and meeting.here.ended)


async def test_a_worker_that_answers_with_a_wrong_proof_is_not_spoken_to(meeting: Meeting) -> None:
    dialing = meeting.there.greeting("there", accepts=False)
    dialing._challenged(b"n" * NONCE_BYTES)
    dialing._answered(encode(Hello("here", "x", "app", b"n" * NONCE_BYTES, b"no proof")))
    assert meeting.there.ended == 1
    assert not meeting.there.met
    other = meeting.there.greeting("there", accepts=False)
    other._challenged(b"n" * NONCE_BYTES)
    other._answered(b"\xc1")
    assert meeting.there.ended == 2
