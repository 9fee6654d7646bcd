from __future__ import annotations

import ast
import inspect

import pytest
from websockets import frames

from socketcluster_wire import close_codes
from socketcluster_wire.close_codes import CloseCode, may_be_sent

SOCKETCLUSTER = {"PING_TIMEOUT": 4001, "HANDSHAKE_TIMEOUT": 4005, "HANDSHAKE_REFUSED": 4008, "NO_HANDSHAKE": 4009}
"""What SocketCluster's clients take these codes for: socketProtocolErrorStatuses of the npm package sc-errors."""


def test_the_codes_that_may_be_sent_are_those_that_a_client_accepts() -> None:
    for code in range(-1, 6000):
        accepted = code in frames.EXTERNAL_CLOSE_CODES or 3000 <= code < 5000
        assert may_be_sent(code) == accepted, code


def test_every_code_of_ours_may_be_sent_but_two() -> None:
    assert [code for code in CloseCode if not may_be_sent(code)] == [CloseCode.NO_STATUS, CloseCode.ABNORMAL]


def test_the_codes_of_the_rfc_have_its_numbers() -> None:
    known = {int(code) for code in frames.CloseCode}
    assert {int(code) for code in CloseCode if code < 3000} <= known
    for code in CloseCode:
        if code.name in frames.CloseCode.__members__:
            assert int(code) == int(frames.CloseCode[code.name])


@pytest.mark.parametrize(("name", "number"), SOCKETCLUSTER.items())
def test_the_codes_of_socketcluster_mean_what_its_clients_think(name: str, number: int) -> None:
    assert CloseCode[name] == number


def test_the_range_of_socketcluster_holds_no_meaning_of_our_own() -> None:
    assert {code.name: int(code) for code in CloseCode if 4000 <= code < 4100} == SOCKETCLUSTER


def test_a_client_may_come_back_after_every_code_but_the_normal_one() -> None:
    # SocketCluster's clients stay away after 1000 and from 4500 on.
    assert [code for code in CloseCode if code == 1000 or code >= 4500] == [CloseCode.NORMAL]


def test_only_4008_has_two_names_and_every_name_has_a_line_of_doc() -> None:
    (enum,) = [node for node in ast.parse(inspect.getsource(close_codes)).body if isinstance(node, ast.ClassDef)]
    names = [statement for statement in enum.body if isinstance(statement, ast.Assign)]
    aliases = {name for name, code in CloseCode.__members__.items() if name != code.name}
    assert aliases == {"TOO_SLOW"}
    assert len(names) == len(CloseCode) + len(aliases)
    for statement, after in zip(enum.body, [*enum.body[1:], None], strict=True):
        if isinstance(statement, ast.Assign):
            assert isinstance(after, ast.Expr), ast.unparse(statement)
