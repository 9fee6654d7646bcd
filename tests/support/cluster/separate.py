"""A cluster as on many machines: each service is started on its own, and reaches the others by TCP."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from support.cluster.cluster import until
from support.network.ports import free_port

SECRET = "a secret of the tests"


class SeparateServices:
    """Starts services, and stops them at its end.

    Attributes:
        log_path: where all of them log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = AsyncExitStack()
        self.log_path = folder / "services.log"

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def start(
        self, service: str, name: str, prefix: tuple[str, ...] = (), /, **environ: str
    ) -> asyncio.subprocess.Process:
        """Start a process of a service by a command line that begins so; ``environ`` names its options in capitals."""
        with self.log_path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(*prefix, sys.executable, "-m", f"socketcluster_{service}"),
                env=_environ(NAME=name, **environ),
                stderr=log,
            )
        self._stack.push_async_callback(_stop, process)
        return process

    async def store(self, name: str, **environ: str) -> str:
        """Start a store; return its address."""
        address = f"127.0.0.1:{free_port()}"
        await self.start("store", name, LISTEN=address, DATA_DIR=str(self._folder / "data"), **environ)
        return address

    async def worker(self, name: str, controller: Path, stores: list[str], **environ: str) -> str:
        """Start a worker; return the address at which balancers watch it."""
        address = f"127.0.0.1:{free_port()}"
        options = {
            "CONTROLLER": str(controller),
            "STORES": ",".join(stores),
            "CONTROL_LISTEN": address,
            "HTTP_LISTEN": "127.0.0.1:0",
        }
        await self.start("worker", name, **options, **environ)
        return address

    async def balancer(self, workers: list[str], **environ: str) -> str:
        """Start a balancer; return its URL."""
        address = f"127.0.0.1:{free_port()}"
        await self.start("balancer", "balancer", LISTEN=address, WORKERS=",".join(workers), **environ)
        return f"http://{address}"

    async def unwell(self, address: str, prefix: tuple[str, ...] = (), /, **environ: str) -> str:
        """Return what the health check says is wrong with a service, for who has the secret; nothing if it is well."""
        process = await asyncio.create_subprocess_exec(
            *(*prefix, sys.executable, "-m", "socketcluster_runtime.health", address),
            env=_environ(**environ),
            stderr=asyncio.subprocess.PIPE,
        )
        _, error = await process.communicate()
        return error.decode()

    async def logged(self, text: str) -> None:
        """Return when somebody has logged a line with ``text``."""
        await until(self.log, lambda lines: text in lines)

    async def log(self) -> str:
        """Return what was logged."""
        return await asyncio.to_thread(self.log_path.read_text)


def _environ(**options: str) -> dict[str, str]:
    common = {"SECRET": SECRET, "PARENT": str(os.getpid())}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SOCKETCLUSTER_")}
    return inherited | {f"SOCKETCLUSTER_{key}": value for key, value in (common | options).items()}


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()
