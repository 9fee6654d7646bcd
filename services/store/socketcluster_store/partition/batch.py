"""What a partition has to remember of operations while the engine carries them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from socketcluster_store.commands import Command, Outcome
from socketcluster_store.errors import EngineError
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition.watchers import Key
from socketcluster_store_client.messages import Operation

Answers = Sequence[Outcome] | EngineError
"""What became of a batch's commands, or why nothing did."""


class Batch(NamedTuple):
    """Operations of one link that are under way."""

    link: WorkerLink
    operations: Sequence[Operation]
    now: float
    outcomes: list[Outcome]
    commands: list[Command]
    places: list[int]
    """Of each command, the index of its outcome, or -1."""
    messages: list[tuple[int, Operation]]
    """What is told to others once the commands are done: place and operation."""
    last: Operation | None
    """The last operation that changes something."""
    watches: list[tuple[int, Key]]
    """The watches that begin: place and key chain."""
    tells: bool
    """Is what the commands change told to watchers?"""
    deadlines: bool
    """May the time change at which a session, key chain or watch is due?"""
    refused: bool = False
    """Was an operation refused that would have changed something?"""
    begun: Sequence[str] = ()
    """The sessions that begin."""
