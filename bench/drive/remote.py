"""The load generator as works see it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

Health = Callable[[float, float], None]
"""Is told the share of a core that a command took of the generator, and how late its timers were, in seconds."""


def _nobody(_busy: float, _late: float) -> None:
    """Nobody wants to know."""


class GeneratorError(RuntimeError):
    """A command of the generator failed: the server did not do what it is measured at."""


class Remote:
    """A process of the generator, for one server.

    Args:
        dialect: name of what its clients speak.
        port: of the server.
        number: of the process; its addresses come from it.
        authority: file of the server's certificate; without, there is no TLS.

    Attributes:
        health: is told how each command was for the generator.
    """

    def __init__(self, dialect: str, port: int, number: int, authority: Path | None = None) -> None:
        self._argv = [dialect, str(port), str(number), *([] if authority is None else [str(authority)])]
        self.health: Health = _nobody
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.drive.process", *self._argv),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            limit=1 << 20,
        )

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Have a command run; return what it counted.

        Raises:
            GeneratorError: with what it says.
        """
        assert self._process is not None  # noqa: S101  # it was started
        assert self._process.stdin is not None  # noqa: S101  # they are pipes
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(json.dumps([name, arguments]).encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise GeneratorError(f"the load generator ended during {name}")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise GeneratorError(f"{name}: {said['error']}")
        if said["took"] > 0.05:  # a shorter one says nothing
            self.health(said["busy"], said["late"])
        result: dict[str, Any] = said["result"]
        return result

    async def stop(self) -> None:
        """End it, and so its connections."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
