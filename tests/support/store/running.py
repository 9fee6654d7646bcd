"""Stores in the test's own event loop and as processes, and workers that are linked to them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.service import serve
from socketcluster_store.settings import StoreSettings
from socketcluster_store_client.channel_feed import Gap
from socketcluster_store_client.client import StoreClient
from support.store.processes import SECRET
from support.worker.running import Running

StartStore = Callable[..., Awaitable["RunningStore"]]
"""``await start_store(**options)``; a fixture."""
LinkWorker = Callable[..., Awaitable["LinkedWorker"]]
"""``await link_worker(*addresses)``; a fixture."""


class LinkedWorker:
    """A store client, and what it was told."""

    def __init__(
        self,
        *addresses: str,
        worker_id: str,
        secret: str = SECRET,
        app_name: str = "socketcluster",
        timeout: float = 60,
        framed: bool = False,
    ) -> None:
        self.session_messages: asyncio.Queue[tuple[str, str, bytes]] = asyncio.Queue()
        self.destroyed: asyncio.Queue[str] = asyncio.Queue()
        self.channel_messages: asyncio.Queue[tuple[str, bytes, int, int]] = asyncio.Queue()
        self.data_changes: asyncio.Queue[store_pb2.DataChange] = asyncio.Queue()
        self.gaps: asyncio.Queue[Gap] = asyncio.Queue()
        self.client = StoreClient(
            addresses,
            worker_id=worker_id,
            app_name=app_name,
            secret=secret,
            timeout=timeout,
            framed=framed,
            on_session_message=lambda *message: self.session_messages.put_nowait(message),
            on_session_destroyed=self.destroyed.put_nowait,
            on_channel_message=lambda *message: self.channel_messages.put_nowait(message),
            on_data_change=self.data_changes.put_nowait,
            on_channel_gap=self.gaps.put_nowait,
        )

    async def get(self, session_id: str, *keys: str) -> bytes:
        """Return what is stored."""
        return await self.client.call(store_pb2.VERB_GET, session_id=session_id, keys=keys)

    async def set(self, session_id: str, *keys: str, value: bytes) -> None:
        """Store a value."""
        assert await self.client.call(store_pb2.VERB_SET, session_id=session_id, keys=keys, value=value) == b""

    async def publish(self, channel: str, value: Any, message_id: str = "") -> tuple[int, int]:
        """Publish; return epoch and offset."""
        packed = msgspec.msgpack.encode(value)
        answer = await self.client.call(
            store_pb2.VERB_CHANNEL_PUBLISH, name=channel, value=packed, message_id=message_id
        )
        published = msgspec.msgpack.decode(answer)
        return published["epoch"], published["offset"]

    async def barrier(self, session_id: str = "") -> None:
        """Return when everything that was told before has arrived: answers and events travel on one stream."""
        await self.client.call(store_pb2.VERB_EXISTS, session_id=session_id, keys=["barrier"])


class RunningStore(Running):
    """A store in this event loop."""

    def __init__(self, settings: StoreSettings) -> None:
        self.address = settings.listen
        super().__init__(lambda lifecycle: serve(settings, lifecycle))


class StoreProcesses:
    """Store processes, each ended when the test ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[asyncio.subprocess.Process] = []
        self.address = f"unix:{folder}/process"

    async def start(self, *, ready: bool = True, **environment: str) -> asyncio.subprocess.Process:
        """Start a store process, and wait until it says that it is ready."""
        path = self._folder / f"notify{len(self._running)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(path))
            notify.setblocking(False)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "socketcluster_store",
                env={
                    **os.environ,
                    "SOCKETCLUSTER_LISTEN": self.address,
                    "SOCKETCLUSTER_DATA_DIR": str(self._folder / "data"),
                    "SOCKETCLUSTER_SECRET": SECRET,
                    "SOCKETCLUSTER_PARENT": str(os.getpid()),  # a run that is broken off leaves nothing behind
                    "NOTIFY_SOCKET": str(path),
                    **environment,
                },
                stderr=asyncio.subprocess.PIPE if not ready else None,
            )
            self._running.append(process)
            if ready:
                assert b"READY=1" in await asyncio.get_running_loop().sock_recv(notify, 100)
        return process

    async def end(self) -> None:
        """Kill what still runs."""
        for process in self._running:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()
