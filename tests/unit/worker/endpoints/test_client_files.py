"""The browser client's files over HTTP."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from support.worker.running import RunningWorker, StartWorker
from websockets.datastructures import Headers
from websockets.http11 import Response

from socketcluster_worker.endpoints.client_files import NAMES
from socketcluster_worker.settings import CLIENT_FILES

GZIP = "br, gzip"


async def ask(worker: RunningWorker, name: str, method: str = "GET", **headers: str) -> Response:
    client = await worker.connect()
    if method == "HEAD":
        fields = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in headers.items())
        await client.send(f"HEAD /{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n".encode())
        head = (await client.closed()).decode()
        assert head.endswith("\r\n\r\n")  # and no body
        lines = head.split("\r\n")
        got = dict(line.split(": ", 1) for line in lines[1:] if line)
        answer = Response(int(lines[0].split()[1]), lines[0], Headers(got))
    else:
        answer = await client.request(method, f"/{name}", None, **headers)
    client.close()
    return answer


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("accepted", ["", GZIP])
async def test_pages_of_any_origin_may_import_them(worker: RunningWorker, name: str, accepted: str) -> None:
    answer = await ask(worker, name, accept_encoding=accepted, origin="https://example.com")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["vary"] == "accept-encoding"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["content-type"].startswith("text/plain" if name.endswith(".ts") else "text/javascript")
    body = bytes(answer.body or b"")
    if accepted:
        assert answer.headers["content-encoding"] == "gzip"
        body = gzip.decompress(body)
    else:
        assert "content-encoding" not in answer.headers
    assert body == (CLIENT_FILES / name).read_bytes()


@pytest.mark.parametrize("accepted", ["", GZIP])
async def test_who_has_it_is_not_sent_it_again(worker: RunningWorker, accepted: str) -> None:
    answer = await ask(worker, NAMES[0], accept_encoding=accepted)
    tag, modified = answer.headers["etag"], answer.headers["last-modified"]
    for headers in (
        {"if_none_match": tag},
        {"if_none_match": f'"other", W/{tag}'},
        {"if_none_match": "*"},
        {"if_modified_since": modified},
    ):
        again = await ask(worker, NAMES[0], accept_encoding=accepted, **headers)
        assert (again.status_code, again.body) == (304, b"")
        assert (again.headers["etag"], again.headers["vary"]) == (tag, "accept-encoding")
        assert again.headers["access-control-allow-origin"] == "*"
    for headers in (
        {"if_none_match": '"other"', "if_modified_since": modified},
        {"if_modified_since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"if_modified_since": "nonsense"},
    ):
        assert (await ask(worker, NAMES[0], accept_encoding=accepted, **headers)).status_code == 200


async def test_each_coding_has_a_tag_of_its_own(worker: RunningWorker) -> None:
    plain = await ask(worker, NAMES[0])
    coded = await ask(worker, NAMES[0], accept_encoding=GZIP)
    assert plain.headers["etag"] != coded.headers["etag"]
    assert (await ask(worker, NAMES[0], accept_encoding=GZIP, if_none_match=plain.headers["etag"])).status_code == 200
    assert (await ask(worker, NAMES[0], if_none_match=coded.headers["etag"])).status_code == 200


@pytest.mark.parametrize("accepted", ["identity", GZIP])
async def test_a_head_request_is_told_the_same(worker: RunningWorker, accepted: str) -> None:
    answer = await ask(worker, NAMES[0], accept_encoding=accepted)
    head = await ask(worker, NAMES[0], "HEAD", accept_encoding=accepted)
    assert head.status_code == 200
    for field in ("content-length", "content-type", "etag", "last-modified"):
        assert head.headers[field] == answer.headers[field]
    assert head.headers.get("content-encoding") == answer.headers.get("content-encoding")


async def test_a_range_is_one_of_the_file_as_it_is(worker: RunningWorker) -> None:
    content = (CLIENT_FILES / NAMES[0]).read_bytes()
    answer = await ask(worker, NAMES[0], accept_encoding=GZIP, range="bytes=10-19")
    assert (answer.status_code, answer.body) == (206, content[10:20])
    assert answer.headers["content-range"] == f"bytes 10-19/{len(content)}"
    assert "content-encoding" not in answer.headers
    tag = (await ask(worker, NAMES[0], accept_encoding=GZIP)).headers["etag"]
    whole = await ask(worker, NAMES[0], accept_encoding=GZIP, range="bytes=10-19", if_range=tag)
    assert (whole.status_code, whole.body) == (200, content)  # the tag is that of the other coding


async def test_a_file_that_changed_is_compressed_anew(start_worker: StartWorker, folder: Path) -> None:
    file = folder / NAMES[0]
    file.write_text("one")
    worker = await start_worker(client_files=folder)
    for text in ("one", "other"):
        file.write_text(text)
        os.utime(file, ns=(0, len(text)))
        answer = await ask(worker, NAMES[0], accept_encoding=GZIP)
        assert gzip.decompress(bytes(answer.body or b"")).decode() == text
