"""What controllers catch, from one place."""

from __future__ import annotations

from socketcluster_store_client import errors as of_store
from socketcluster_worker import errors


def test_the_errors_of_the_store_are_among_those_of_the_worker() -> None:
    names = [name for name, value in vars(of_store).items() if getattr(value, "__module__", "") == of_store.__name__]
    assert len(names) > 10
    assert {name: getattr(errors, name) for name in names} == {name: getattr(of_store, name) for name in names}
