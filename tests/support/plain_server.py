"""A server that speaks the ``plain`` dialect of the load generator, well or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response


@dataclass
class Served:
    """A server.

    Attributes:
        spoil: is asked of each delivery to a member how often it is sent.
        delay: seconds until an event is acknowledged.
        refusals: clients that are still to be refused.
        places: what clients are told of where they are, in turn.
    """

    port: int = 0
    spoil: Callable[[int], int] = lambda _: 1
    delay: float = 0.0
    refusals: int = 0
    places: list[str] = field(default_factory=lambda: ["here"])
    came: int = 0
    delivered: int = 0
    rooms: dict[str, list[ServerConnection]] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)

    def refuse(self, connection: ServerConnection, _request: Request) -> Response | None:
        """Answer with an error, or do nothing."""
        if not self.refusals:
            return None
        self.refusals -= 1
        return connection.respond(503, "come again")

    async def client(self, connection: ServerConnection) -> None:
        """Serve until the client has gone."""
        with suppress(ConnectionClosed):
            await self._serve(connection)

    async def _serve(self, connection: ServerConnection) -> None:
        self.addresses.add(connection.remote_address[0])
        place = self.places[self.came % len(self.places)]
        self.came += 1
        async for text in connection:
            event = json.loads(text)
            data = event["data"]
            if event["event"] == "say":
                for member in self.rooms.get(event["room"], []):
                    self.delivered += 1
                    for _ in range(self.spoil(self.delivered)):
                        await member.send(json.dumps({"event": "said", "data": data}, separators=(",", ":")))
                continue
            if event["event"] == "join":
                self.rooms.setdefault(data, []).append(connection)
            await asyncio.sleep(self.delay)
            answer = {"rid": event["cid"], "data": place if event["event"] == "where" else data}
            await connection.send(json.dumps(answer, separators=(",", ":")))


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    """Serve on a free port of 127.0.0.1."""
    made = Served()
    async with serve(
        made.client, "127.0.0.1", 0, compression=None, ping_interval=None, process_request=made.refuse
    ) as server:
        made.port = next(iter(server.sockets)).getsockname()[1]
        yield made
