"""Networks of a test's own, which it can cut: a process in a network namespace, with a cable to this one."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_numbers = itertools.count(1)


@dataclass
class Cable:
    """A way between a namespace and this one, on which each side has an address (of 198.18.0.0/15, RFC 2544)."""

    inside: str
    """The address of the namespace's end."""
    outside: str
    """The address of this side's end."""
    _name: str

    def cut(self) -> None:
        """Have nothing come through: neither side is told."""
        _ip("link", "set", self._name, "down")

    def mend(self) -> None:
        """Have everything come through again."""
        _ip("link", "set", self._name, "up")


@dataclass
class Elsewhere:
    """A network namespace.

    Attributes:
        prefix: what a command line begins with that is to run there.
    """

    prefix: tuple[str, ...]
    cables: list[Cable] = field(default_factory=list)


@contextmanager
def elsewhere(cables: int) -> Iterator[Elsewhere]:
    """Make a namespace with so many cables to this one."""
    name = f"sc{os.getpid()}-{next(_numbers)}"
    _ip("netns", "add", name)
    made = Elsewhere(("ip", "netns", "exec", name))
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        for _ in range(cables):
            number = next(_numbers)
            net = f"198.{18 + os.getpid() % 2}.{os.getpid() // 2 % 256}.{4 * number % 256}"
            base, _, last = net.rpartition(".")
            cable = Cable(f"{base}.{int(last) + 1}", f"{base}.{int(last) + 2}", f"sc{os.getpid()}.{number}")
            peer = f"in.{number}"
            _ip("link", "add", cable._name, "type", "veth", "peer", "name", peer, "netns", name)
            _ip("-n", name, "address", "add", f"{cable.inside}/30", "dev", peer)
            _ip("address", "add", f"{cable.outside}/30", "dev", cable._name)
            _ip("-n", name, "link", "set", peer, "up")
            _ip("link", "set", cable._name, "up")
            made.cables.append(cable)
        yield made
    finally:
        _ip("netns", "delete", name)  # and with it the cables


def lack() -> str | None:
    """Return what keeps this machine from making one."""
    try:
        with elsewhere(1):
            return None
    except (OSError, subprocess.CalledProcessError):
        return "no right to make a network namespace, or no ip(8)"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
