"""The links of one worker: one to each store that its addresses stand for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from secrets import token_hex
from time import time_ns

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.addresses import DNS_SCHEME, follow, is_name, split_host_port
from socketcluster_store_client.link import LinkOwner, StoreLink
from socketcluster_store_client.streams.dialing import Dialer


def opening(worker_id: str, app_name: str) -> store_pb2.LinkOpen:
    """Return what the links of a process begin with.

    No other start of a process has its incarnation; that of a later start is greater.
    """
    incarnation = f"{time_ns():016x}{token_hex(4)}"
    return store_pb2.LinkOpen(worker_id=worker_id, app_name=app_name, incarnation=incarnation)


class StoreLinks:
    """Opens a link to each store, and ends those to hosts that their name has no more."""

    def __init__(
        self,
        addresses: Sequence[str],
        opening: store_pb2.LinkOpen,
        owner: LinkOwner,
        dialer: Dialer,
    ) -> None:
        """Prepare the links; ``start`` opens them.

        Raises:
            SettingsError: an address is malformed.
        """
        for address in addresses:
            if not address.startswith("unix:"):
                split_host_port(address.removeprefix(DNS_SCHEME))
        self._addresses = list(dict.fromkeys(addresses))
        self._opening = opening
        self._owner = owner
        self._dialer = dialer
        self._links: dict[str, StoreLink] = {}
        self._hosts: dict[str, set[str]] = {}  # by name, at its last look-up
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to link, in the background."""
        for address in self._addresses:
            if is_name(address):
                self._spawn(asyncio.create_task(follow(address, partial(self._found, address)), name=address))
            else:
                self._add(address)

    async def close(self) -> None:
        """End all links."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(link.close() for link in self._links.values()), return_exceptions=True)
        self._links.clear()

    def __iter__(self) -> Iterator[StoreLink]:
        return iter(self._links.values())

    def _add(self, address: str) -> None:
        link = self._links[address] = StoreLink(address, self._opening, self._owner, self._dialer)
        link.start()

    def _found(self, name: str, hosts: list[str]) -> None:
        before = self._hosts.get(name, set())
        self._hosts[name] = set(hosts)
        for host in hosts:
            if host not in self._links:
                self._add(host)
        known = set(self._addresses).union(*self._hosts.values())
        for host in before - known:
            if self._links[host].linked:  # it may only be on its way out: it is looked at again
                self._hosts[name].add(host)
            else:
                self._spawn(asyncio.create_task(self._drop(self._links.pop(host))))

    async def _drop(self, link: StoreLink) -> None:
        await link.close()
        if link.linked:  # in the very turn in which its host was found to be gone: it may be taken for an owner's
            self._owner.on_broken(link)

    def _spawn(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
