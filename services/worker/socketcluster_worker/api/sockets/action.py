"""What middleware is shown."""

from __future__ import annotations

from typing import Any

import msgspec

from socketcluster_worker.api.data.values import read_json
from socketcluster_worker.api.sockets.socket import Socket


class Action:
    """What a client is about to do, or is about to be sent; a middleware may change it.

    Attributes:
        stage: one of ``middleware.STAGES``.
        socket: whose action it is; at the stage ``publish_out``, who is to get the message.
        event: the event's name, at the stage ``event``.
        args: the event's arguments.
        channel: the channel, at the stages ``subscribe``, ``publish_in`` and ``publish_out``.
    """

    __slots__ = ("args", "channel", "event", "passed_on", "socket", "stage")

    def __init__(
        self,
        stage: str,
        socket: Socket,
        event: str = "",
        args: tuple[Any, ...] = (),
        channel: str = "",
        data: Any = None,
    ) -> None:
        """Make one; ``data`` may be ``msgspec.Raw`` of their JSON, which is read when a middleware asks for them."""
        self.stage = stage
        self.socket = socket
        self.event = event
        self.args = args
        self.channel = channel
        self.passed_on = data
        """The data as they are passed on: still ``msgspec.Raw`` if no middleware has asked for them."""

    @property
    def data(self) -> Any:
        """What is published; at ``subscribe`` the subscription's data; at ``authenticate`` the token's claims."""
        if type(self.passed_on) is msgspec.Raw:
            self.passed_on = read_json(self.passed_on)
        return self.passed_on

    @data.setter
    def data(self, data: Any) -> None:
        self.passed_on = data

    def __repr__(self) -> str:
        return (
            f"Action({self.stage!r}, {self.socket!r}, {self.event!r}, {self.args!r}, {self.channel!r}, {self.data!r})"
        )

    @property
    def connected(self) -> bool:
        """Is the client still there?"""
        return self.socket.connected
