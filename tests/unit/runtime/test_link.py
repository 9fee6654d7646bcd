"""A link to a store whose channel does what the test wants, when the test wants it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime import rpc
from socketcluster_runtime.link import StoreLink


class Channel:
    """A channel that connects when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.connected = asyncio.Event()
        self.closed = False

    async def channel_ready(self) -> None:
        self.asked.set()
        await self.connected.wait()

    async def close(self) -> None:
        self.closed = True


class Nobody:
    """Is told of nothing."""

    def on_reply(self, link: StoreLink, reply: store_pb2.LinkReply) -> None:
        raise AssertionError(reply)

    def on_broken(self, link: StoreLink) -> None:
        raise AssertionError(link)


async def test_a_link_ends_that_is_closed_in_the_turn_in_which_it_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel()

    def connect(address: str) -> Any:
        assert not channel.closed, f"the link connects to {address} again after it was closed"
        return channel

    monkeypatch.setattr(rpc, "connect", connect)
    link = StoreLink("somewhere:1", store_pb2.LinkOpen(), "a secret of the tests", Nobody())
    link.start()
    await channel.asked.wait()
    channel.connected.set()
    await asyncio.sleep(0)  # the wait for the channel has ended, the wait for that has not
    await link.close()
    assert channel.closed
