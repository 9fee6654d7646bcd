"""Scripts that are run in Valkey for a store whose partition it is no longer: each looks itself and changes nothing."""

from __future__ import annotations

from secrets import token_hex
from typing import Any

import pytest
from support.store.valkey import Server, valkey_engine

from socketcluster_store.engines.valkey import scripts
from socketcluster_store.executor import ExecutorOptions

pytestmark = pytest.mark.valkey

FENCED = b"FENCED"


@pytest.mark.parametrize(
    ("script", "args", "expected"),
    [
        (scripts.APPLY, (1, 2, b"k", b"v"), FENCED),
        (scripts.APPLY, (0, 0), FENCED),
        (scripts.READ, (0, 0), FENCED),
        (scripts.LOAD, (0, 10), FENCED),
        (scripts.CONFIRM, (0, 1), 0),
    ],
    ids=["write", "read", "confirmed read", "load", "release"],
)
@pytest.mark.parametrize("by", ["another", "itself", "nobody"])
async def test_a_script_of_a_former_owner_does_nothing(
    valkey: Server, script: scripts.Script, args: tuple[Any, ...], expected: object, by: str
) -> None:
    key = scripts.partition_key(token_hex(8), 7)
    async with valkey_engine(valkey, ExecutorOptions(1 << 20)) as engine:
        _open, epoch, *_rest = await engine._servers.call(key, scripts.OPEN, "one-1", "")
        if by == "nobody":
            await engine._servers.call(key, scripts.CONFIRM, "one-1", epoch, 0, 1)
        else:
            await engine._servers.call(key, scripts.OPEN, "two-2" if by == "another" else "one-1", "one-1")
        before = valkey.ask("HGETALL", key)
        reply = await engine._servers.call(key, script, "one-1", epoch, *args)
        assert (reply[0] if isinstance(reply, list) else reply) == expected
        assert valkey.ask("HGETALL", key) == before
