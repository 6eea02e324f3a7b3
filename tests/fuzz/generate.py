# SPDX-License-Identifier: Apache-2.0
"""What the targets share: inputs made by damaging good ones, and the rule that every answer comes in time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from hypothesis import settings
from hypothesis import strategies as st

IN_TIME = 20.0
"""Seconds for one input. What hangs takes for ever, what is slow on a busy machine does not."""

_TELLING = (
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",  # a surrogate in UTF-8, which is none
    b"\xc0\xaf",
    b"\n",
    b"\r\n\r\n",
    b"-1",
    b"9" * 30,
    b"1e999",
    b"NaN",
    b"../" * 8,
    b"%2e%2e%2f",
    b"%s%n",
    b"<",
    b"&",
    b"]]>",
    b'"',
    b"{" * 40,
    b"[" * 40,
    b"A" * 5000,
)
"""What parsers stumble over."""


@st.composite
def damaged(draw: st.DrawFn, *seeds: bytes, most: int = 6, telling: tuple[bytes, ...] = ()) -> bytes:
    """One of the good inputs with a few places flipped, cut, doubled, moved or overwritten."""
    whole = bytearray(draw(st.sampled_from(seeds)))
    pieces = st.sampled_from(_TELLING + telling) | st.binary(max_size=4)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(len(whole) - 1, 0)))
        until = min(at + draw(st.integers(1, 40)), len(whole))
        match draw(st.sampled_from(("flip", "insert", "overwrite", "cut", "double", "move", "truncate"))):
            case "flip":
                whole[at:until] = bytes(byte ^ draw(st.integers(1, 255)) for byte in whole[at : min(at + 2, until)])
            case "insert":
                whole[at:at] = draw(pieces)
            case "overwrite":
                whole[at:until] = draw(pieces)
            case "cut":
                del whole[at:until]
            case "double":
                whole[at:at] = whole[at:until] * draw(st.integers(1, 50))
            case "move":
                piece = whole[at:until]
                del whole[at:until]
                there = draw(st.integers(0, len(whole)))
                whole[there:there] = piece
            case _:
                del whole[at:]
    return bytes(whole)


def fewer(share: float) -> Callable[..., Any]:
    """For a target whose every example is dear: this share of what others try, and at least ten."""
    return settings(max_examples=max(10, int(settings.default.max_examples * share)))


@contextlib.contextmanager
def in_time(what: object = "the input", seconds: float = IN_TIME) -> Iterator[None]:
    """Fail when the block takes longer: a hang is a finding like a crash."""
    began = time.monotonic()
    with gevent.Timeout(seconds, AssertionError(f"not within {seconds:g} s: {what!r:.300}")):
        yield
    took = time.monotonic() - began
    assert took < seconds, f"{took:.1f} s for {what!r:.300}"


def one_sentence(error: BaseException, most: int = 20_000, naming: object = "") -> str:
    """The error's text, which must be something that a person can read. It names ``naming``."""
    text = str(error)
    assert str(naming) in text
    assert text.strip(), f"{type(error).__name__} says nothing"
    assert len(text) <= most, f"{len(text)} characters: {text[:300]} ..."
    return text
