"""The balancer's metrics: what it counts anyway, as samples, when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from socketcluster_balancer.counters import BalancerCounters
from socketcluster_balancer.entrance.certificate import ServerCertificate
from socketcluster_balancer.entrance.limits import Limits
from socketcluster_balancer.placement.dispatcher import Dispatcher
from socketcluster_balancer.placement.workers import Workers


class BalancerMetrics(Collector):
    """Reads what the parts of a balancer count.

    Args:
        counters: what only rises.
        limits: count the connections.
        workers: those that there are.
        dispatcher: gives them clients.
        certificate: what clients are shown who come by TLS; ``None`` if they come without.
    """

    def __init__(
        self,
        counters: BalancerCounters,
        limits: Limits,
        workers: Workers,
        dispatcher: Dispatcher,
        certificate: ServerCertificate | None,
    ) -> None:
        self._counters = counters
        self._limits = limits
        self._workers = workers
        self._dispatcher = dispatcher
        self._certificate = certificate
        self._transport = "plain" if certificate is None else "tls"

    def collect(self) -> Iterable[Metric]:
        """Return all samples."""
        counters, connections = self._counters, self._limits.connections
        relays, waiting = self._dispatcher.relays, self._dispatcher.waiting
        known = self._workers.known
        links = [worker.link for worker in known if worker.link is not None]
        handed_over = sum(link.living for link in links)
        yield _gauge(
            "connections", "Clients' connections, whoever serves them.", "transport", {self._transport: connections}
        )
        yield _gauge(
            "connections_by_way",
            "The same: handed over to a worker, copied, waiting for a worker, or at an earlier stage.",
            "way",
            {
                "handover": handed_over,
                "spliced": relays,
                "waiting": waiting,
                "arriving": max(0, connections - handed_over - relays - waiting),
            },
        )
        yield _gauge("handovers_pending", "Handovers without acknowledgement.", "", sum(link.pending for link in links))
        yield _gauge("workers_ready", "Workers that may be given clients.", "", len(self._workers.available))
        yield _gauge("workers_hung", "Workers that give no sign of life.", "", sum(worker.hung for worker in known))
        yield _gauge(
            "workers_full", "Workers without a descriptor for a client.", "", sum(worker.full for worker in known)
        )
        yield _counter("worker_hangs", "Times that a worker was found to hang.", "", self._workers.hangs)
        if self._certificate is not None and (ends := self._certificate.ends) is not None:
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
