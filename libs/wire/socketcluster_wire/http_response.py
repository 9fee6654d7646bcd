"""A whole response of HTTP/1.1, after which the connection closes (RFC 9112): what is answered beside any server."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus


def closing(
    status: int,
    content_type: str,
    body: bytes,
    *,
    fields: Iterable[tuple[str, str]] = (),
    phrase: str | None = None,
    date: str | None = None,
    head_only: bool = False,
) -> bytes:
    """Return a response's bytes.

    Args:
        status: 200 to 599.
        content_type: the body's, with its charset.
        body: whole.
        fields: name and value of each further one, which the caller vouches for: nothing is looked for that would end
            a field early.
        phrase: what the status is called; by default as RFC 9110 calls it.
        date: the time of the answer, as RFC 9110, section 5.6.7, writes it; ``None`` leaves the field out.
        head_only: is it for a HEAD, whose answer only tells of the body?

    Raises:
        ValueError: the status has no name, and was given none.
    """
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase if phrase is None else phrase}"]
    if date is not None:
        lines.append(f"Date: {date}")
    lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in fields]
    lines += ["Connection: close", "", ""]
    head = "\r\n".join(lines).encode("latin-1")
    return head if head_only or status == HTTPStatus.NOT_MODIFIED else head + body
