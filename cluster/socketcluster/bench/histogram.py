"""How long things took: counts in buckets whose width grows with the value, as HdrHistogram has them."""

from __future__ import annotations

import math

import msgspec

_BITS = 8
"""Significant bits of a bucket: a value is told to 0.4 %."""
_SIZE = 1 << _BITS


class Histogram(msgspec.Struct):
    """Times in nanoseconds; of as many as there are, some thousand counts are kept at most."""

    counts: dict[int, int] = {}
    count: int = 0
    total: int = 0
    least: int = 0
    most: int = 0

    def record(self, nanoseconds: int) -> None:
        """Count a time."""
        value = max(nanoseconds, 0)
        shift = max(value.bit_length() - _BITS, 0)
        bucket = shift * _SIZE + (value >> shift)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.least = min(self.least, value) if self.count else value
        self.most = max(self.most, value)
        self.total += value
        self.count += 1

    def merge(self, other: Histogram) -> None:
        """Count what another one has counted, too."""
        if not other.count:
            return
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.least = min(self.least, other.least) if self.count else other.least
        self.most = max(self.most, other.most)
        self.total += other.total
        self.count += other.count

    def percentile(self, percent: float) -> int:
        """Return the time that so many percent did not exceed, in nanoseconds; 0 if there is none."""
        left = max(1, math.ceil(self.count * percent / 100))
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                shift, value = divmod(bucket, _SIZE)
                return min((value << shift) + (1 << shift >> 1), self.most)
        return 0

    def summary(self) -> dict[str, float]:
        """Return what the report says of it, in milliseconds."""
        if not self.count:
            return {"count": 0}
        named = {"median": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
        milliseconds = {name: self.percentile(percent) / 1e6 for name, percent in named.items()}
        return {
            "count": self.count,
            "mean": round(self.total / self.count / 1e6, 3),
            **{name: round(value, 3) for name, value in milliseconds.items()},
            "max": round(self.most / 1e6, 3),
        }
