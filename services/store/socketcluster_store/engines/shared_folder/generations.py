"""Which of a partition's folders counts: the highest generation that is its own, if nothing is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from socketcluster_store.engines.shared_folder.manifests import (
    DATA,
    JOURNALS,
    NAME,
    Manifest,
    generations,
    lacking,
    read,
)
from socketcluster_store.engines.shared_folder.register import PartitionState, RegisterEntry
from socketcluster_store.errors import EngineError, IncompleteError


@dataclass(frozen=True)
class Choice:
    """Which of a partition's folders counts."""

    generation: int
    manifest: Manifest | None
    """What its folder says; ``None``: it is new, or of a version that knew of none."""
    earlier: tuple[int, ...]
    """Those before it that are the partition's own, and are to be removed."""
    strangers: tuple[int, ...]
    """Those that are not; they are left alone."""
    taken: bool = False
    """Is it without a manifest in its folder, as a store of a version before manifests makes one that takes the
    partition over? ``manifest`` is what it would say, if the folder is the partition's own: see ``not_ours``."""


def choose(path: Path, number: int, entry: RegisterEntry) -> Choice:
    """Return the generation of a partition that counts.

    Raises:
        IncompleteError: what is there does not fit what is known.
        OSError: it cannot be read.
    """
    present = generations(path)
    manifests: dict[int, Manifest] = {}
    damaged = ""
    for each in present:
        try:
            manifest = read(path / str(each))
        except EngineError as error:
            damaged = str(error)
            continue
        if manifest is not None and manifest.generation == each:
            manifests[each] = manifest
    if entry.state is PartitionState.KNOWN:
        fitting = [each for each, manifest in manifests.items() if manifest.identity == entry.identity]
    else:
        fitting = list(manifests)
    if fitting:
        chosen = max(fitting)
        if chosen < entry.generation:
            raise lacking(path, number, f"its generation {entry.generation} is missing, {chosen} is an older one")
        identity = manifests[chosen].identity
        earlier = [each for each in fitting if each < chosen and manifests[each].identity == identity]
    elif entry.state is PartitionState.KNOWN and _may_be_taken(path, present, entry):
        chosen = present[-1]
        journals = [path / str(chosen) / name for name in JOURNALS]
        size = min((each.stat().st_size for each in journals if each.exists()), default=0)
        return Choice(chosen, Manifest(entry.identity, chosen, size), (), tuple(present[:-1]), taken=True)
    elif entry.state in (PartitionState.KNOWN, PartitionState.EXPECTED):
        raise lacking(path, number, damaged or _absence(path, present, manifests, entry))
    else:  # new, or of a version that knew of no manifests
        chosen = max(present, default=1)
        if entry.state is PartitionState.FORMER and not (path / str(chosen) / DATA).exists():
            raise lacking(path, number, f"{path / str(chosen) / DATA} is missing")
        earlier = [each for each in present if each != chosen]
    strangers = tuple(each for each in present if each not in (chosen, *earlier))
    return Choice(chosen, manifests.get(chosen), tuple(earlier), strangers)


def _may_be_taken(path: Path, present: list[int], entry: RegisterEntry) -> bool:
    """Is the last folder a later generation that has no manifest, and data?"""
    if not present or present[-1] <= entry.generation:
        return False
    last = path / str(present[-1])
    return (last / DATA).exists() and not (last / NAME).exists()


def not_ours(path: Path, choice: Choice) -> IncompleteError:
    """Return the error about a folder that was ``taken``, but that no store has had open where it lies."""
    return lacking(
        path,
        int(path.name),
        f"the generation that was known is missing, and {path / str(choice.generation)} has no manifest. If a store of"
        " a version before manifests made that when it took the partition over, accepting it gives up nothing that is"
        " in it",
    )


def _absence(path: Path, present: list[int], manifests: dict[int, Manifest], entry: RegisterEntry) -> str:
    if not path.exists():
        return "its folder is missing"
    if manifests:
        return f"what is in its folder {max(manifests)} belongs to another partition or installation"
    if entry.generation in present or (present and not entry.generation):
        return f"{path / str(entry.generation or max(present)) / NAME} is missing"
    return f"its folder {entry.generation} is missing" if entry.generation else "it is empty"
