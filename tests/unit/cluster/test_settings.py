"""What the launcher can be told, by arguments that have Python's types."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.cluster.options import planned

from socketcluster import OptionError, SocketCluster
from socketcluster.settings import OPTIONS


def test_the_defaults() -> None:
    settings = SocketCluster().settings
    assert len(settings.workers) == len(os.sched_getaffinity(0))
    assert (settings.stores, settings.balancers, settings.host, settings.port) == ((0,), 1, "127.0.0.1", 8000)
    assert settings.worker_controller == Path("controller.py")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (0, "a count is between 1 and 512"),
        (-1, "a count is between 1 and 512"),
        (9100, "for a list of one port write 9100,"),
        ("many", "give a count, or a comma-separated list of ports"),
        (True, "give a count, or a comma-separated list of ports"),
        (2.5, "give a count, or a comma-separated list of ports"),
        ([], "a list has at least one port"),
        ([9100, 0], "each between 1 and 65535"),
        ([9100, 65536], "each between 1 and 65535"),
        ([9100, "x"], "give a count, or a comma-separated list of ports"),
        ([9100, 9100], "each port of a list may be there once"),
    ],
)
def test_neither_a_count_nor_ports(given: object, says: str) -> None:
    with pytest.raises(OptionError, match=rf"^workers: .*{says}.* \(got "):
        planned(workers=given)


@pytest.mark.parametrize(
    "wired", ["handoff_dir", "listen", "listen_fd", "tls_ticket_dir", "secret", "name", "service_options"]
)
def test_wiring_is_no_option(wired: str) -> None:
    assert wired not in OPTIONS
    with pytest.raises(OptionError, match=f"^{wired}: there is no such option"):
        planned(**{wired: "x"})


def test_an_unknown_option_of_the_class() -> None:
    with pytest.raises(OptionError, match=r"^sesion_timeout: there is no such option; did you mean session_timeout\?$"):
        planned(sesion_timeout=60)
