# SPDX-License-Identifier: Apache-2.0
"""S01: ranges and conditions as RFC 9110 has them; what a download that broke off needs to go on."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcenter_eam_plugin.ovf.conditions import (
    FAILED,
    NOT_MODIFIED,
    OK,
    PARTIAL,
    UNSATISFIABLE,
    Selection,
    http_date,
    select,
)

ETAG = '"abc"'
MODIFIED = 1_700_000_000
NAMES = ("range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


def chosen(size: int = 10, method: str = "GET", **headers: str) -> Selection:
    by_name = {name.replace("_", "-"): value for name, value in headers.items()}
    return select(method, by_name, size=size, etag=ETAG, modified=MODIFIED)


@given(size=st.integers(0, 30), first=st.integers(0, 35), last=st.none() | st.integers(0, 35))
def test_a_range_gives_the_bytes_that_slicing_gives(size: int, first: int, last: int | None) -> None:
    """For every file and range: partial content if there is any, else it cannot be satisfied, else it is no range."""
    content = bytes(range(size))
    got = chosen(size, range=f"bytes={first}-{'' if last is None else last}")
    if last is not None and last < first:
        assert got == Selection(OK, 0, size)
        return
    wanted = content[first:] if last is None else content[first : last + 1]
    assert got.status == (PARTIAL if wanted else UNSATISFIABLE)
    assert content[got.start : got.end] == wanted


@given(size=st.integers(0, 30), suffix=st.integers(0, 35))
def test_a_suffix_gives_the_last_bytes(size: int, suffix: int) -> None:
    """``bytes=-n``; more than there is gives all of it."""
    content = bytes(range(size))
    got = chosen(size, range=f"bytes=-{suffix}")
    wanted = content[-suffix:] if suffix else b""
    assert got.status == (PARTIAL if wanted else UNSATISFIABLE)
    assert content[got.start : got.end] == wanted


TEXT = st.text(st.characters(max_codepoint=255), max_size=30) | st.from_regex(
    r"bytes ?= ?[-0-9, ]{0,25}", fullmatch=True
)


@given(
    headers=st.dictionaries(st.sampled_from(NAMES), TEXT),
    size=st.integers(0, 1 << 45),
    method=st.sampled_from(["GET", "HEAD"]),
)
def test_whatever_the_headers_say_the_bytes_are_within_the_file(
    headers: dict[str, str], size: int, method: str
) -> None:
    """They come from outside: no text in them raises, or leads out of the file."""
    got = select(method, headers, size=size, etag=ETAG, modified=MODIFIED)
    assert 0 <= got.start <= got.end <= size
    assert got.status in (OK, PARTIAL, NOT_MODIFIED, FAILED, UNSATISFIABLE)
    assert (got.end > got.start) == (got.status == PARTIAL or (got.status == OK and size > 0))
    if method == "HEAD":
        assert got.status not in (PARTIAL, UNSATISFIABLE)


@pytest.mark.parametrize(
    "header",
    ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "items=0-1", "bytes=0-1,3-4", "bytes=0-1;x", "bytes=٣-٤", "0-1"],
)
def test_what_is_no_single_range_gives_the_whole(header: str) -> None:
    """Units and forms that we do not know are to be ignored, and several ranges may be."""
    assert chosen(range=header) == Selection(OK, 0, 10)


@pytest.mark.parametrize(
    ("validator", "status"),
    [
        (ETAG, PARTIAL),
        ('"other"', OK),
        (f"W/{ETAG}", OK),
        (http_date(MODIFIED), PARTIAL),
        (http_date(MODIFIED + 1), OK),
        ("nonsense", OK),
    ],
)
def test_if_range_goes_on_only_with_the_same_content(validator: str, status: str) -> None:
    """A part of the old and a part of the new disk would be a broken disk."""
    assert chosen(range="bytes=2-3", if_range=validator).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if_none_match": ETAG}, NOT_MODIFIED),
        ({"if_none_match": f'"x", W/{ETAG}'}, NOT_MODIFIED),
        ({"if_none_match": "*"}, NOT_MODIFIED),
        ({"if_none_match": '"x"', "if_modified_since": http_date(MODIFIED)}, OK),
        ({"if_modified_since": http_date(MODIFIED)}, NOT_MODIFIED),
        ({"if_modified_since": http_date(MODIFIED - 1)}, OK),
        ({"if_modified_since": "yesterday"}, OK),
        ({"if_match": ETAG}, OK),
        ({"if_match": "*"}, OK),
        ({"if_match": '"x"'}, FAILED),
        ({"if_match": f"W/{ETAG}"}, FAILED),
        ({"if_unmodified_since": http_date(MODIFIED)}, OK),
        ({"if_unmodified_since": http_date(MODIFIED - 1)}, FAILED),
        ({"if_match": '"x"', "if_none_match": ETAG}, FAILED),
        ({"if_none_match": ETAG, "range": "bytes=0-1"}, NOT_MODIFIED),
    ],
)
def test_conditions(headers: dict[str, str], status: str) -> None:
    """RFC 9110, section 13.2.2: in which order they count."""
    assert chosen(**headers).status == status


def test_dates_are_written_as_http_has_them() -> None:
    """English names and GMT, whatever the locale."""
    assert http_date(0) == formatdate(0, usegmt=True) == "Thu, 01 Jan 1970 00:00:00 GMT"
