"""One HTTP request and its response, as uvicorn has them, and what is read meanwhile."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Flow(FlowControl):
    """Reads nothing on while a request waits for the answer to the one before."""

    blocked = False

    def resume_reading(self) -> None:
        """Read on, unless that is blocked; whoever reads a body asks for it."""
        if not self.blocked:
            super().resume_reading()


class Cycle(RequestResponseCycle):
    """One request and its response."""

    ends_with_eof = False
    """Does it end when its client ends its own direction? So does a poll: nothing else tells that it is gone."""
    eof = False
    is_last = False
    """Does the connection end with the response?"""

    async def send(self, message: Any) -> None:
        """Send a part of the response (ASGI)."""
        if self.is_last and message["type"] == "http.response.start":
            self.keep_alive = False
            headers = [field for field in message.get("headers", ()) if field[0].lower() != b"connection"]
            message = {**message, "headers": [*headers, (b"connection", b"close")]}
        await super().send(message)

    async def receive(self) -> Any:
        """Return what came (ASGI)."""
        if not self.eof:
            message = await super().receive()
        return {"type": "http.disconnect"} if self.eof else message
