"""What callers are told of operations that did not succeed: what was to be done, and why it was not."""

from __future__ import annotations

import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client import errors
from socketcluster_store_client.errors import (
    LinkError,
    OperationError,
    PartitionUnavailableError,
    ProcedureError,
    StoreUnavailableError,
)
from socketcluster_store_client.messages import Error, Operation
from socketcluster_store_client.operations import (
    described,
    error_of,
    history_page,
    operation_name,
    partition_unavailable,
    unanswered,
)

CODES = store_pb2.Error.Code.items()
SPOKEN_OF = Operation(1, store_pb2.VERB_GET_RANGE, "s", ("a", "b"), partition=7)


def test_operations_are_called_as_methods_are() -> None:
    assert operation_name(store_pb2.VERB_GET_RANGE) == "get_range"
    assert operation_name(-7) == "verb -7"  # of another version
    assert described(SPOKEN_OF) == "GET_RANGE ['a', 'b']"
    assert described(Operation(1, store_pb2.VERB_CHANNEL_PUBLISH, name="news")) == "CHANNEL_PUBLISH news"
    assert described(Operation(1, 99_999)) == "VERB 99999 []"


OWN_CLASSES = {
    "CODE_INVALID": "InvalidOperationError",
    "CODE_WRONG_TYPE": "WrongTypeError",
    "CODE_TOO_LARGE": "TooLargeError",
    "CODE_CHAIN_TOO_DEEP": "ChainTooDeepError",
    "CODE_SESSION_TOO_LARGE": "SessionTooLargeError",
    "CODE_SESSION_OVER": "SessionOverError",
    "CODE_UNKNOWN_PROCEDURE": "UnknownProcedureError",
    "CODE_RESULT_LOST": "ResultLostError",
    "CODE_TOO_MANY_CHANNELS": "TooManyChannelsError",
    "CODE_PROCEDURE_FAILED": "ProcedureError",
}


@pytest.mark.parametrize(("name", "code"), [*CODES, ("of another version", 4711)])
def test_each_refusal_has_its_class(name: str, code: int) -> None:
    error = error_of(SPOKEN_OF, Error(code, "why", "KeyError"))
    assert type(error) is getattr(errors, OWN_CLASSES.get(name, "OperationError"))
    assert isinstance(error, OperationError)
    assert (str(error), error.operation, error.keys) == ("why", "get_range", ("a", "b"))
    assert getattr(error, "name", "") == ("KeyError" if isinstance(error, ProcedureError) else "")


def test_one_that_nobody_answered_may_have_been_applied() -> None:
    error = unanswered(SPOKEN_OF, 10.0)
    assert str(error) == "no store answered GET_RANGE ['a', 'b'] within 10 s"
    assert str(unanswered(SPOKEN_OF, 0.25)).endswith(" within 0.25 s")
    assert (type(error), error.operation, error.keys) == (StoreUnavailableError, "get_range", ("a", "b"))
    assert isinstance(error, TimeoutError)


def test_one_on_a_partition_that_nobody_can_open_says_which_and_why() -> None:
    error = partition_unavailable(SPOKEN_OF, "the disk failed")
    assert str(error).startswith("GET_RANGE ['a', 'b']: partition 7 is unavailable: the disk failed. The store tries")
    assert (error.partition, error.operation, error.keys) == (7, "get_range", ("a", "b"))
    assert partition_unavailable(Operation(1, partition=0), "").partition == 0
    assert PartitionUnavailableError("of a store's").partition is None


def test_the_tree_of_errors_in_the_docstring_has_all_of_them() -> None:
    text = errors.__doc__
    assert text is not None
    made = [made for made in vars(errors).values() if isinstance(made, type) and issubclass(made, LinkError)]
    assert {each.__name__ for each in made} - set(text.split()) == set()


@pytest.mark.parametrize("answer", [b"", b"\xff", b"\x93\x01\x02\x03"])
def test_what_is_no_history_is_an_error_that_names_the_channel(answer: bytes) -> None:
    with pytest.raises(LinkError, match="the store's answer is no history: ") as raised:
        history_page("news", answer)
    assert (raised.value.operation, raised.value.keys) == ("channel_history", ("news",))
