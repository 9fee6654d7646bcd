"""Making connections: some at a time, from as many source addresses as it takes, to the one place that was named."""

from __future__ import annotations

import asyncio
import ssl
from time import monotonic_ns

from socketcluster.bench import frames
from socketcluster.bench.advice import kind_of
from socketcluster.bench.client import Client, Observer
from socketcluster.bench.dialects import Dialect, dialect_of
from socketcluster.bench.plan import Plan, source_address
from socketcluster.bench.tally import Tally

AT_ONCE = 200
"""Connections of a process that are under way at a time, without a rate."""


class Connector:
    """Opens connections of a plan.

    Args:
        plan: says where to.
        tally: counts them.
        observer: is told what becomes of each.
    """

    def __init__(self, plan: Plan, tally: Tally, observer: Observer) -> None:
        self.dialect: Dialect = dialect_of(plan)
        self._plan = plan
        self._target = plan.target
        self._tally = tally
        self._observer = observer
        self._tls = _tls_of(plan) if self._target.secure else None
        self._address = ""

    async def resolve(self) -> None:
        """Look the host up, once for all connections.

        Raises:
            OSError: it has no address.
        """
        found = await asyncio.get_running_loop().getaddrinfo(self._target.host, self._target.port, type=1)
        self._address = str(found[0][4][0])

    async def open(self, number: int) -> Client | None:
        """Open the connection with this number; return ``None``, and count why, if that fails."""
        began = monotonic_ns()
        key = frames.make_key()
        client = Client(self.dialect, frames.request(self._target, key, self._plan.headers), key, self._observer)
        source = source_address(self._address, number)
        try:
            async with asyncio.timeout(self._plan.timeout):
                await asyncio.get_running_loop().create_connection(
                    lambda: client,
                    self._address,
                    self._target.port,
                    ssl=self._tls,
                    server_hostname=self._target.host if self._tls else None,
                    local_addr=None if source is None else (source, 0),
                )
                await client.entered
        except (OSError, ssl.SSLError) as error:  # TimeoutError and ConnectionError are, too
            client.close()
            self._tally.fail(kind_of(error))
            return None
        finally:
            if client.entered.done() and not client.entered.cancelled():
                client.entered.exception()  # it was looked at, whatever came first
        self._tally.opened += 1
        self._tally.open += 1
        self._tally.connecting.record(monotonic_ns() - began)
        return client

    async def open_all(self, first: int, count: int) -> list[Client]:
        """Open so many connections, at the plan's rate; return those that the server let in."""
        rate = self._plan.connect_rate / self._plan.processes
        clients: list[Client] = []

        async def one(number: int) -> None:
            client = await self.open(number)
            if client is not None:
                clients.append(client)

        async def some(numbers: list[int]) -> None:
            while numbers:
                await one(numbers.pop())

        if not rate:
            numbers = list(range(first + count - 1, first - 1, -1))
            await asyncio.gather(*(some(numbers) for _ in range(min(AT_ONCE, count))))
            return clients
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for index in range(count):
                await asyncio.sleep(began + index / rate - loop.time())
                tasks.create_task(one(first + index))
        return clients


def _tls_of(plan: Plan) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=plan.ca or None)
    context.set_alpn_protocols(["http/1.1"])
    if plan.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
