# SPDX-License-Identifier: Apache-2.0
"""The answer to one HTTP request, read in bounded pieces, however it is sent.

pyVmomi reads an answer to its end, and unpacks it, without a limit. Here an answer ends at a limit, as sent and as
unpacked; and other greenlets, the deadline's among them, get their turn while it is read: a server that sends as fast
as we read would otherwise have the event loop for itself.

A SOAP message must not have a document type (SOAP 1.1, section 3), so one that has is refused: entities are how little
text becomes much.
"""

from __future__ import annotations

import http.client
import io
import re
import zlib
from copy import copy
from functools import lru_cache
from typing import Any

from vcenter_eam_plugin.turns import Turns

MOST_BYTES = 16 << 20
"""Of one answer. The largest is the runtime of an agency with all its issues: 2,500 hosts with three each make 6 MB;
everything else is read in pages."""
_PIECE = 16 << 10
_HEADERS = 64 << 10
"""Bytes beside the body: header lines, sizes of chunks."""
_MOST_TEXT = 1 << 20
"""Bytes without a tag. pyVmomi and expat 2.5 take time by the square of a text's or an attribute's length: 11 s of
computing for 16 MB (measured)."""
_USUAL_HEAD = re.compile(rb"HTTP/1\.1 200 OK\r\n((?:[A-Za-z][A-Za-z-]*: [!-~](?:[ -~]*[!-~])?\r\n){0,30})")
_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]{1,12})\r\n", re.IGNORECASE)
_USUAL_HEADER = re.compile(r"([A-Za-z-]+): (.*)\r\n")
_DOCTYPE = b"<!DOCTYPE"
_ENCODING = re.compile(rb"<\?xml[^>]{0,100}?encoding\s*=\s*['\"]([^'\"]{0,40})")
_ENCODINGS = {b"utf-8", b"us-ascii", b"iso-8859-1"}
"""Those in which a document type looks the same."""


class AnswerRefused(Exception):
    """Why an answer was not read on."""


class Answer(http.client.HTTPResponse):
    """See the module. Unpacked: whoever reads it finds no Content-Encoding."""

    def __init__(self, sock: Any, *args: Any, **kw: Any) -> None:
        super().__init__(sock, *args, **kw)
        buffered: Any = self.fp
        self._turns = Turns()
        self.fp = io.BufferedReader(_Metered(buffered.detach(), self._turns))
        self._soap = kw.get("method") == "POST"
        self._unpack: Any = None
        self._count = 0
        self._tail = b""
        self._text = 0

    def begin(self) -> None:
        if self.headers is not None or not self._begin_usual():
            super().begin()
        if self.length is not None and self.length > MOST_BYTES:
            raise AnswerRefused(f"the answer has {self.length} bytes; at most {MOST_BYTES} are read")
        packed = self.headers.get("Content-Encoding", "identity").strip().lower()
        if packed in ("gzip", "x-gzip", "deflate"):
            self.headers = self.msg = copy(self.headers)  # others may have this very head
            del self.headers["Content-Encoding"]
            self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 16 if "gzip" in packed else zlib.MAX_WBITS)

    def _begin_usual(self) -> bool:
        """Take a head of the usual form, if it is here in whole. Else nothing is taken, and http.client reads it.

        That parses it as a mail, which for the small answer of one agent is half of all the computing.
        """
        head, end, _ = self.fp.peek().partition(b"\r\n\r\n")
        lines = head + b"\r\n"
        length = _LENGTH.search(lines) if end else None
        if length is None:
            return False
        headers = _usual_headers(lines[: length.start()] + b"\r\n" + lines[length.end() :])
        if headers is None:
            return False
        self.fp.read(len(head) + len(end))
        self.code = self.status = 200
        self.reason, self.version = "OK", 11
        self.headers = self.msg = headers
        self.chunked = self.will_close = False
        self.length = int(length[1])
        return True

    def read(self, amt: int | None = None) -> bytes:
        """Up to ``amt`` bytes, fewer only at the end. Raises AnswerRefused.

        pyVmomi decodes as it reads, two KiB at a time: between two pieces others get their turn.
        """
        self._turns.give()
        pieces = []
        left = MOST_BYTES + 1 if amt is None or amt < 0 else amt
        while left and (piece := self._piece(min(left, _PIECE))):
            self._account(piece)
            left -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _piece(self, most: int) -> bytes:
        if self._unpack is None:
            return super().read(most)
        while not self._unpack.eof:
            packed = self._unpack.unconsumed_tail or super().read(_PIECE)
            piece: bytes = self._unpack.decompress(packed, most)
            if piece or not packed:
                return piece
        while super().read(_PIECE):
            pass  # what follows the end is of no use, but in the way of the next answer
        return b""

    def _account(self, piece: bytes) -> None:
        first = not self._count
        self._count += len(piece)
        if self._count > MOST_BYTES:
            raise AnswerRefused(f"the answer is larger than {MOST_BYTES} bytes")
        if self._soap:
            self._look(piece, first)

    def _look(self, piece: bytes, first: bool) -> None:
        if first:
            declared = _ENCODING.match(piece.removeprefix(b"\xef\xbb\xbf"))
            if b"\0" in piece[:4] or piece[:2] in (b"\xfe\xff", b"\xff\xfe"):
                raise AnswerRefused("the answer is not UTF-8")
            if declared is not None and declared[1].lower() not in _ENCODINGS:
                raise AnswerRefused("the answer is not UTF-8")
        seen = self._tail + piece
        if _DOCTYPE in seen:
            raise AnswerRefused("the answer has a document type, so it is no SOAP message")
        self._tail = seen[1 - len(_DOCTYPE) :]
        tag = piece.rfind(b"<")
        self._text = len(piece) - tag if tag >= 0 else self._text + len(piece)
        if self._text > _MOST_TEXT:
            raise AnswerRefused(f"the answer has a text of more than {_MOST_TEXT} bytes")


@lru_cache(maxsize=16)  # of one second, which a head may name, and of each server
def _usual_headers(head: bytes) -> http.client.HTTPMessage | None:
    """The headers of a head from which the length was taken; ``None`` for any that http.client is to read.

    Of thousands of small answers all heads are the same but for the length.
    """
    usual = _USUAL_HEAD.fullmatch(head)
    if usual is None:
        return None
    headers = http.client.HTTPMessage()
    for name, value in _USUAL_HEADER.findall(usual[1].decode("ascii")):
        headers[name] = value
    return None if any(name in headers for name in ("Content-Length", "Transfer-Encoding", "Connection")) else headers


class _Metered(io.RawIOBase):
    """What comes from the socket, counted: header lines and chunk sizes are part of an answer, too."""

    def __init__(self, raw: Any, turns: Turns) -> None:
        super().__init__()
        self._raw = raw
        self._count = 0
        self._turns = turns

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count: int | None = self._raw.readinto(buffer)
        if count:
            self._count += count
            if self._count > MOST_BYTES + _HEADERS:
                raise AnswerRefused(f"the answer is larger than {MOST_BYTES} bytes")
            self._turns.give()
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
