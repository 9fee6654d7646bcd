"""Which content codings a client takes."""

from __future__ import annotations

import pytest

from socketcluster_worker.transport.http.content_coding import accepts_gzip


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("", False),
        ("gzip", True),
        ("x-gzip", True),
        ("br, GZIP", True),
        ("gzip, deflate, br, zstd", True),
        ("*", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("gzip ; q=0.5", True),
        ("gzip; Q=1.000", True),
        ("identity;q=1, gzip;q=0", False),
        ("identity;q=1, gzip;q=0.5", False),
        ("identity;q=0.5, gzip;q=1.0, *;q=0", True),
        ("*;q=0", False),
        ("*;q=0, gzip", True),
        ("gzip;q=", False),
        ("gzip;q=nan", False),
        ("gzip;q=-1", False),
        ("gzipped, notgzip", False),
        (";,;q=1,", False),
    ],
)
def test_gzip_is_for_those_who_ask_for_it(header: str, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted
