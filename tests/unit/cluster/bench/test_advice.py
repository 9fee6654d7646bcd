"""What errors are counted as, and what is said to do about them."""

from __future__ import annotations

import ast
import errno
import itertools
import os
import socket

import pytest

from socketcluster.bench.advice import NO_ANSWER, advice_of, kind_of, snippet
from socketcluster.bench.client import RefusedError
from socketcluster.bench.plan import Mode, Plan, Protocol

PLAN = Plan(url="http://a:8000")


def system_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        (RefusedError("HTTP 404"), "HTTP 404", "/socket.io/"),
        (RefusedError("HTTP 403 Forbidden"), "HTTP 403 Forbidden", "--origin"),
        (RefusedError("HTTP 302"), "HTTP 302", "elsewhere"),
        (RefusedError("HTTP 418"), "HTTP 418", ""),
        (RefusedError("no HTTP"), "no HTTP", "no WebSocket server"),
        (ConnectionRefusedError(111, "x"), "connection refused", "a port 8000"),
        (TimeoutError(), "connecting took too long", "--connect-rate"),
        (socket.gaierror(-2, "unknown"), "no such host: unknown", ""),
        (system_error(errno.EMFILE), "Too many open files", "ulimit"),
        (system_error(errno.EADDRNOTAVAIL), "Cannot assign requested address", "no port left"),
    ],
)
def test_each_error_has_a_kind_and_most_an_advice(error: Exception, kind: str, advice: str) -> None:
    assert kind_of(error) == kind
    assert advice in advice_of(kind_of(error), PLAN)


def test_certificates_have_advice() -> None:
    assert "--insecure" in advice_of("TLS: self-signed certificate", PLAN)
    assert "http://" in advice_of("TLS: WRONG_VERSION_NUMBER", PLAN)


def test_who_gets_no_answer_is_shown_the_controller_that_would_give_one() -> None:
    for kind in (NO_ANSWER, "NoHandlerError: nobody handles 'bench'"):
        assert '@socket.on("bench")' in advice_of(kind, PLAN)
    publishing = Plan(url="a", protocol=Protocol.SOCKETCLUSTER, mode=Mode.BROADCAST)
    assert advice_of(NO_ANSWER, publishing) == ""


@pytest.mark.parametrize(("protocol", "mode"), list(itertools.product(Protocol, Mode)))
def test_each_controller_that_is_shown_is_python(protocol: Protocol, mode: Mode) -> None:
    ast.parse(snippet(Plan(url="a", protocol=protocol, mode=mode, event="e")))
