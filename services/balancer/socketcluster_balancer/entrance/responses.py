"""The few answers that the balancer gives itself."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from email.utils import formatdate

from socketcluster_balancer.errors import RefusedError, phrase_of
from socketcluster_wire import http_response
from socketcluster_wire.request_head import RequestHead

_TEXTS = {
    400: "This is not a request that SocketCluster understands.\n",
    408: "The request did not arrive in time.\n",
    429: "Too many connections from your address. Please try again in a moment.\n",
    431: "The request's head is too large.\n",
    500: "The server failed to look at this request.\n",
    503: "No worker is ready, or all are full. Please try again in a moment.\n",
}
_UNKEPT = ("Cache-Control", "no-store")

_NO_WORKER_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="2">
<title>No worker is ready</title>
<style>
  :root { color-scheme: light dark }
  body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 20vh auto 0; padding: 0 1.5rem }
  h1 { font-size: 1.6rem }
</style>
</head>
<body>
<h1>No worker is ready</h1>
<p>The server is up, but no worker can take this request at the moment. This is being retried: the page reloads itself
every two seconds.</p>
<p>If it stays, the workers' log says why, for example that <code>controller.py</code> failed.</p>
</body>
</html>
"""


def answer(status: int, head: RequestHead | None = None, *, retry_after: int = 1) -> bytes:
    """Return a whole response with ``status``, after which the connection closes.

    Args:
        status: 400, 408, 429, 431, 500 or 503.
        head: the request, if it could be read: its ``Accept`` header decides between HTML and text.
        retry_after: seconds, for 429 and 503.
    """
    kind, text = "text/plain", _TEXTS[status]
    if status == 503 and head is not None and "text/html" in (head.header("accept") or ""):
        kind, text = "text/html", _NO_WORKER_PAGE
    retry = [("Retry-After", str(retry_after))] if status in (429, 503) else []
    return _response(status, kind, [_UNKEPT, *retry], text, head)


def plain_http() -> bytes:
    """Return the whole answer, in clear, to a client that speaks HTTP where HTTPS is spoken."""
    text = "This port speaks HTTPS: use https:// (or wss://) instead of http:// (or ws://).\n"
    return _response(400, "text/plain", [_UNKEPT], text, None)


def refusal(error: RefusedError, head: RequestHead | None) -> bytes:
    """Return the whole response that a controller's middleware refuses a client with."""
    fields = list(error.headers.items())
    if "cache-control" not in (name.lower() for name in error.headers):
        fields.append(_UNKEPT)
    return _response(error.status, "text/plain", fields, f"{error.reason}\n", head)


def _response(status: int, kind: str, fields: Iterable[tuple[str, str]], text: str, head: RequestHead | None) -> bytes:
    return http_response.closing(
        status,
        f"{kind}; charset=utf-8",
        text.encode(errors="replace"),
        fields=fields,
        phrase=phrase_of(status),
        date=formatdate(usegmt=True),
        head_only=head is not None and head.method == "HEAD",
    )


def over_limit(status: int, retry_after: int) -> bytes:
    """Return the answer to a client that is refused before it was read from: made once a second, not once a client."""
    return _over_limit(status, retry_after, int(time.time()))


@functools.lru_cache(maxsize=8)
def _over_limit(status: int, retry_after: int, _second: int) -> bytes:
    return answer(status, retry_after=retry_after)
