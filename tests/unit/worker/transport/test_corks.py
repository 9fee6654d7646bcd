"""What was sent in one loop turn is written behind it, to everybody."""

from __future__ import annotations

import asyncio
from typing import Any

from socketcluster_worker.transport import corks


class Corked:
    """Notes that it wrote, or fails."""

    def __init__(self, name: str, written: list[str], *, fails: bool = False) -> None:
        self._name = name
        self._written = written
        self._fails = fails

    def uncork(self) -> None:
        if self._fails:
            raise RuntimeError(self._name)
        self._written.append(self._name)


async def test_all_are_written_to_behind_the_turn_in_their_order_whoever_fails() -> None:
    written: list[str] = []
    failed: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failed.append(context))
    these = corks.of_loop()
    for name in "abc":
        these.add(Corked(name, written, fails=name == "b"))
    assert not written
    await asyncio.sleep(0)
    assert written == ["a", "c"]
    assert [str(context["exception"]) for context in failed] == ["b"]
    these.add(Corked("d", written))
    await asyncio.sleep(0)
    assert written == ["a", "c", "d"]


async def test_each_loop_has_its_own() -> None:
    mine = corks.of_loop()
    assert corks.of_loop() is mine

    async def of_another() -> corks.Corks:
        return corks.of_loop()

    assert await asyncio.to_thread(lambda: asyncio.run(of_another())) is not mine
