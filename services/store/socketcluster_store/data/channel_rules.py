"""Which channels keep a history, and how much of it: the option ``channel_history``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate

from socketcluster_store_client.partitioning import PARTITION_COUNT

MIB = 1024 * 1024
MAX_COUNT = 1_000_000
"""The most messages that a history may have."""
MAX_AGE = 366 * 86_400.0
"""The most seconds that it may hold a message."""
DEFAULT_BYTES = 8 * MIB
"""The bytes that it may have where the rule does not say."""
MAX_CHANNELS = 100_000
"""Channels that may have a history, where the option ``max_history_channels`` does not say."""
CACHED_NAMES = 10_000
"""Channels of which it is remembered which rule is theirs."""


@dataclass(frozen=True, slots=True)
class HistoryRule:
    """How much of a channel is kept; whatever is reached first counts."""

    pattern: str
    """A channel's name, or one with ``*``, ``?`` and ``[...]`` as in ``fnmatch``."""
    count: int
    """Messages; 0: none, the channel has no history."""
    age: float
    """Seconds that a message is kept."""
    size: int
    """Bytes of messages."""


def parse_rule(text: str) -> HistoryRule:
    """Read ``pattern: count, age`` or ``pattern: count, age, bytes``.

    Raises:
        ValueError: it is anything else, or a number is out of its range.
    """
    pattern, colon, limits = text.rpartition(":")
    pattern = pattern.strip()
    numbers = [part.strip() for part in limits.split(",")]
    if not colon or not pattern or len(numbers) not in (2, 3):
        raise ValueError(f"{text.strip()!r} is not of the form `pattern: count, age` or `pattern: count, age, bytes`")
    try:
        count, age = int(numbers[0]), float(numbers[1])
        size = int(numbers[2]) if len(numbers) == 3 else DEFAULT_BYTES
    except ValueError:
        raise ValueError(f"{text.strip()!r}: count and bytes are whole numbers, age is a number of seconds") from None
    if not 0 <= count <= MAX_COUNT or not 0 < age <= MAX_AGE or not 0 < size <= 1024 * MIB:
        raise ValueError(
            f"{text.strip()!r}: count is 0 to {MAX_COUNT}, age up to {MAX_AGE:g} seconds, bytes up to {1024 * MIB}"
        )
    return HistoryRule(pattern, count, age, size)


class ChannelRules:
    """Finds the rule of a channel: of the patterns that match, the longest one's, of equally long ones the first.

    Args:
        rules: all.
        max_channels: how many channels may have a history, in all partitions.
    """

    def __init__(self, rules: Sequence[HistoryRule], max_channels: int = MAX_CHANNELS) -> None:
        self.max_channels = -(-max_channels // PARTITION_COUNT)
        """How many may in each partition."""
        by_length = sorted(rules, key=lambda rule: -len(rule.pattern))
        self._rules = [(re.compile(translate(rule.pattern)), rule) for rule in by_length]
        self._found: dict[str, HistoryRule | None] = {}

    def find(self, channel: str) -> HistoryRule | None:
        """Return the rule of a channel that has a history, else ``None``."""
        if not self._rules or channel[0] == "\0":  # such channels are the workers' own: the buses of namespaces
            return None
        try:
            return self._found[channel]
        except KeyError:
            pass
        found = next((rule for pattern, rule in self._rules if pattern.match(channel)), None)
        if found is not None and not found.count:
            found = None
        if len(self._found) >= CACHED_NAMES:
            self._found.clear()
        self._found[channel] = found
        return found
