"""What is remembered of one process of a worker: the last operation that was applied, and results it may not have yet.

The results of a batch are written once, or a few times as long as they are few, and removed when the worker has them;
so a batch costs what is in it, however many results wait. A process has one record of the first kind::

    o <worker>/<incarnation>               MessagePack: [highest id, when, results]
    o NUL <slot> <worker>/<incarnation>    a page, MessagePack: results

The time is in seconds since the Unix epoch; a result is [id, error code, result, error name]. The newest results are in
the first record, which every batch writes anew. When they are more than a few, they become a page in a free slot.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import FORGET, REMEMBER, Command, Outcome
from socketcluster_store.data.channel_log import answer_of
from socketcluster_store.data.key_value import KeyValue
from socketcluster_store.errors import Refusal, refusal_of

KEPT_BYTES = 16 * 1024 * 1024
"""Bytes of results of a process; of older ones it is only known that they were applied."""
KEPT_RESULTS = 262_144
"""Results of a process: more than a worker may have under way."""
PAGE_RESULTS = 16
"""Results that may stand in the first record, and be written again with each batch; more become a page."""
PAGE_BYTES = 4096
"""Bytes of them."""

PREFIX = b"o"
_PAGE_PREFIX = PREFIX + b"\0"
_SLOT = struct.Struct(">I")

KeptResult = tuple[int, int, bytes, str]
"""Id, error code or 0, result or the error's text, name of a procedure's error."""
_PUBLISH = store_pb2.VERB_CHANNEL_PUBLISH
_LOST = (store_pb2.Error.CODE_RESULT_LOST, b"applied before, but its result was too large to be kept", "")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, int, list[KeptResult]]).decode
_decode_page = msgspec.msgpack.Decoder(list[KeptResult]).decode


class _Page:
    """Results in a record of their own."""

    __slots__ = ("ids", "size", "slot")

    def __init__(self, slot: int, results: Sequence[KeptResult]) -> None:
        self.slot = slot
        self.ids = [result[0] for result in results]
        self.size = _size(results)
        """Bytes; 0: of its operations it is only known that they were applied."""

    def lost(self) -> list[KeptResult]:
        """Return what is left where there is no room for the results."""
        return [(operation_id, *_LOST) for operation_id in self.ids]


class _Written(NamedTuple):
    """What a batch did to the pages."""

    done: list[_Page]
    """Those that were removed."""
    page: _Page | None = None
    """The one that was added."""
    results: Sequence[KeptResult] = ()
    """What is on it."""
    crowded_out: Sequence[_Page] = ()
    """Those that lost their results."""


class AppliedLog:
    """What is kept of one process of a worker; what ``REMEMBER`` writes counts here once it is committed."""

    __slots__ = (
        "_answered", "_command_ids", "_free", "_ids", "_last", "_now", "_pages", "_recent", "_refused", "_results",
        "_size", "_whole", "_written", "at", "highest", "process",
    )  # fmt: skip

    def __init__(
        self,
        process: bytes,
        highest: int = 0,
        at: float = 0,
        recent: Sequence[KeptResult] = (),
        pages: Sequence[tuple[int, list[KeptResult]]] = (),
    ) -> None:
        self.process = process
        self.highest = highest
        """Of the operations that change something, the last one's id."""
        self.at = at
        """When that was applied."""
        self._pages = deque(_Page(slot, results) for slot, results in sorted(pages, key=lambda page: page[1][-1][0]))
        self._size = sum(page.size for page in self._pages)
        self._whole = deque(page for page in self._pages if page.size)  # those that have their results
        self._recent = list(recent)  # what is on no page
        self._results = {result[0]: result for result in (*(each for _, page in pages for each in page), *recent)}
        self._ids = deque(sorted(self._results))  # the operations whose results the worker may not have
        used = {page.slot for page in self._pages}
        self._free = [slot for slot in range(max(used, default=0)) if slot not in used]  # below the highest
        # Of the batch under way
        self._last = self._answered = highest
        self._refused: Sequence[KeptResult] = ()
        self._command_ids: Callable[[], Sequence[int]] = tuple
        self._now = at
        self._written: _Written | None = None

    def outcome(self, operation_id: int) -> Outcome | None:
        """Return what became of an operation that was applied; ``None``: its result was empty, or the worker has it."""
        if (found := self._results.get(operation_id)) is None:
            return None
        _, code, result, name = found
        return refusal_of(code, result.decode(), name) if code else result

    def command(
        self, last: int, answered: int, refused: Sequence[KeptResult], ids: Callable[[], Sequence[int]], now: float
    ) -> Command:
        """Return the command that ends a batch, so that it is known to be applied; ``settle`` or the next one follows.

        Args:
            last: the id of the last operation of the batch that changes something.
            answered: the first operation of which the worker may not have the result.
            refused: what is to be remembered of operations that have no command in the batch.
            ids: returns of each command the id of the operation that it carries out, if its result is to be
                remembered, or 0.
            now: seconds since the Unix epoch.
        """
        self._last = last
        self._answered = answered
        self._refused = refused
        self._command_ids = ids
        self._now = now
        self._written = None
        return Command(REMEMBER, self.process, detail=self)

    def forgetting(self) -> Command:
        """Return the command that removes all that is kept."""
        return Command(FORGET, self.process, detail=[page.slot for page in self._pages])

    def settle(self, results: Sequence[KeptResult]) -> None:
        """Note that the batch of the last ``command`` is committed, and all results of it, in order of their ids."""
        self.highest = self._last
        self.at = self._now
        if results or self._ids:
            self._take(results)

    def write(self, kv: KeyValue, batch: Sequence[Command], outcomes: Sequence[Outcome]) -> None:
        """Carry the last ``command`` out, after the commands of its batch that have ``outcomes``."""
        results: Sequence[KeptResult] = ()
        if self._ids or self._refused or any(outcomes):
            results = self._settled(batch, outcomes)
            done = self._done(self._answered)
            for page in done:
                kv.delete(_page_key(page.slot, self.process))
            if len(results) > PAGE_RESULTS or _size(results) > PAGE_BYTES:
                self._written = self._add_page(kv, _bounded(results), done)
                results = ()
            elif done:
                self._written = _Written(done)
        kv.put(PREFIX + self.process, _encode((self._last, int(self._now), results)))

    def _settled(self, batch: Sequence[Command], outcomes: Sequence[Outcome]) -> list[KeptResult]:
        """Return the results that stand on no page, in the order of their operations."""
        results = [*self._waiting(self._answered), *self._refused]
        if any(outcomes):
            results += [
                result_of(
                    operation_id,
                    answer_of(outcome) if each.verb == _PUBLISH and isinstance(outcome, bytes) else outcome,
                )
                for operation_id, each, outcome in zip(self._command_ids(), batch, outcomes, strict=False)
                if operation_id and outcome != b""
            ]
        return sorted(results) if self._refused else results

    def _add_page(self, kv: KeyValue, results: Sequence[KeptResult], done: list[_Page]) -> _Written:
        added = _Page(self._free[-1] if self._free else len(self._pages), results)
        kv.put(_page_key(added.slot, self.process), _encode(results))
        crowded_out = self._crowded_out(added.size, done)
        for page in crowded_out:
            kv.put(_page_key(page.slot, self.process), _encode(page.lost()))
        return _Written(done, added, results, crowded_out)

    def _waiting(self, answered: int) -> list[KeptResult]:
        """Return the results that stand on no page, from an operation on."""
        return [result for result in self._recent if result[0] >= answered]

    def _done(self, answered: int) -> list[_Page]:
        """Return the oldest pages: those of which the worker has everything, and what would be too many results."""
        done = []
        too_many = len(self._ids) - KEPT_RESULTS
        for page in self._pages:
            if page.ids[-1] >= answered and too_many <= 0:
                break
            too_many -= len(page.ids)
            done.append(page)
        return done

    def _crowded_out(self, size: int, done: Sequence[_Page]) -> list[_Page]:
        """Return the oldest pages whose place ``size`` bytes more need, those that are ``done`` being gone."""
        crowded_out = []
        total = self._size + size - sum(page.size for page in done)
        if total > KEPT_BYTES:
            for page in islice(self._whole, sum(1 for page in done if page.size), None):
                if total <= KEPT_BYTES:
                    break
                total -= page.size
                crowded_out.append(page)
        return crowded_out

    def _take(self, new: Sequence[KeptResult]) -> None:
        results, ids = self._results, self._ids
        for result in new:
            results[result[0]] = result
            ids.append(result[0])
        self._recent += new
        answered = self._answered
        if (written := self._written) is not None:
            if written.page is not None:
                self._add(written.page, written.results)
            for page in written.done:
                self._pages.popleft()
                if page.size:
                    self._whole.popleft()
                self._size -= page.size
                self._free.append(page.slot)
                answered = max(answered, page.ids[-1] + 1)
            for page in written.crowded_out:
                self._whole.popleft()
                self._size -= page.size
                page.size = 0
                results.update((result[0], result) for result in page.lost())
        while ids and ids[0] < answered:
            del results[ids.popleft()]
        self._recent = self._waiting(answered)

    def _add(self, page: _Page, results: Sequence[KeptResult]) -> None:
        if self._free:
            self._free.pop()
        self._pages.append(page)
        if page.size:
            self._whole.append(page)
        self._size += page.size
        self._results.update((result[0], result) for result in results)
        on_page = set(page.ids)
        self._recent = [result for result in self._recent if result[0] not in on_page]


