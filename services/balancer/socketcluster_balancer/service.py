"""The balancer: what starts when, and what ends when."""

from __future__ import annotations

import asyncio
from typing import Any

from socketcluster_balancer.admission.admission import Admission
from socketcluster_balancer.admission.controller import Controller, find
from socketcluster_balancer.counters import BalancerCounters
from socketcluster_balancer.entrance.certificate import ServerCertificate
from socketcluster_balancer.entrance.limits import Limits
from socketcluster_balancer.entrance.listener import LAST_CALL, Listener, open_socket
from socketcluster_balancer.entrance.plain import PlainReception
from socketcluster_balancer.entrance.proxy_protocol import ProxyEntrance
from socketcluster_balancer.entrance.reception import GRACE, Reception
from socketcluster_balancer.entrance.secure import SecureReception
from socketcluster_balancer.metrics import BalancerMetrics
from socketcluster_balancer.placement.dispatcher import Dispatcher
from socketcluster_balancer.placement.relayed import end_relayed
from socketcluster_balancer.placement.workers import Workers
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime.lifecycle import Lifecycle
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.sockets import descriptors
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_runtime.trusted_proxies import TrustedProxies

log = get_logger(__name__)

SPREAD = 0.8
"""The part of the time to stop over which relayed clients are sent away; the last ones have the rest for their end."""


async def serve(settings: BalancerSettings, lifecycle: Lifecycle) -> None:
    """Serve clients until ``lifecycle`` says to stop.

    Raises:
        AddressInUseError: somebody else listens there.
        SettingsError: the secret is missing, or the certificate cannot be used.
        ControllerError: the balancer's controller is missing, has no ``run``, or raised.
    """
    descriptors.warn_of_limit(descriptors.raise_limit(), 2)  # a client whose bytes are copied needs two
    controller = find(settings)
    if controller is not None and not await lifecycle.unless_stopping(controller.run()):
        return
    balancer = BalancerService(settings, controller, lifecycle.room)
    lifecycle.metrics.register(balancer.metrics)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(balancer.workers.run())
        balancer.listener.start()
        if balancer.certificate is not None:
            lifecycle.on_reload("certificate", balancer.certificate.reload)
        lifecycle.keep(balancer.workers.tls)
        host, port = balancer.listener.address
        log.info("listening", host=host, port=port)
        announcing = tasks.create_task(_announce(balancer, lifecycle))
        await lifecycle.stopping.wait()
        announcing.cancel()
        log.info("stopping")
        await balancer.stop(settings.drain_timeout)
        watching.cancel()


async def _announce(balancer: BalancerService, lifecycle: Lifecycle) -> None:
    await balancer.workers.any_ready.wait()
    lifecycle.ready()


class BalancerService:
    """The balancer's parts, put together front to back: where clients come in, the workers, and who gives which whom.

    Args:
        settings: the balancer's.
        controller: whose middleware is asked about each client; ``None`` if there is none.
        room: the descriptors that the process has for clients; by default counted anew.

    Raises:
        AddressInUseError: somebody else listens there.
        SettingsError: the secret is missing, or the certificate cannot be used.
    """

    def __init__(
        self, settings: BalancerSettings, controller: Controller | None = None, room: Room | None = None
    ) -> None:
        self.counters = BalancerCounters()
        self.room = room or Room()
        self.limits = Limits(settings)
        self.proxies = TrustedProxies(settings.trusted_proxies, settings.proxy_headers)
        if controller is None and not self.limits.count_addresses:  # whose addresses they are matters to nothing here
            self.proxies.forgotten = None
        parts = settings, self.limits, self.counters, self.proxies
        self.certificate = None if settings.tls_cert is None else ServerCertificate(settings)
        self.reception: Reception[Any] = (
            PlainReception(*parts) if self.certificate is None else SecureReception(*parts, self.certificate)
        )
        self.workers = Workers(settings)
        self.dispatcher = Dispatcher(settings, self.limits, self.counters, self.reception, self.workers, self.room)
        self.admission = None
        if controller is None:
            self.reception.pass_on_to(self.dispatcher.place)
        else:
            controller.balancer.look_by(lambda: tuple(worker.info() for worker in self.workers.available))
            self.admission = Admission(settings, controller, self.counters, self.reception, self.dispatcher.place)
            self.reception.pass_on_to(self.admission.examine)
        self.entrance = ProxyEntrance(settings, self.counters, self.proxies.by_connection, self.reception.accept)
        self.listener = Listener(
            open_socket(settings), self.entrance.accept, self.counters, self.room, answers=self.certificate is None
        )
        self.metrics = BalancerMetrics(self.counters, self.limits, self.workers, self.dispatcher, self.certificate)
        """What it tells of itself in numbers."""

    async def stop(self, timeout: float) -> None:
        """Stop accepting; clients under way get ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        await self.listener.close(min(LAST_CALL, timeout))
        await self.entrance.drain(min(GRACE, timeout))
        left = max(0, end - loop.time())
        telling: asyncio.Task[None] | None = None
        if self.dispatcher.relays or self.reception.clients:
            telling = loop.create_task(end_relayed(self.workers, self.dispatcher.id, left * SPREAD))
        await self._drain(left)
        if telling is not None:
            telling.cancel()
        await self._close()

    async def _drain(self, timeout: float) -> None:
        """Return when no client is under way, or after ``timeout`` seconds."""
        self.reception.hurry()
        try:
            async with asyncio.timeout(timeout):
                await self.reception.idle()
                await self.dispatcher.idle()
        except TimeoutError:
            log.warning("clients were still under way and are cut off", splices=self.dispatcher.relays)

    async def _close(self) -> None:
        """Cut off whoever is still under way."""
        if self.admission is not None:
            self.admission.close()
        await self.dispatcher.close()
        self.reception.close()
        if self.certificate is not None:
            self.certificate.close()
        self.proxies.close()
        self.room.close()
