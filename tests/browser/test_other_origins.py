"""Pages of other origins, with the browser client's defaults, and what ``credentials`` is for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Frame, Page
from support.cluster.local import LocalCluster

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "hello" / "controller.py"
TRANSPORTS = [["polling"], ["polling", "websocket"]]
CONNECT = """async ([url, options]) => {
    const socket = socketCluster.connect(url, options);
    socket.on("error", (error) => { window.problem = error.message; });
    await new Promise((resolve) => socket.once("connect", resolve));
    if (socket.transport !== options.transports.at(-1)) await new Promise((resolve) => socket.once("upgrade", resolve));
    await socket.call("who");
    return socket.transport;
}"""


@asynccontextmanager
async def page_of_another_origin(browser: Browser, cluster: LocalCluster) -> AsyncIterator[Page]:
    """A page that another server has, with the client from the cluster."""
    page = f'<!doctype html><link rel="icon" href="data:,"><script src="{cluster.url}/socketcluster.js"></script>'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(page)}\r\nconnection: close\r\n\r\n"
        writer.write((head + page).encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        opened = await browser.new_page()
        await opened.goto(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        yield opened
        await opened.close()


@pytest.mark.parametrize("transports", TRANSPORTS)
async def test_everybody_may_connect_where_every_origin_may(
    browser: Browser, tmp_path: Path, transports: list[str]
) -> None:
    async with (
        LocalCluster(EXAMPLE, tmp_path / "data", "--origins", "*:*") as cluster,
        page_of_another_origin(browser, cluster) as page,
    ):
        transport = await page.evaluate(CONNECT, [cluster.url, {"transports": transports}])
        assert (transport, await page.evaluate("window.problem")) == (transports[-1], None)


@pytest.mark.parametrize("transports", TRANSPORTS)
async def test_pages_without_an_origin_may_connect_where_these_may(
    browser: Browser, tmp_path: Path, transports: list[str]
) -> None:
    async with LocalCluster(EXAMPLE, tmp_path / "data", "--origins", "null") as cluster:
        page = await browser.new_page()
        script = f"<script src='{cluster.url}/socketcluster.js'></script>"
        await page.set_content(f'<iframe sandbox="allow-scripts" srcdoc="{script}"></iframe>')
        frame: Frame = page.frames[-1]
        await frame.wait_for_function("window.socketCluster")
        assert await frame.evaluate("location.origin") == "null"
        transport = await frame.evaluate(CONNECT, [cluster.url, {"transports": transports}])
        assert (transport, await frame.evaluate("window.problem")) == (transports[-1], None)


@pytest.mark.parametrize(("credentials", "shared"), [(None, False), ("include", True)])
async def test_a_named_origin_has_the_session_if_it_sends_the_cookie(
    browser: Browser, tmp_path: Path, credentials: str | None, shared: bool
) -> None:
    async with (
        LocalCluster(EXAMPLE, tmp_path / "data", "--origins", "127.0.0.1:*") as cluster,
        page_of_another_origin(browser, cluster) as page,
    ):
        options = {"transports": ["polling"]} | ({"credentials": credentials} if credentials else {})
        assert await page.evaluate(CONNECT, [cluster.url, options]) == "polling"
        assert bool(await page.context.cookies(cluster.url)) is shared
