"""The browser client's files, for pages of any origin, and compressed for who takes that."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from email.utils import parsedate
from os import stat_result
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.types import Scope

from socketcluster_worker.transport.http.content_coding import accepts_gzip

NAMES = ("socketcluster.js", "socketcluster.mjs", "socketcluster.d.ts")
MEDIA_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".ts": "text/plain"}
HEADERS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
    "access-control-allow-origin": "*",  # they are the same for everybody, and hold nobody's data
    "cross-origin-resource-policy": "cross-origin",
    "vary": "accept-encoding",
}


@dataclass(frozen=True, slots=True)
class _Compressed:
    """A file's content, and of which of its versions."""

    version: tuple[int, int]
    content: bytes


class ClientFiles:
    """Answers requests for the client's files, in whole or in ranges (RFC 9110, sections 13 and 14).

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._compressed: dict[str, _Compressed] = {}

    def response(self, name: str, scope: Scope) -> Response:
        """Return the answer to a request for the file of that name, one of ``NAMES``."""
        path = self._folder / name
        stat = path.stat()
        media_type = MEDIA_TYPES[path.suffix]
        asked = Headers(scope=scope)
        whole = FileResponse(path, media_type=media_type, headers=HEADERS, stat_result=stat)
        response: Response = whole
        if "range" not in asked and accepts_gzip(asked.get("accept-encoding", "")):
            content = self._compress(path, stat)
            response = Response(content, media_type=media_type, headers=HEADERS | {"content-encoding": "gzip"})
            response.headers["last-modified"] = whole.headers["last-modified"]
            response.headers["etag"] = whole.headers["etag"][:-1] + '-gzip"'
        if scope["method"] in ("GET", "HEAD") and _has_it(asked, response.headers):
            kept = HEADERS | {"etag": response.headers["etag"], "last-modified": response.headers["last-modified"]}
            return Response(status_code=304, headers=kept)
        return response

    def _compress(self, path: Path, stat: stat_result) -> bytes:
        """Return a file's content compressed, which is done once for each of its versions."""
        version = stat.st_mtime_ns, stat.st_size
        found = self._compressed.get(path.name)
        if found is None or found.version != version:
            found = self._compressed[path.name] = _Compressed(version, gzip.compress(path.read_bytes(), mtime=0))
        return found.content


def _has_it(asked: Headers, answered: Headers) -> bool:
    """Has the client what it is answered already? The tag counts before the date (RFC 9110, section 13.2.2)."""
    tags = asked.get("if-none-match")
    if tags is not None:
        return any(tag.strip().removeprefix("W/") in ("*", answered["etag"]) for tag in tags.split(","))
    since, modified = parsedate(asked.get("if-modified-since", "")), parsedate(answered["last-modified"])
    return since is not None and modified is not None and modified <= since
