"""The session cookie."""

from __future__ import annotations

import pytest

from socketcluster_runtime.session_cookies import MAX_COOKIE_HEADER, MAX_TRIED, MAX_VALUE, SessionCookies

COOKIES = SessionCookies("shop", "a secret of the tests")
SIGNED = COOKIES.write("aaaaaaaa1", secure=False).partition(";")[0].partition("=")[2]


@pytest.mark.parametrize(
    "header",
    [
        "shop.session={}",
        "a=b; shop.session={}; c=d",
        'shop.session="{}"',
        "shop.session=forged; shop.session={}; shop.session=forged",
        "shop.session; shop.session={}",
        f"shop.session={'x' * (MAX_VALUE + 1)}; " * (MAX_TRIED + 1) + "shop.session={}",
    ],
)
def test_the_first_that_the_cluster_signed_counts(header: str) -> None:
    assert COOKIES.read(header.format(SIGNED), secure=False) == "aaaaaaaa1"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{}",
        "session={}",
        "other.session={}",
        "shop.session={}x",
        "shop.session=forged; " * MAX_TRIED + "shop.session={}",
        f"a={'x' * MAX_COOKIE_HEADER}; " + "shop.session={}",
    ],
)
def test_of_others_or_too_many_there_is_none(header: str) -> None:
    assert COOKIES.read(header.format(SIGNED), secure=False) is None


def test_under_tls_only_the_host_s_own_counts() -> None:
    assert COOKIES.read(f"shop.session={SIGNED}", secure=True) is None
    assert COOKIES.read(f"__Host-shop.session={SIGNED}", secure=True) == "aaaaaaaa1"
    assert COOKIES.read(f"__Host-shop.session={SIGNED}", secure=False) is None
