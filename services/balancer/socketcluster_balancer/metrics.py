"""The balancer's metrics: what it counts anyway, as samples, when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from socketcluster_balancer.service import Balancer


class BalancerMetrics(Collector):
    """Reads a balancer's counters.

    Args:
        balancer: whose.
        transport: how clients come: ``plain`` or ``tls``.
    """

    def __init__(self, balancer: Balancer, transport: str) -> None:
        self._balancer = balancer
        self._transport = transport

    def collect(self) -> Iterable[Metric]:
        """Return all samples."""
        balancer, dispatcher, counters = self._balancer, self._balancer.dispatcher, self._balancer.counters
        links = [worker.link for worker in balancer.workers.known if worker.link is not None]
        yield _gauge(
            "connections",
            "Clients' connections, whoever serves them.",
            "transport",
            {self._transport: balancer.limits.connections},
        )
        yield _gauge(
            "connections_by_way",
            "The same: handed over to a worker, copied, waiting for a worker, or at an earlier stage.",
            "way",
            {
                "handover": (handed_over := sum(link.living for link in links)),
                "spliced": dispatcher.relays,
                "waiting": dispatcher.waiting,
                "arriving": max(0, balancer.limits.connections - handed_over - dispatcher.relays - dispatcher.waiting),
            },
        )
        yield _gauge("handovers_pending", "Handovers without acknowledgement.", "", sum(link.pending for link in links))
        yield _gauge("workers_ready", "Workers that may be given clients.", "", len(balancer.workers.available))
        yield _gauge(
            "workers_hung",
            "Workers that give no sign of life.",
            "",
            sum(worker.hung for worker in balancer.workers.known),
        )
        yield _gauge(
            "workers_full",
            "Workers without a descriptor for a client.",
            "",
            sum(worker.full for worker in balancer.workers.known),
        )
        yield _counter("worker_hangs", "Times that a worker was found to hang.", "", balancer.workers.hangs)
        if (ends := dispatcher.expiry.ends) is not None:
            text = "When the first certificate of the clients' chain ends, in seconds since 1970."
            yield _gauge("certificate_expiry_timestamp_seconds", text, "", round(ends))
        yield _counter("accepted", "Connections that were accepted.", "transport", {self._transport: counters.accepted})
        yield _counter("refused", "Connections that were not served, by the reason.", "reason", counters.refused)
        yield _counter(
            "clients",
            "Clients that a worker got, by the way.",
            "way",
            {"handover": counters.handovers, "spliced": counters.relays},
        )
        yield _counter(
            "handovers_failed", "Attempts to give a client to a worker that failed.", "", counters.handovers_failed
        )


def _gauge(name: str, text: str, label: str, values: dict[str, int] | int) -> Metric:
    return _fill(GaugeMetricFamily(f"socketcluster_balancer_{name}", text, labels=[label] if label else []), values)


def _counter(name: str, text: str, label: str, values: dict[str, int] | int) -> Metric:
    return _fill(CounterMetricFamily(f"socketcluster_balancer_{name}", text, labels=[label] if label else []), values)


def _fill(family: GaugeMetricFamily | CounterMetricFamily, values: dict[str, int] | int) -> Metric:
    if isinstance(values, int):
        family.add_metric([], values)
    else:
        for value, number in values.items():
            family.add_metric([value], number)
    return family
