"""``python -m socketcluster_store.maintenance.accept [--yes] PARTITION...``: gives up what is missing, deliberately.

Each ``PARTITION`` is a folder such as ``data/store/socketcluster/partitions/07``, as the store's log names it. Where
LMDB's data can be read, the partition goes on with that and with what the journals have; else it begins empty. Nothing
is removed: what is not used any more gets a name that begins with ``given-up``. Without ``--yes`` it is only said what
would be done. Stores may run; one that waits for the partition opens it at its next attempt.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from socketcluster_runtime.secrets.private_files import FILE_MODE
from socketcluster_store.engines.lmdb import inspection, journal
from socketcluster_store.engines.lmdb.journal import Segment
from socketcluster_store.engines.shared_folder import manifests
from socketcluster_store.engines.shared_folder.manifests import DATA, JOURNALS
from socketcluster_store.engines.shared_folder.register import PartitionState, Register, RegisterEntry
from socketcluster_store.errors import EngineError
from socketcluster_store_client.partitioning import PARTITION_COUNT

_NAMES = frozenset(f"{number:02}" for number in range(PARTITION_COUNT))
"""What folders of partitions are called: ``7`` is none, and has nothing to do with ``07``."""


class Acceptance(NamedTuple):
    """What is to become of a partition."""

    kept: int | None
    """The generation whose data is used; ``None``: it begins empty."""
    aside: list[Path]
    """What gets another name."""
    text: str


def plan(path: Path, entry: RegisterEntry) -> Acceptance:
    """Return what is to become of a partition whose folder is given.

    Raises:
        OSError: it cannot be read.
    """
    present = manifests.generations(path)
    readable = [each for each in present if _entries(path / str(each)) is not None]
    named = [each for each in readable if each == entry.generation]
    if not readable:
        text = "begins empty: there is no data.mdb that can be read. Everything that it had is given up"
        return Acceptance(None, [path / str(each) for each in present], text)
    kept = max(named or readable)
    folder = path / str(kept)
    damaged = [name for name in JOURNALS if not _counts(folder / name, inspection.applied_in(folder))]
    text = f"goes on with {_entries(folder)} entries of {folder / DATA}"
    if damaged:
        text += f"; what was written after its last checkpoint, and was in {' and '.join(damaged)}, is given up"
    else:
        text += " and with what its journals have that fits; what else was there is given up"
    return Acceptance(
        kept,
        [
            *(path / str(each) for each in present if each != kept),
            *(folder / name for name in (manifests.NAME, *damaged) if (folder / name).exists()),
        ],
        text,
    )


def _entries(folder: Path) -> int | None:
    try:
        return int(inspection.in_a_child(lambda: str(inspection.count(folder))))
    except EngineError:
        return None


def _counts(path: Path, applied: int) -> bool:
    """Is a file a segment that may be used?"""
    try:
        if path.stat().st_size < journal.SEGMENT_BYTES:
            return False
        segment = Segment(path, 0, readonly=True)
    except (EngineError, OSError):
        return False
    segment.close()
    return segment.generation <= applied + 2


def carry_out(path: Path, number: int, register: Register, decided: Acceptance) -> None:
    """Do what was planned; the partition is locked.

    Raises:
        OSError: it cannot be done.
    """
    mark = f"given-up-{time.time_ns() // 1_000_000}"
    for each in decided.aside:
        each.rename(path / f"{mark}-{'-'.join(each.relative_to(path).parts)}")
    if decided.kept is not None:
        for name in JOURNALS:
            file = path / str(decided.kept) / name
            if not file.exists():
                Segment(file, journal.SEGMENT_BYTES).close()
    register.write(number, RegisterEntry(PartitionState.ACCEPTED, sequence=register.entry(number).sequence + 1))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep stores from a partition.

    Raises:
        BlockingIOError: one has it, or is opening it.
    """
    with contextlib.ExitStack() as stack:
        for name in ("claim.lock", *(f"{each}/owner.lock" for each in manifests.generations(path))):
            descriptor = os.open(path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def accept(path: Path, *, really: bool) -> str:
    """Give up what is missing of a partition; return what there is to say.

    Raises:
        EngineError, OSError: it cannot be done.
    """
    if path.name not in _NAMES or not path.parent.is_dir():
        raise EngineError("is no folder of a partition: give one such as data/store/socketcluster/partitions/07")
    number = int(path.name)
    register = Register(path.parent)
    try:
        if not really and not path.exists():  # nothing to lock, nor to be made
            return plan(path, register.entry(number)).text
        path.mkdir(0o700, exist_ok=True)
        with _locked(path):
            decided = plan(path, register.entry(number))
            if really:
                carry_out(path, number, register, decided)
    except BlockingIOError:
        raise EngineError("is open in a store: nothing of it is missing, or the store has not noticed it yet") from None
    return decided.text


def main(arguments: list[str]) -> int:
    """Carry the command out; return the exit status."""
    really = "--yes" in arguments
    paths = [Path(each) for each in arguments if each != "--yes"]
    if not paths or any(str(path).startswith("-") for path in paths):
        sys.stderr.write("usage: socketcluster store accept [--yes] PARTITION...\n")
        return 2
    status = 0
    for path in paths:
        try:
            sys.stdout.write(f"{path}: {accept(path, really=really)}\n")
        except (EngineError, OSError) as error:
            sys.stderr.write(f"{path}: {error}\n")
            status = 1
    if not really:
        sys.stdout.write("nothing was done: give --yes to do it\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
