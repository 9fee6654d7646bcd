"""What the configuration of Valkey means for what it acknowledges, looked at when connecting and every minute.

Partitions are keys without an end. A server that evicts such keys when its memory is full loses whole partitions, and
nobody is told: that is refused at the start, unless ``valkey_allow_eviction`` says so. What loses data only with a
machine or a process is said, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as LateError

from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store.errors import EngineError

log = get_logger(__name__)

INTERVAL = 60.0
"""Seconds between two looks."""
_ASKED = ("maxmemory", "maxmemory-policy", "appendonly", "save", "min-replicas-to-write")

Ask = Callable[[], Awaitable[Sequence[tuple[str, Redis]]]]
"""Returns the addresses of all servers that have partitions, and a client of each."""


class Setup(NamedTuple):
    """How a server is set up; ``None``: it does not say."""

    maxmemory: int | None = None
    policy: str | None = None
    appendonly: bool | None = None
    snapshots: bool | None = None
    min_replicas: int | None = None
    replicas: int | None = None
    """How many it has."""

    @property
    def known(self) -> bool:
        """Does it say what has to be known?"""
        return self.policy is not None

    @property
    def evicts(self) -> bool:
        """Does it remove keys of any kind when its memory is full? ``volatile-`` policies remove none of stores."""
        return bool(self.maxmemory) and (self.policy or "").startswith("allkeys")


async def setup_of(client: Redis) -> Setup:
    """Ask a server: by CONFIG GET, where that is not allowed, as managed services have it, by INFO.

    Raises:
        OSError: it does not answer.
        RedisError: likewise.
    """
    config, info = await _config(client), await _info(client)
    memory, appendonly, min_replicas = config.get("maxmemory"), config.get("appendonly"), config.get(_ASKED[4])
    return Setup(
        maxmemory=_number(memory if memory is not None else info.get("maxmemory")),
        policy=config.get("maxmemory-policy") or info.get("maxmemory_policy"),
        appendonly=appendonly == "yes" if appendonly else _flag(info.get("aof_enabled")),
        snapshots=bool(config["save"].strip()) if "save" in config else None,
        min_replicas=_number(min_replicas),
        replicas=_number(info.get("connected_slaves")),
    )


async def _config(client: Redis) -> dict[str, str]:
    found = await _ask(client, "CONFIG", "GET", *_ASKED)
    words = [word.decode(errors="replace") for word in found] if isinstance(found, list) else []
    return dict(zip(words[::2], words[1::2], strict=False))


async def _info(client: Redis) -> dict[str, str]:
    found = await _ask(client, "INFO")
    return {name: str(value) for name, value in found.items()} if isinstance(found, dict) else {}


async def _ask(client: Redis, *words: str) -> Any:
    try:
        return await client.execute_command(*words)  # type: ignore[no-untyped-call]
    except (BrokenError, LateError):
        raise
    except ResponseError:  # it is forbidden, or has another name
        return None


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and value.isdecimal() else None


def _flag(value: str | None) -> bool | None:
    return None if value is None else value == "1"


class Durability:
    """Looks at the servers, and says what they may lose.

    Args:
        servers: who they are.
        wait_replicas: the option ``valkey_wait_replicas``.
        allow_eviction: the option ``valkey_allow_eviction``.
    """

    def __init__(self, servers: Ask, *, wait_replicas: int, allow_eviction: bool) -> None:
        self._servers = servers
        self._wait_replicas = wait_replicas
        self._allow_eviction = allow_eviction
        self._said: dict[str, frozenset[str]] = {}  # by the address of a server, what is said of it
        self._eviction = Condition(
            log,
            "Valkey evicts partitions when its memory is full",
            over="Valkey does not evict partitions any more",
            level="error",
            lasts=True,
        )

    async def check(self) -> None:
        """Look for the first time.

        Raises:
            EngineError: a server may evict partitions.
        """
        evicting = await self.look()
        if evicting and not self._allow_eviction:
            self._eviction.close()
            where, setup = evicting[0]
            raise EngineError(
                f"Valkey at {where} evicts keys when its memory is full (maxmemory-policy {setup.policy}, maxmemory"
                f" {setup.maxmemory}): whole partitions, and what was acknowledged with them, would be lost. Set it to"
                " noeviction (CONFIG SET maxmemory-policy noeviction, and in its configuration); to go on nevertheless,"
                " give the stores SOCKETCLUSTER_VALKEY_ALLOW_EVICTION=true (--valkey-allow-eviction)"
            )

    async def watch(self, also: Callable[[], object]) -> None:
        """Look again every minute, until cancelled, and call ``also``."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.look()
            also()

    def close(self) -> None:
        """Say nothing more."""
        self._eviction.close()

    async def look(self) -> list[tuple[str, Setup]]:
        """Look at all servers, say what is new, and return those that evict partitions."""
        try:
            servers = await self._servers()
        except (RedisError, OSError, EngineError):  # which others say
            return []
        evicting = []
        for where, client in servers:
            try:
                setup = await setup_of(client)
            except (RedisError, OSError):
                continue
            if setup.evicts:
                evicting.append((where, setup))
            self._say(where, setup)
        if self._allow_eviction:
            return evicting
        if evicting:
            self._eviction.add(
                valkey=[where for where, _ in evicting],
                policy=evicting[0][1].policy,
                what_to_do="set maxmemory-policy to noeviction: evicted partitions are lost as a whole",
            )
        else:
            self._eviction.end()
        return evicting

    def _say(self, where: str, setup: Setup) -> None:
        risks = dict(self._risks(setup))
        before = self._said.get(where, frozenset())
        for risk in risks.keys() - before:
            log.warning(risk, valkey=where, what_to_do=risks[risk])
        for risk in before - risks.keys():
            log.info("a warning about Valkey holds no longer", valkey=where, warning=risk)
        self._said[where] = frozenset(risks)

    def _risks(self, setup: Setup) -> list[tuple[str, str]]:
        """Return what there is to warn of, and what to do about it."""
        risks = []
        policy = setup.policy or "noeviction"
        if not setup.known:
            risks.append(
                (
                    "it could not be looked at whether Valkey keeps what it acknowledges",
                    "let the user call INFO or CONFIG GET (ACL: +info, +config|get); else see to it yourself that"
                    " maxmemory-policy is noeviction and appendonly is yes",
                )
            )
        elif setup.evicts and self._allow_eviction:
            risks.append(
                (
                    "Valkey evicts partitions when its memory is full, as valkey_allow_eviction allows",
                    "know that evicted partitions are lost as a whole, with all that was acknowledged",
                )
            )
        elif not setup.evicts and policy != "noeviction":
            risks.append(
                (
                    "the maxmemory-policy of Valkey is not noeviction",
                    f"set it to noeviction: with {policy} "
                    + (
                        "keys that expire are evicted, which are none of the stores'"
                        if setup.maxmemory
                        else "keys are evicted as soon as somebody sets maxmemory"
                    ),
                )
            )
        if setup.appendonly is False and setup.snapshots is not True:
            risks.append(
                (
                    "Valkey keeps nothing on a disk"
                    if setup.snapshots is False
                    else "Valkey has no append-only file, and does not say whether it saves snapshots",
                    "set appendonly to yes, else all data is lost when its process ends, or those of all replicas do",
                )
            )
        elif setup.appendonly is False:
            risks.append(
                (
                    "Valkey keeps snapshots only",
                    "set appendonly to yes, else what came after the last snapshot is lost when its process ends",
                )
            )
        if setup.replicas is not None and self._wait_replicas > setup.replicas:
            risks.append(
                (
                    "Valkey has fewer replicas than valkey_wait_replicas",
                    f"add replicas, or lower it: {setup.replicas} of {self._wait_replicas} are connected, so nothing is"
                    " acknowledged",
                )
            )
        elif setup.replicas and not self._wait_replicas and setup.min_replicas == 0:
            risks.append(
                (
                    "a failover of Valkey loses what its replica does not have yet",
                    "set valkey_wait_replicas to the replicas of each primary, or min-replicas-to-write in Valkey",
                )
            )
        return risks
