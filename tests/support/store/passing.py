"""A store in the test's own event loop that goes and comes back."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from socketcluster_store.service import serve
from socketcluster_store.settings import StoreSettings
from support.worker.running import Running


class PassingStore:
    """One store with the engine ``memory``.

    Attributes:
        address: where it is while it runs.
    """

    def __init__(self, folder: Path, secret: str) -> None:
        self._settings = StoreSettings(
            listen=f"unix:{folder}/passing", data_dir=folder / "passing-data", engine="memory", secret=SecretStr(secret)
        )
        self.address = self._settings.listen
        self._running: Running | None = None

    async def start(self) -> None:
        self._running = Running(lambda lifecycle: serve(self._settings, lifecycle))
        await self._running.ready()

    async def stop(self) -> None:
        if self._running is not None:
            await self._running.stop()
            self._running = None
