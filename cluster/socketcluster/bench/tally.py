"""What happened: counts and times, which generators send and the command adds up."""

from __future__ import annotations

import msgspec

from socketcluster.bench.histogram import Histogram


class Tally(msgspec.Struct):
    """What a generator has counted so far, or several have together."""

    opened: int = 0
    """Connections that became ready, each time."""
    open: int = 0
    """Those that are ready now."""
    lost: int = 0
    """Those that ended although nobody here ended them."""
    joined: int = 0
    """Members of the channel."""
    sent: int = 0
    answered: int = 0
    unanswered: int = 0
    """Messages whose answer was an error, or did not come in time."""
    delivered: int = 0
    errors: dict[str, int] = {}
    """By kind."""
    connecting: Histogram = msgspec.field(default_factory=Histogram)
    latency: Histogram = msgspec.field(default_factory=Histogram)
    """Of answers, deliveries or, in a storm, until a client was served again."""
    lag: Histogram = msgspec.field(default_factory=Histogram)
    """How late the generator's own timers were."""
    busiest: float = 0.0
    """The largest share of a core that a generator used while it measured."""
    seconds: float = 0.0
    """For which it measured."""

    def fail(self, kind: str) -> None:
        """Count an error."""
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def merge(self, other: Tally) -> None:
        """Add what another generator has counted."""
        for name in ("opened", "open", "lost", "joined", "sent", "answered", "unanswered", "delivered"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for kind, count in other.errors.items():
            self.errors[kind] = self.errors.get(kind, 0) + count
        for name in ("connecting", "latency", "lag"):
            getattr(self, name).merge(getattr(other, name))
        self.busiest = max(self.busiest, other.busiest)
        self.seconds = max(self.seconds, other.seconds)


class Snapshot(msgspec.Struct):
    """What a generator says, a few times a second and when a phase ends."""

    phase: str
    """``connecting``, ``ready``, ``running`` or ``done``."""
    tally: Tally
    fatal: str = ""
    """Why it makes no sense to go on."""


def added(tallies: list[Tally]) -> Tally:
    """Return what several generators have counted together."""
    total = Tally()
    for tally in tallies:
        total.merge(tally)
    return total
