"""The first example in a real browser: tabs share a session, another browser has its own, and a kill is survived."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Error, Page, expect
from support.cluster.cluster import runs, until
from support.cluster.local import LocalCluster

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "hello" / "controller.py"
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
"""Where the pictures of a run are left, for people to look at."""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(EXAMPLE, tmp_path / "data") as running:
        yield running


@pytest.fixture(autouse=True)
def _patience() -> None:
    """Let a busy machine take its time."""
    expect.set_options(timeout=30_000)


async def open_tab(context: BrowserContext, url: str, problems: list[Error] | None = None) -> Page:
    page = await context.new_page()
    if problems is not None:
        page.on("pageerror", lambda problem: problems.append(problem))  # a builtin cannot be marked by it
    await page.goto(url)
    await expect(page.locator("#greet")).to_have_text("hello world")
    await expect(page.locator("#transport")).to_have_text("websocket")
    return page


async def watch_numbers(page: Page) -> None:
    """Keep all numbers that the page shows, in the page."""
    await page.evaluate(
        """() => {
            window.seen = [];
            const rand = document.getElementById("rand");
            new MutationObserver(() => window.seen.push(rand.textContent)).observe(rand, { childList: true });
        }"""
    )


async def numbers(page: Page, count: int) -> list[str]:
    """Wait until the page has shown so many numbers; return them."""
    await page.wait_for_function("count => window.seen.length >= count", arg=count)
    seen: list[str] = await page.evaluate("window.seen")
    return seen


async def text(page: Page, name: str) -> str:
    return await page.locator(f"#{name}").inner_text()


async def test_tabs_share_a_number_and_another_browser_has_its_own(cluster: LocalCluster, browser: Browser) -> None:
    ada, bob = await browser.new_context(), await browser.new_context()
    problems: list[Error] = []
    first, second = await open_tab(ada, cluster.url, problems), await open_tab(ada, cluster.url, problems)
    other = await open_tab(bob, cluster.url, problems)
    pages = (first, second, other)
    for page in pages:
        await expect(page.locator("#session")).not_to_have_text("–")
        await watch_numbers(page)
    assert await text(first, "session") == await text(second, "session")
    assert await text(first, "worker") == await text(second, "worker")
    assert await text(first, "session") != await text(other, "session")
    assert (await text(other, "worker")).startswith("worker-")

    async def seen() -> list[set[tuple[str, ...]]]:
        return [runs(await numbers(page, 5)) for page in pages]

    ones, twos, others = await until(seen, lambda found: bool(found[0] & found[1]))
    assert not others & (ones | twos)

    await first.locator("#login").click()
    await expect(first.locator("#authorized")).to_have_text("yes")
    await second.reload()
    await expect(second.locator("#authorized")).to_have_text("yes")
    await expect(other.locator("#authorized")).to_have_text("no")

    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    await first.screenshot(path=SCREENSHOTS / "hello.png")
    assert problems == []


async def test_the_page_survives_the_kill_of_its_worker(cluster: LocalCluster, browser: Browser) -> None:
    page = await open_tab(await browser.new_context(), cluster.url)
    await page.locator("#login").click()
    await expect(page.locator("#authorized")).to_have_text("yes")
    session = await text(page, "session")
    await page.evaluate(
        """() => {
            window.states = [];
            const state = document.getElementById("state");
            new MutationObserver(() => window.states.push(state.textContent)).observe(state, { childList: true });
        }"""
    )
    await cluster.kill("worker", await text(page, "worker"))
    await page.wait_for_function("() => window.states.includes('connected')")
    await expect(page.locator("#authorized")).to_have_text("yes")
    await expect(page.locator("#transport")).to_have_text("websocket")
    assert await text(page, "session") == session
    await watch_numbers(page)
    await numbers(page, 2)


async def test_the_client_loads_as_an_es_module_too(cluster: LocalCluster, browser: Browser) -> None:
    page = await (await browser.new_context()).new_page()
    await page.goto(f"{cluster.url}/socketcluster/health")
    greeting = await page.evaluate(
        """async () => {
            const { connect } = await import("/socketcluster.mjs");
            const socket = connect();
            return await new Promise((resolve) => socket.on("greet", resolve));
        }"""
    )
    assert greeting == "hello world"


async def test_polling_alone_is_enough(cluster: LocalCluster, browser: Browser) -> None:
    page = await (await browser.new_context()).new_page()
    await page.goto(f"{cluster.url}/socketcluster/health")
    answer = await page.evaluate(
        """async () => {
            const { connect } = await import("/socketcluster.mjs");
            const socket = connect({ transports: ["polling"] });
            await new Promise((resolve) => socket.on("greet", resolve));
            return [socket.transport, await socket.call("login", {})];
        }"""
    )
    assert answer == ["polling", {"ok": True}]
