"""The browser client where it runs: in tabs of a real Chromium, and in Node."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import CDPSession, async_playwright

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECORDER = HERE.parent / "controllers" / "networks" / "recorder.js"
SOURCE = ROOT / "clients" / "js" / "socketcluster.js"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
UNLIKE_A_USERS = [
    "--disable-back-forward-cache",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
]
"""What playwright would have the browser do otherwise than that of a user."""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


ARRIVING = 0.5
"""Seconds after which a page that may have been left is asked again."""


class Client(ABC):
    """A place where the recorder runs."""

    platform: str
    """The expression for ``connect``, ``fetch`` and ``WebSocket``."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    async def evaluate(self, expression: str) -> Any:
        """Return what an expression gives there, a promise's result included."""

    @abstractmethod
    async def close(self) -> None:
        """End it."""

    async def start(self, run: str, channel: str, options: dict[str, Any]) -> None:
        """Connect, and record from now on."""
        how = json.dumps({"run": run, "client": self.name, "channel": channel, "options": options})
        await self.evaluate(f"startRecorder({how}, {self.platform})")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true there; asked less often as time goes by."""
        pause = 0.05
        while not await self.evaluate(expression):
            await asyncio.sleep(pause)
            pause = min(1.2 * pause, 1.0)


Open = Callable[[str, str], Awaitable[Client]]
"""Opens a client of a name, in a page of a URL."""
Platform = Callable[[], AbstractAsyncContextManager[Open]]
"""Where the clients of a run are opened: they share what those of one user do."""


class Chromium:
    """A browser. Its tabs are not playwright's, to which each is in front and focused, however many there are."""

    def __init__(self, session: CDPSession) -> None:
        self.session = session
        self._waiting: dict[tuple[str, int], asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)
        session.on("Target.receivedMessageFromTarget", self._received)

    @asynccontextmanager
    async def profile(self) -> AsyncIterator[Open]:
        """Make a browser context: a window, with cookies and connections of its own."""
        made = await self.session.send("Target.createBrowserContext", {"disposeOnDetach": True})
        profile = made["browserContextId"]
        yield functools.partial(self.tab, profile)
        await self.session.send("Target.disposeBrowserContext", {"browserContextId": profile})

    async def tab(self, profile: str, name: str, url: str) -> Tab:
        """Open a tab in front of the others of that profile."""
        made = await self.session.send("Target.createTarget", {"url": url, "browserContextId": profile})
        target = made["targetId"]
        attached = await self.session.send("Target.attachToTarget", {"targetId": target, "flatten": False})
        tab = Tab(name, self, profile, target, attached["sessionId"])
        await tab.until("document.readyState === 'complete' && location.protocol !== 'about:'")
        return tab

    async def send(self, session_id: str, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Ask a tab something over its DevTools protocol."""
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[session_id, number] = answer
        message = json.dumps({"id": number, "method": method, "params": parameters})
        try:
            await self.session.send("Target.sendMessageToTarget", {"sessionId": session_id, "message": message})
            return await answer
        finally:
            del self._waiting[session_id, number]

    def _received(self, event: dict[str, Any]) -> None:
        message = json.loads(event["message"])
        answer = self._waiting.get((event["sessionId"], message.get("id", 0)))
        if answer is not None and not answer.done():
            answer.set_result(message)


class Tab(Client):
    """A tab."""

    platform = "{ connect: socketCluster.connect, fetch: fetch.bind(window), WebSocket }"

    def __init__(self, name: str, browser: Chromium, profile: str, target: str, session_id: str) -> None:
        super().__init__(name)
        self.profile = profile
        self._browser = browser
        self._target = target
        self._session_id = session_id

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask over the DevTools protocol."""
        answer = await self._browser.send(self._session_id, method, parameters)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def evaluate(self, expression: str) -> Any:
        answer = await self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def close(self) -> None:
        await self._browser.session.send("Target.closeTarget", {"targetId": self._target})

    async def beside(self, url: str) -> Tab:
        """Open another tab of the same window, which is in front then."""
        return await self._browser.tab(self.profile, f"{self.name} beside", url)

    async def show(self) -> None:
        """Bring it to the front."""
        await self._browser.session.send("Target.activateTarget", {"targetId": self._target})

    async def freeze(self, frozen: bool) -> None:
        """Stop everything in it, as browsers do with tabs that nobody has looked at for long, or go on."""
        await self.send("Page.setWebLifecycleState", state="frozen" if frozen else "active")

    async def arrive(self, expression: str) -> None:
        """Wait until an expression is true where the tab goes; what is asked of a page that is left has no answer."""
        arrived = False
        while not arrived:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ARRIVING):
                    arrived = bool(await self.evaluate(expression))

    async def set_online(self, online: bool) -> None:
        """Have the browser notice that the network has gone, or is back."""
        await self.send("Network.enable")
        await self.send(
            "Network.emulateNetworkConditions",
            offline=not online,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )


@asynccontextmanager
async def chromium() -> AsyncIterator[Chromium]:
    """Start a browser whose tabs are treated as a user's are, the back/forward cache included."""
    program = next(filter(None, map(shutil.which, PROGRAMS)))
    environ: dict[str, str | float | bool] = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": "/dev/null"}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program, args=ARGUMENTS, ignore_default_args=UNLIKE_A_USERS, env=environ
        )
        yield Chromium(await browser.new_browser_cdp_session())
        await browser.close()


class Node(Client):
    """A process of Node."""

    platform = "platform"

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        super().__init__(name)
        self._process = process
        self._turn = asyncio.Lock()

    async def evaluate(self, expression: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps(expression).encode() + b"\n")
            return json.loads(await self._process.stdout.readline())

    async def close(self) -> None:
        self._process.kill()
        await self._process.communicate()


def in_node(folder: Path) -> Platform:
    """Return the platform Node.

    Args:
        folder: has the package ws; see ``install``.
    """

    async def start(name: str, _url: str) -> Client:
        process = await asyncio.create_subprocess_exec(
            *("node", "driver.cjs", str(SOURCE), str(RECORDER)),
            cwd=folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        return Node(name, process)

    @asynccontextmanager
    async def processes() -> AsyncIterator[Open]:
        yield start

    return processes


async def install(folder: Path) -> None:
    """Make the folder that Node runs in."""
    shutil.copytree(HERE / "node", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    arguments = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--silent"]
    process = await asyncio.create_subprocess_exec("npm", *arguments, cwd=folder)
    assert await process.wait() == 0
