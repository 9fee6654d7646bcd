"""What a cluster's tests need of a cluster, whether its services are processes or containers."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import httpx
from websockets.exceptions import WebSocketException

from support.clients.browser import Browser

T = TypeVar("T")


class Cluster(ABC):
    """A running cluster.

    Attributes:
        url: where clients connect.
        connections_outlive_the_balancer: do handed-over connections go on when the balancer is killed?
    """

    url: str
    connections_outlive_the_balancer = True

    @abstractmethod
    async def worker_names(self) -> list[str]:
        """Return the names of the workers that run now."""

    @abstractmethod
    async def worker_url(self, name: str) -> str:
        """Return the URL of one worker's own HTTP port."""

    @abstractmethod
    async def kill(self, service: str, name: str | None = None) -> None:
        """Kill a process, or container, of a service with SIGKILL: the one of that name, or any."""

    @abstractmethod
    async def start_killed_worker(self, name: str) -> None:
        """Have a worker that was killed start anew, where nobody else sees to that."""

    @abstractmethod
    async def stop_worker(self, name: str) -> None:
        """Ask a worker to stop with SIGTERM, and wait until it has."""

    @abstractmethod
    async def hang_up(self, service: str) -> int:
        """Send SIGHUP to every process of a service; return how many there are."""

    @abstractmethod
    async def log(self) -> str:
        """Return what all services have logged."""

    def browser(self) -> Browser:
        """Return a new browser."""
        return Browser(self.url)

    async def serving_workers(self, *, at_least: int) -> set[str]:
        """Wait until new browsers are brought to so many different workers; return their names."""

        async def ask() -> set[str]:
            found = set()
            for _ in range(8 * at_least):
                async with self.browser() as browser:
                    response = await browser.http.get("/socketcluster/health")
                    if response.status_code == 200:
                        found.add(response.json()["worker"])
            return found

        return await until(ask, lambda found: len(found) >= at_least)


def runs(seen: Sequence[T]) -> set[tuple[T, ...]]:
    """Return all that came three in a row, to compare what tabs have heard that began at different times."""
    return {tuple(seen[at : at + 3]) for at in range(len(seen) - 2)}


async def until(ask: Callable[[], Awaitable[T]], enough: Callable[[T], bool]) -> T:
    """Ask again and again until the answer will do, as a user would press reload; the test's time-out bounds it."""
    while True:
        try:
            answer = await ask()
        except (httpx.HTTPError, OSError, WebSocketException):
            pass
        else:
            if enough(answer):
                return answer
        await asyncio.sleep(0.1)
