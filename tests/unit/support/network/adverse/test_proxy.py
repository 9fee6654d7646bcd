"""Each thing that the adverse proxy can do, between a client and a server that are bare."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from support.clients.raw import frame
from support.network.adverse.http import Frames, Request
from support.network.adverse.proxy import HANG, AdverseProxy, Block, Break, Connection, Way
from websockets.frames import Frame, Opcode

POLL = b"GET /?transport=polling&sid=1 HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /?transport=polling&sid=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
UPGRADE = b"GET /?transport=websocket HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
FRAME = Frame(Opcode.TEXT, b"3probe").serialize(mask=False)


Connect = Callable[[], Awaitable["Client"]]


class Server:
    """Answers each request, and each frame with one; keeps what it got."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.answering = True
        self.ends: asyncio.Queue[str] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = "fin"
        try:
            while data := await reader.read(1 << 20):
                self.got.append(data)
                if self.answering:
                    is_upgrade = data.startswith(UPGRADE[:25])
                    writer.write(SWITCHING if is_upgrade else OK if data.startswith((b"GET", b"POST")) else FRAME)
        except ConnectionResetError:
            end = "reset"
        self.ends.put_nowait(end)
        writer.close()


class Client:
    """A connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, data: bytes, expected: bytes = OK) -> bytes:
        self.writer.write(data)
        return await self.reader.readexactly(len(expected))

    async def is_silent(self) -> bool:
        """Whether nothing comes; what would come at once has come by then."""
        try:
            async with asyncio.timeout(0.1):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[AdverseProxy]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with AdverseProxy(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}") as running:
        yield running
    listening.close()


@pytest.fixture
async def connect(proxy: AdverseProxy) -> AsyncIterator[Connect]:
    writers = []

    async def connected() -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writers.append(writer)
        return Client(reader, writer)

    yield connected
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_without_faults_everything_passes(server: Server, proxy: AdverseProxy, connect: Connect) -> None:
    client = await connect()
    assert await client.ask(POLL) == OK
    assert await client.ask(POST) == OK
    client.writer.close()
    assert await server.ends.get() == "fin"
    assert b"".join(server.got) == POLL + POST
    other = await connect()
    assert await other.ask(UPGRADE, SWITCHING) == SWITCHING
    assert await other.ask(frame("2probe"), FRAME) == FRAME


async def test_bytes_take_their_time_and_stay_in_order(server: Server, proxy: AdverseProxy, connect: Connect) -> None:
    proxy.latency, proxy.jitter = 0.02, 0.02
    client = await connect()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await client.ask(POLL) == OK
    assert loop.time() - begun >= 2 * proxy.latency
    client.writer.write(UPGRADE)
    assert await client.reader.readexactly(len(SWITCHING)) == SWITCHING
    server.answering = False
    frames = [frame(bytes([number]) * 100) for number in range(20)]
    for each in frames:
        client.writer.write(each)
        await asyncio.sleep(0)
    client.writer.write_eof()
    await server.ends.get()
    assert b"".join(server.got[2:]) == b"".join(frames)


async def test_the_rate_is_shared_by_all(server: Server, proxy: AdverseProxy, connect: Connect) -> None:
    proxy.rate = 5_000
    loop = asyncio.get_running_loop()
    begun = loop.time()
    one, other = await connect(), await connect()
    assert tuple(await asyncio.gather(one.ask(POLL), other.ask(POLL))) == (OK, OK)
    assert loop.time() - begun >= 2 * len(POLL) / proxy.rate


@pytest.mark.parametrize("reset", [True, False])
async def test_a_new_connection_is_broken(proxy: AdverseProxy, connect: Connect, reset: bool) -> None:
    proxy.breaks = lambda _chance: Break(reset=reset)
    client = await connect()
    if reset:
        with pytest.raises(ConnectionResetError):
            await client.ask(POLL)
    else:
        assert await client.reader.read() == b""
    proxy.breaks = lambda _chance: None
    assert await (await connect()).ask(POLL) == OK


async def test_connections_are_broken_within_bytes(server: Server, proxy: AdverseProxy, connect: Connect) -> None:
    proxy.breaks = lambda _chance: Break(after=10, reset=False)
    client = await connect()
    client.writer.write(POLL)
    assert await client.reader.read() == OK[:10]
    proxy.breaks = lambda _chance: Break(after=len(POST) - 3, way=Way.UP)
    client = await connect()
    with pytest.raises(ConnectionResetError):
        await client.ask(POST)
    assert await server.ends.get() == "fin"
    assert await server.ends.get() == "reset"


async def test_an_answer_is_lost_on_a_used_connection(server: Server, proxy: AdverseProxy, connect: Connect) -> None:
    proxy.lost_answers = 1.0
    client = await connect()
    assert await client.ask(POLL) == OK
    with pytest.raises(ConnectionResetError):
        await client.ask(POST)
    assert server.got == [POLL, POST]
    assert proxy.answers_lost == 1


async def test_half_open_connections_hang_but_not_new_ones(
    server: Server, proxy: AdverseProxy, connect: Connect
) -> None:
    old = await connect()
    assert await old.ask(POLL) == OK
    proxy.hang()
    old.writer.write(POLL)
    assert await (await connect()).ask(POLL) == OK
    proxy.go()
    assert await old.is_silent()
    assert len(server.got) == 2


async def test_what_is_stopped_comes_later(server: Server, proxy: AdverseProxy, connect: Connect) -> None:
    old = await connect()
    assert await old.ask(POLL) == OK
    proxy.stop()
    new = await connect()
    for client in old, new:
        client.writer.write(POLL)
        assert await client.is_silent()
    assert len(server.got) == 1
    proxy.go()
    assert await old.reader.readexactly(len(OK)) == OK
    assert await new.reader.readexactly(len(OK)) == OK


async def test_a_closed_port_refuses_and_opens_again(proxy: AdverseProxy, connect: Connect) -> None:
    old = await connect()
    assert await old.ask(POLL) == OK
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect()
    with pytest.raises(ConnectionResetError):
        await old.reader.read()
    await proxy.open()
    assert await (await connect()).ask(POLL) == OK


async def test_connections_of_a_kind_are_cut(proxy: AdverseProxy, connect: Connect) -> None:
    poll, post = await connect(), await connect()
    assert await poll.ask(POLL) == OK
    assert await post.ask(POST) == OK
    proxy.cut("poll")
    assert await poll.reader.read() == b""
    assert await post.ask(POST) == OK


async def test_the_network_answers_by_itself(server: Server, proxy: AdverseProxy, connect: Connect) -> None:
    def portal(request: Request) -> bytes | None:
        return {"post": request.answer("511 Network Authentication Required"), "poll": HANG}.get(request.kind)

    client = await connect()
    assert await client.ask(POST) == OK
    proxy.answer = portal
    client.writer.write(POST)
    answer = await client.reader.read()
    assert answer.startswith(b"HTTP/1.1 511 Network Authentication Required\r\n")
    assert b"Log in" in answer
    hanging = await connect()
    hanging.writer.write(POLL)
    assert await hanging.is_silent()
    assert server.got == [POST]


@pytest.mark.parametrize("block", Block)
async def test_websockets_are_blocked(server: Server, proxy: AdverseProxy, connect: Connect, block: Block) -> None:
    proxy.block = block
    client = await connect()
    client.writer.write(UPGRADE)
    if block is Block.REFUSED:
        assert (await client.reader.read()).startswith(b"HTTP/1.1 400 ")
    elif block is Block.HANGING:
        assert await client.is_silent()
    else:
        assert await client.reader.readexactly(len(SWITCHING)) == SWITCHING
    if block is Block.CLOSED:
        assert await client.reader.read() == b""
    elif block.frames is not None:
        client.writer.write(frame("2probe"))
        if block.frames:
            assert await client.reader.readexactly(len(FRAME)) == FRAME
            client.writer.write(frame("5"))
        assert await client.is_silent()
        assert len(server.got) == 1 + block.frames
    assert await (await connect()).ask(POLL) == OK


async def test_a_gateway_gives_up_an_idle_poll(server: Server, proxy: AdverseProxy, connect: Connect) -> None:
    server.answering = False
    proxy.gateway_timeout = 0.05
    client = await connect()
    client.writer.write(POLL)
    assert (await client.reader.read()).startswith(b"HTTP/1.1 504 ")
    assert await server.ends.get() == "fin"


async def test_a_fault_can_be_timed_at_a_step(server: Server, proxy: AdverseProxy, connect: Connect) -> None:
    steps: list[str] = []

    def step(connection: Connection, name: str) -> None:
        steps.append(f"{connection.kind} {name}")
        if name == "down 1":
            proxy.cut("poll")

    poll, websocket = await connect(), await connect()
    assert await poll.ask(POLL) == OK
    proxy.on_step = step
    assert await websocket.ask(UPGRADE, SWITCHING) == SWITCHING
    assert await websocket.ask(frame("2probe"), FRAME) == FRAME
    assert await poll.reader.read() == b""
    assert steps == [f"websocket {name}" for name in ("websocket", "answer", "up 1", "down 1")]


@pytest.mark.parametrize("size", [0, 125, 126, 70_000])
@pytest.mark.parametrize("mask", [True, False])
def test_frames_are_counted_wherever_they_are_divided(size: int, mask: bool) -> None:
    one, other = (Frame(Opcode.BINARY, bytes([number]) * size).serialize(mask=mask) for number in (1, 2))
    frames = Frames()
    data = one + other
    step = max(1, size // 7)
    passed = b"".join(frames.feed(data[at : at + step], 1) for at in range(0, len(data), step))
    assert passed == one
    assert frames.begun == 2


def test_requests_are_told_apart() -> None:
    def kind(method: str, query: str, **headers: str) -> str:
        return Request(method, f"/socketcluster/engine/?EIO=4&{query}", headers).kind

    assert kind("GET", "transport=polling") == "open"
    assert kind("GET", "transport=polling&sid=1") == "poll"
    assert kind("POST", "transport=polling&sid=1") == "post"
    assert kind("GET", "transport=websocket&sid=1", upgrade="WebSocket") == "websocket"
    assert kind("GET", "") == "other"
