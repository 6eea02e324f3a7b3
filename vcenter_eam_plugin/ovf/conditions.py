# SPDX-License-Identifier: Apache-2.0
"""Which bytes a request gets: conditional and range requests (RFC 9110, sections 13 and 14), pure.

One range is served; of several the whole is, as the RFC allows. The entity tag is strong: it is the content's digest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime

_RANGE = re.compile(r"bytes\s*=\s*(?:(\d{1,19})\s*-\s*(\d{0,19})|-\s*(\d{1,19}))\s*", re.IGNORECASE | re.ASCII)
_TAGS = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')

OK = "200 OK"
PARTIAL = "206 Partial Content"
NOT_MODIFIED = "304 Not Modified"
FAILED = "412 Precondition Failed"
UNSATISFIABLE = "416 Range Not Satisfiable"


@dataclass(frozen=True, slots=True)
class Selection:
    """What to answer: the status, and the bytes ``[start, end)`` of the file as the body."""

    status: str
    start: int
    end: int


def select(method: str, headers: Mapping[str, str], *, size: int, etag: str, modified: int) -> Selection:
    """``headers`` by their small names; ``etag`` with its quotes; ``modified`` in POSIX seconds."""
    if not _preconditions_hold(headers, etag, modified):
        return Selection(FAILED, 0, 0)
    if _is_known(headers, etag, modified):
        return Selection(NOT_MODIFIED, 0, 0)
    whole = Selection(OK, 0, size)
    wanted = headers.get("range")
    # A range has a meaning for GET alone; with If-Range only while the client's part is of the same content.
    if method != "GET" or wanted is None or not _same_as(headers.get("if-range"), etag, modified):
        return whole
    match = _RANGE.fullmatch(wanted.strip())
    if match is None:
        return whole
    first, last, suffix = match.groups()
    if suffix is not None:
        start, end = max(size - int(suffix), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return whole  # no valid range, which is to be ignored
    return Selection(PARTIAL, start, end) if start < end else Selection(UNSATISFIABLE, 0, 0)


def http_date(seconds: int) -> str:
    """POSIX seconds as HTTP writes them."""
    return formatdate(seconds, usegmt=True)


def _preconditions_hold(headers: Mapping[str, str], etag: str, modified: int) -> bool:
    match = headers.get("if-match")
    if match is not None:
        # Compared strongly: a weak tag never matches.
        strong = [found[0] for found in _TAGS.finditer(match) if not found[0].startswith("W/")]
        return match.strip() == "*" or etag in strong
    since = _seconds(headers.get("if-unmodified-since"))
    return since is None or modified <= since


def _is_known(headers: Mapping[str, str], etag: str, modified: int) -> bool:
    none_match = headers.get("if-none-match")
    if none_match is not None:
        return none_match.strip() == "*" or etag in _TAGS.findall(none_match)
    since = _seconds(headers.get("if-modified-since"))
    return since is not None and modified <= since


def _same_as(validator: str | None, etag: str, modified: int) -> bool:
    if validator is None:
        return True
    return validator.strip() == etag or _seconds(validator) == modified


def _seconds(date: str | None) -> float | None:
    """``None`` for none, and for what is no date: such a header is to be ignored."""
    if date is None:
        return None
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
