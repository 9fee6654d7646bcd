"""What a balancer's controller has to do with, without a balancer."""

from __future__ import annotations

from typing import cast

import pytest

from socketcluster_balancer.api import Balancer, Request, Stage, WorkerInfo, stages_of
from socketcluster_runtime.session_cookies import SessionCookies
from socketcluster_wire.request_head import RequestHead

UPGRADE = ("Upgrade: websocket", "Connection: keep-alive, Upgrade")


def head(line: str, *fields: str) -> RequestHead:
    made = RequestHead.parse("\r\n".join([line, *fields, "", ""]).encode())
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("line", "fields", "stages"),
    [
        ("GET / HTTP/1.1", (), ("request",)),
        ("GET / HTTP/1.1", UPGRADE, ("upgrade",)),
        ("GET / HTTP/1.1", ("Upgrade: h2c", "Connection: Upgrade"), ("request",)),
        ("POST / HTTP/1.1", UPGRADE, ("request", "upgrade")),
        ("GET / HTTP/1.1", (*UPGRADE, "Connection: close"), ("request", "upgrade")),
        ("GET / HTTP/1.1", ("Upgrade: websocket",), ("request", "upgrade")),
    ],
)
def test_a_request_written_oddly_is_of_both_stages(line: str, fields: tuple[str, ...], stages: tuple[str, ...]) -> None:
    assert stages_of(head(line, *fields)) == stages


def test_a_request_is_decoded_when_it_is_asked() -> None:
    cookies = SessionCookies("shop", "a secret of the tests")
    cookie = cookies.write("aaaaaaaa1", secure=True).partition(";")[0]
    made = head("GET /a%20b?c=1&c=%32&d HTTP/1.1", "Host: one", "X: 1", "x: 2", f"Cookie: {cookie}")
    request = Request(made, ("192.0.2.1", 5), cookies, secure=True)
    assert (request.method, request.path, request.session_id) == ("GET", "/a b", "aaaaaaaa1")
    assert request.query == {"c": "2", "d": ""}
    assert request.query_all == {"c": ("1", "2"), "d": ("",)}
    assert (request.headers["x"], request.headers["host"]) == ("1, 2", "one")
    told = Request(made, ("192.0.2.1", 5), cookies, secure=False, host="other")
    assert (told.headers["host"], told.session_id) == ("other", None)


def test_middleware_is_kept_by_its_stage_in_order() -> None:
    balancer = Balancer("tested", "shop")
    asked: list[Request] = []

    @balancer.middleware("upgrade")
    @balancer.middleware("request")
    def first(request: Request) -> None:
        asked.append(request)

    second = balancer.middleware("request")(asked.append)
    assert balancer.by_stage == {"request": (first, second), "upgrade": (first,)}
    with pytest.raises(ValueError, match="there is no stage 'upgrad', only request, upgrade"):
        balancer.middleware(cast(Stage, "upgrad"))


def test_workers_are_those_that_there_are_now() -> None:
    balancer, workers = Balancer("tested", "shop"), [WorkerInfo("aaaaaaaa", "one", (), 3)]
    assert balancer.workers == ()
    balancer.look_by(lambda: tuple(workers))
    assert balancer.workers == tuple(workers)
    workers.clear()
    assert balancer.workers == ()
