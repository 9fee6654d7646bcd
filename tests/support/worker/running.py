"""A whole worker in the test's own event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from pydantic import SecretStr

from socketcluster_runtime import lifecycle
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.service import Service
from socketcluster_worker.settings import WorkerSettings
from support.clients.browser import Browser
from support.clients.raw import ENGINE, HANDSHAKE, Polling, RawClient, RawWebSocket, connect, upgrade

SECRET = "a secret of the tests"
HOOK = "run_of_the_test"
CONTROLLER = f"from {HOOK} import run\n"

StartWorker = Callable[..., Awaitable["RunningWorker"]]
"""``await start_worker(run, **options)``; a fixture."""


async def until(true: Callable[[], Any]) -> None:
    """Let the loop turn until the worker's inside is as a test wants it; the test's time-out bounds it."""
    while not true():  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(0.001)


class Lifecycle(lifecycle.Lifecycle):
    """One that a test can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.is_ready = asyncio.Event()

    def ready(self) -> None:
        self.is_ready.set()


class Running:
    """A service in this event loop."""

    def __init__(self, serve: Callable[[Lifecycle], Any]) -> None:
        self.lifecycle = Lifecycle()
        self.task = asyncio.ensure_future(serve(self.lifecycle))

    async def ready(self) -> None:
        """Return when the service serves; raise what kept it from doing so."""
        waiting = asyncio.create_task(self.lifecycle.is_ready.wait())
        await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            self.task.result()

    async def stop(self) -> None:
        """Stop as SIGTERM does."""
        self.lifecycle.stopping.set()
        await self.task


class RunningWorker(Running):
    """A worker in this event loop.

    Attributes:
        worker: what its controller was given.
        url: of its own port.
        handoff_path: where it takes clients over.
    """

    def __init__(self, settings: WorkerSettings, worker: asyncio.Future[Worker]) -> None:
        self.service = Service(settings)
        super().__init__(self.service.run)
        self._worker = worker
        self._settings = settings
        self.worker: Worker
        self.port = 0
        self._clients: list[RawClient] = []
        self.errors: asyncio.Queue[tuple[BaseException, str]] = asyncio.Queue()

    async def ready(self) -> None:
        await super().ready()
        self.worker = self._worker.result()
        listener = self.service._server._socket
        assert listener is not None
        self.port = listener.getsockname()[1]
        self.worker.ws_server.on("error", lambda error, where: self.errors.put_nowait((error, where)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def handoff_path(self) -> str:
        assert self._settings.handoff_dir is not None
        return str(self._settings.handoff_dir / f"{self.worker.id}.sock")

    def browser(self) -> Browser:
        """Return a new browser."""
        return Browser(self.url)

    async def connect(self) -> RawClient:
        """Open a TCP connection."""
        client = await connect(self.port)
        self._clients.append(client)
        return client

    async def stop(self) -> None:
        await super().stop()
        for client in self._clients:
            client.close()

    async def websocket(self, path: str = "/socketcluster/", **headers: str) -> RawWebSocket:
        """Open a WebSocket."""
        client = await self.connect()
        await client.send(upgrade(path, **headers))
        answer = await client.answer()
        assert answer.status_code == 101, answer
        return RawWebSocket(client, answer)

    async def socket(self) -> RawWebSocket:
        """Open a WebSocket that has made SocketCluster's handshake."""
        websocket = await self.websocket()
        await websocket.send_json({"event": "#handshake", "data": {}, "cid": 1})
        websocket.handshake = (await websocket.next_json())["data"]
        return websocket

    async def socketio(self) -> RawWebSocket:
        """Open a WebSocket that has connected to Socket.IO's namespace ``/``."""
        websocket = await self.websocket("/socket.io/?EIO=4&transport=websocket")
        await websocket.next()
        await websocket.send_text("40")
        await websocket.next()
        return websocket

    async def browser_socket(self) -> RawWebSocket:
        """Open an Engine.IO WebSocket that has made SocketCluster's handshake, as the browser client does."""
        websocket = await self.websocket(ENGINE + "websocket")
        await websocket.next()
        await websocket.send_text("4" + HANDSHAKE)
        await websocket.next()
        return websocket

    async def engineio(self) -> RawWebSocket:
        """Open a plain Engine.IO WebSocket."""
        websocket = await self.websocket("/engine.io/?EIO=4&transport=websocket")
        await websocket.next()
        return websocket

    async def engine(self, endpoint: str = ENGINE) -> Polling:
        """Open an Engine.IO connection by polling."""
        client = Polling(self.connect, endpoint)
        await client.open()
        return client


class Workers:
    """The workers of one test, on one store.

    Args:
        folder: where their sockets and their controller are; its path is short.
        store: the store's address.
    """

    def __init__(self, folder: Path, store: str) -> None:
        self._folder = folder
        self._store = store
        self._started: list[RunningWorker] = []
        self._path = list(sys.path)
        (folder / "controller.py").write_text(CONTROLLER)
        (folder / "handoff").mkdir()

    async def start(self, run: Callable[[Worker], Any] | None = None, **options: Any) -> RunningWorker:
        """Start a worker whose controller is ``run``, with options."""
        given: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()

        async def run_all(worker: Worker) -> None:
            given.set_result(worker)
            result = run(worker) if run is not None else None
            if asyncio.iscoroutine(result):
                await result

        sys.modules[HOOK] = SimpleNamespace(run=run_all)  # type: ignore[assignment]
        number = len(self._started)
        settings = WorkerSettings(
            name=options.pop("name", f"worker{number}"),
            secret=SecretStr(SECRET),
            stores=(self._store,),
            controller=self._folder / "controller.py",
            control_listen=f"unix:{self._folder}/control{number}",
            http_listen="127.0.0.1:0",
            handoff_dir=self._folder / "handoff",
            **options,
        )
        worker = RunningWorker(settings, given)
        self._started.append(worker)
        await worker.ready()
        return worker

    async def stop(self) -> None:
        """Stop those that run, and forget what they imported."""
        for worker in self._started:
            if not worker.task.done():
                await worker.stop()
        sys.modules.pop(HOOK, None)
        sys.modules.pop("controller", None)
        sys.path[:] = self._path


class Probe:
    """Remembers what happens to sockets.

    Attributes:
        sockets: those that connected, in order.
        ends: ``(socket, code, reason)`` of each one that is gone.
        events: what clients sent as the event ``note``.
    """

    def __init__(self) -> None:
        self.sockets: asyncio.Queue[Any] = asyncio.Queue()
        self.ends: asyncio.Queue[tuple[Any, int, str]] = asyncio.Queue()
        self.events: asyncio.Queue[Any] = asyncio.Queue()

    def run(self, worker: Worker) -> None:
        """Be a controller."""

        @worker.ws_server.on("connection")
        def connected(socket: Any) -> None:
            self.sockets.put_nowait(socket)
            socket.on("note", self.events.put_nowait)
            socket.on("echo", lambda data: data)

        @worker.ws_server.on("disconnect")
        def disconnected(socket: Any, code: int, reason: str) -> None:
            self.ends.put_nowait((socket, code, reason))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.ends.empty(), "a socket ended twice, or unexpectedly"


async def cookie_of(worker: RunningWorker) -> str:
    """Return the header of a browser that has a session, whose connections are kept."""
    client = await worker.connect()
    answer = await client.request("GET", ENGINE + "polling")
    assert answer.headers["connection"] == "close"  # a balancer is to choose anew, by the cookie
    assert await client.closed() == b""
    client.close()
    return answer.headers["set-cookie"].partition(";")[0]
