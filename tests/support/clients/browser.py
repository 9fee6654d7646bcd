"""Small clients for tests: a browser's cookies and sockets, in as few lines as the protocols allow."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any, Self
from urllib.parse import urlencode

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

SEPARATOR = "\x1e"


class CallError(Exception):
    """The server answered a call with an error."""

    def __init__(self, error: Any) -> None:
        super().__init__(str(error))
        self.error = error
        self.name = error.get("name") if isinstance(error, dict) else None


class Messages(abc.ABC):
    """SocketCluster's messages over whatever can send text; keeps all that arrives."""

    def __init__(self) -> None:
        self.id = ""
        self.events: list[tuple[str, Any]] = []
        self.closed: asyncio.Event = asyncio.Event()
        self._arrived = asyncio.Condition()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._cid = 0
        self._task: asyncio.Task[None] | None = None

    @abc.abstractmethod
    async def send_text(self, text: str) -> None:
        """Send a message."""

    @abc.abstractmethod
    def texts(self) -> AsyncIterator[str]:
        """Yield the messages that arrive, until the connection ends."""

    async def handshake(self) -> None:
        self._task = asyncio.create_task(self._receive())
        self.id = (await self.call("#handshake", {"authToken": None}))["id"]

    async def emit(self, event: str, data: Any = None) -> None:
        await self.send_text(json.dumps({"event": event, "data": data}))

    async def call(self, event: str, data: Any = None) -> Any:
        """Send an event and return its answer."""
        self._cid += 1
        answer = self._calls[self._cid] = asyncio.get_running_loop().create_future()
        try:
            await self.send_text(json.dumps({"event": event, "data": data, "cid": self._cid}))
        except BaseException:
            answer.cancel()
            raise
        return await answer

    async def next(self, name: str, *, after: int = 0) -> Any:
        """Return the data of the first event of that name at or behind position ``after``, waiting for it."""

        def found() -> list[Any]:
            return [data for event, data in self.events[after:] if event == name]

        async with self._arrived:
            await self._arrived.wait_for(lambda: found() or self.closed.is_set())
        if not found():
            raise ConnectionError(f"closed before {name!r} came")
        return found()[0]

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _receive(self) -> None:
        try:
            async for text in self.texts():
                await self._message(text)
        finally:
            self.closed.set()
            for answer in self._calls.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("closed before the answer came"))
            async with self._arrived:
                self._arrived.notify_all()

    async def _message(self, text: str) -> None:
        if text == "":
            await self.send_text("")
            return
        message = json.loads(text)
        if "rid" in message:
            answer = self._calls.pop(message["rid"])
            if "error" in message:
                answer.set_exception(CallError(message["error"]))
            else:
                answer.set_result(message.get("data"))
            return
        async with self._arrived:
            self.events.append((message["event"], message.get("data")))
            self._arrived.notify_all()


class WebSocketMessages(Messages):
    """The same on a WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__()
        self.connection = connection

    @property
    def close_code(self) -> int | None:
        return self.connection.close_code

    async def __aenter__(self) -> Self:
        await self.handshake()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()
        await self.stop()


class RawSocket(WebSocketMessages):
    """A SocketCluster client on a raw WebSocket."""

    async def send_text(self, text: str) -> None:
        await self.connection.send(text)

    async def texts(self) -> AsyncIterator[str]:
        with contextlib.suppress(ConnectionClosed):
            async for text in self.connection:
                assert isinstance(text, str)
                yield text


class EngineSocket(WebSocketMessages):
    """The same on Engine.IO over WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__(connection)
        self.opening: dict[str, Any] = {}

    async def send_text(self, text: str) -> None:
        await self.connection.send("4" + text)

    async def texts(self) -> AsyncIterator[str]:
        with contextlib.suppress(ConnectionClosed):
            async for packet in self.connection:
                assert isinstance(packet, str)
                if packet[0] == "2":
                    await self.connection.send("3" + packet[1:])
                elif packet[0] == "4":
                    yield packet[1:]

    async def handshake(self) -> None:
        first = await self.connection.recv()
        assert isinstance(first, str)
        assert first[0] == "0"
        self.opening = json.loads(first[1:])
        await super().handshake()


