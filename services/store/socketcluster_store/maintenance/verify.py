"""``python -m socketcluster_store.maintenance.verify FOLDER``: says which partitions are whole; nothing is written.

``FOLDER`` is a data folder, or one in it; it may be a copy that is read-only. What a store has open is not looked into.
The exit status is 1 if anything is not whole.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from socketcluster_store.engines.lmdb import inspection
from socketcluster_store.engines.shared_folder import manifests, register
from socketcluster_store.engines.shared_folder.generations import choose, not_ours
from socketcluster_store.engines.shared_folder.register import PartitionState, RegisterEntry
from socketcluster_store.errors import EngineError

DEPTH = 3
"""How far below the given folder the folders of partitions are looked for."""
_WHOLE, _LOST = "whole", "NOT WHOLE"


class Finding(NamedTuple):
    """What there is to say of a partition."""

    word: str
    text: str

    @property
    def lost(self) -> bool:
        """Is something missing?"""
        return self.word == _LOST


def folders_of(given: Path) -> list[Path]:
    """Return the folders of all partitions of each application in or above a folder."""
    if given.name == "partitions":
        return [given]
    patterns = ["/".join(["*"] * depth + ["partitions"]) for depth in range(DEPTH)]
    return sorted(path for pattern in patterns for path in given.glob(pattern) if path.is_dir())


def examine(folder: Path) -> Iterator[tuple[str, Finding]]:
    """Yield what there is to say of the register and of each partition in a folder, by name."""
    entries = register.registered(folder)
    if entries is None:
        entries = register.found(folder)
        states = {entry.state for entry in entries}
        if PartitionState.EXPECTED in states or (folder / manifests.NAME).exists():
            yield manifests.NAME, Finding(_LOST, "the register of all partitions is missing or was cut short")
        elif PartitionState.FORMER in states:
            yield manifests.NAME, Finding("not there", "a folder of a version that knew of no manifests")
    for number, entry in enumerate(entries):
        path = folder / f"{number:02}"
        yield path.name, _examine(path, number, entry)


def _examine(path: Path, number: int, entry: RegisterEntry) -> Finding:
    try:
        chosen = choose(path, number, entry)
        folder = path / str(chosen.generation)
        if (
            entry.state is not PartitionState.KNOWN
            and not (folder / manifests.DATA).exists()
            and chosen.manifest is None
        ):
            return Finding(
                "not there", "it has never been used" if entry.state is PartitionState.NEW else entry.state.name.lower()
            )
        holder = _holder(folder)
        if holder is not None:
            return Finding("in use", f"by {holder}; what a store has open is not looked into")
        contents = inspection.in_a_child(lambda: inspection.inspect(folder, chosen.manifest))
        if chosen.taken and not inspection.opened_here(folder):
            return Finding(_LOST, str(not_ours(path, chosen)))
    except (EngineError, OSError) as error:
        return Finding(_LOST, str(error))
    text = f"generation {chosen.generation}, {contents}"
    if chosen.taken:
        text += "; without a manifest: a store of a version before manifests took the partition over"
    if chosen.strangers:
        text += f"; folders that do not belong to it: {', '.join(map(str, chosen.strangers))}"
    return Finding(_WHOLE, text)


def _holder(folder: Path) -> str | None:
    """Return which store has a partition open; ``None``: none has. Its lock is not taken from it."""
    try:
        descriptor = os.open(folder / "owner.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 1024, 1).rstrip(b"\0").decode(errors="replace") or "another process"
    else:
        return None
    finally:
        os.close(descriptor)


def main(arguments: list[str]) -> int:
    """Print what there is to say; return the exit status."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write("usage: socketcluster store verify FOLDER\n")
        return 2
    folders = folders_of(Path(arguments[0]))
    if not folders:
        sys.stderr.write(f"{arguments[0]} has no partitions of an application below it\n")
        return 1
    lost = 0
    for folder in folders:
        sys.stdout.write(f"{folder}\n")
        words: dict[str, int] = {}
        for name, finding in examine(folder):
            sys.stdout.write(f"  {name:8}  {finding.word:9}  {finding.text}\n")
            words[finding.word] = words.get(finding.word, 0) + 1
            lost += finding.lost
        sys.stdout.write("  " + ", ".join(f"{count} {word}" for word, count in sorted(words.items())) + "\n")
    return min(lost, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