def remember(kv: KeyValue, command: Command, batch: Sequence[Command], outcomes: Sequence[Outcome]) -> bytes:
    """Carry ``REMEMBER`` out, after the commands of its batch that have ``outcomes``."""
    log = command.detail
    assert isinstance(log, AppliedLog)  # noqa: S101
    log.write(kv, batch, outcomes)
    return b""


def forget(kv: KeyValue, command: Command) -> bytes:
    """Carry ``FORGET`` out."""
    slots = command.detail
    assert isinstance(slots, list)  # noqa: S101
    for slot in slots:
        kv.delete(_page_key(slot, command.session_id))
    kv.delete(PREFIX + command.session_id)
    return b""


def read_records(records: Iterable[tuple[bytes, bytes]]) -> dict[str, AppliedLog]:
    """Return what is kept of each process, from all keys that begin with ``PREFIX``."""
    pages: dict[bytes, list[tuple[int, list[KeptResult]]]] = {}
    firsts: list[tuple[bytes, bytes]] = []
    for key, record in records:
        if key.startswith(_PAGE_PREFIX):
            process = bytes(key[len(_PAGE_PREFIX) + _SLOT.size :])
            (slot,) = _SLOT.unpack_from(key, len(_PAGE_PREFIX))
            pages.setdefault(process, []).append((slot, _decode_page(record)))
        else:
            firsts.append((bytes(key[len(PREFIX) :]), record))
    return {
        process.decode(): AppliedLog(process, *_decode(record), pages.get(process, ())) for process, record in firsts
    }


def newest(kv: KeyValue) -> float:
    """Return a time that the last write of any process had not passed; 0 if nothing is known."""
    records = (record for key, record in kv.scan(PREFIX) if not key.startswith(_PAGE_PREFIX))
    return max((_decode(record)[1] + 1.0 for record in records), default=0.0)  # a fraction was left out


def result_of(operation_id: int, outcome: Outcome) -> KeptResult:
    """Return what is kept of an operation that had an outcome."""
    if isinstance(outcome, Refusal):
        return operation_id, outcome.code, str(outcome).encode(), outcome.name
    return operation_id, 0, outcome, ""


def _page_key(slot: int, process: bytes) -> bytes:
    return _PAGE_PREFIX + _SLOT.pack(slot) + process


def _size(results: Iterable[KeptResult]) -> int:
    return sum([len(result[2]) for result in results if result[1] != _LOST[0]])


def _bounded(results: Sequence[KeptResult]) -> list[KeptResult]:
    """Leave out the results of the oldest operations, until the others are few enough bytes."""
    kept = KEPT_BYTES
    bounded = []
    for result in reversed(results):
        kept -= len(result[2])
        bounded.append(result if kept >= 0 else (result[0], *_LOST))
    bounded.reverse()
    return bounded