class PollingSocket(Messages):
    """The same on Engine.IO by long-polling."""

    def __init__(self, browser: Browser, path: str = "/socketcluster/engine/") -> None:
        super().__init__()
        self.browser = browser
        self.path = path
        self.sid = ""
        self.opening: dict[str, Any] = {}

    def url(self, **query: str) -> str:
        return self.path + "?" + urlencode({"EIO": "4", "transport": "polling", **query})

    async def send_text(self, text: str) -> None:
        response = await self.browser.http.post(self.url(sid=self.sid), content=("4" + text).encode())
        assert response.text == "ok", (response.status_code, response.text)

    async def texts(self) -> AsyncIterator[str]:
        while True:
            response = await self.browser.http.get(self.url(sid=self.sid), timeout=120)
            if response.status_code != 200:
                return
            for packet in response.text.split(SEPARATOR):
                if packet[0] == "1":
                    return
                if packet[0] == "2":
                    await self.browser.http.post(self.url(sid=self.sid), content=b"3")
                elif packet[0] == "4":
                    yield packet[1:]

    async def __aenter__(self) -> Self:
        response = await self.browser.http.get(self.url())
        assert response.status_code == 200, response.text
        assert response.text[0] == "0"
        self.opening = json.loads(response.text[1:])
        self.sid = self.opening["sid"]
        await self.handshake()
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.closed.is_set():
            with contextlib.suppress(httpx.HTTPError):
                await self.browser.http.post(self.url(sid=self.sid), content=b"1")
        await self.stop()


class Browser:
    """Cookies, and the sockets of tabs that share them."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self.url = url
        self.tls = tls
        self.http = httpx.AsyncClient(base_url=url, timeout=60, verify=tls or True)

    def raw(self, url: str | None = None) -> Connecting:
        """Open a raw WebSocket: ``async with browser.raw() as socket``."""
        return Connecting(self, url or self.url, "/socketcluster/", RawSocket)

    def engine(self, url: str | None = None) -> Connecting:
        """Open an Engine.IO connection over WebSocket."""
        return Connecting(self, url or self.url, "/socketcluster/engine/?EIO=4&transport=websocket", EngineSocket)

    def polling(self) -> PollingSocket:
        """Open an Engine.IO connection by long-polling."""
        return PollingSocket(self)

    @property
    def cookie_header(self) -> dict[str, str]:
        """What a browser sends along."""
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.http.cookies.jar)
        return {"Cookie": cookies} if cookies else {}

    def learn(self, connection: ClientConnection) -> None:
        """Keep the cookie of a WebSocket's handshake."""
        assert connection.response is not None
        for value in connection.response.headers.get_all("Set-Cookie"):
            name, _, rest = value.partition("=")
            self.http.cookies.set(name, rest.partition(";")[0])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()


class Connecting:
    """Connects when it is entered."""

    def __init__(self, browser: Browser, url: str, path: str, kind: type[WebSocketMessages]) -> None:
        self._browser = browser
        self._url = url.replace("http", "ws", 1) + path
        self._kind = kind
        self._socket: WebSocketMessages

    async def open(self) -> WebSocketMessages:
        """Connect; the socket is to be entered, and closes when it is left."""
        connection = await connect(
            self._url,
            additional_headers=self._browser.cookie_header,
            compression=None,
            ping_interval=None,
            open_timeout=60,
            ssl=self._browser.tls if self._url.startswith("wss:") else None,
        )
        self._browser.learn(connection)
        return self._kind(connection)

    async def __aenter__(self) -> WebSocketMessages:
        self._socket = await self.open()
        return await self._socket.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self._socket.__aexit__(*error)
