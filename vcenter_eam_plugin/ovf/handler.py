# SPDX-License-Identifier: Apache-2.0
"""How one connection of a web server is read, whoever is at its other end.

A request's head must come whole within a time: each byte alone would restart the time-out of a socket, so that a few
hundred connections that send a byte a minute would keep everybody else out for days. What is no request is answered
with 400 and one line in the log, never with a traceback.
"""

from __future__ import annotations

import http.client

import gevent
from gevent.pywsgi import WSGIHandler

HEAD_SECONDS = 60.0
"""For a request line and its headers, and for a connection that is kept open for the next request."""


class PatientHandler(WSGIHandler):  # type: ignore[misc] # gevent has no types
    """See the module."""

    def read_requestline(self) -> str:
        """The time begins; that nothing comes is nobody's mistake (OSError, on which gevent closes the connection)."""
        self._head = gevent.Timeout(HEAD_SECONDS, TimeoutError("no request came in time"))
        self._head.start()
        try:
            line = super().read_requestline()
        except BaseException:
            self._head.close()
            raise
        if not line:
            self._head.close()
        return str(line)

    def read_request(self, raw_requestline: str) -> bool:
        """The rest of the head. Raises ValueError, which is gevent's sign for a mistake of the peer's."""
        try:
            read = bool(super().read_request(raw_requestline))
            if self.headers.get("Transfer-Encoding") is not None:
                # gevent fails on broken chunks in the middle of answering; nobody who asks us needs any
                raise ValueError("a body must come with its length")
        except TimeoutError as exc:
            raise ValueError("the request did not come whole in time") from exc
        except (http.client.HTTPException, LookupError) as exc:  # too many headers; "HTTP/1", whose minor gevent misses
            raise ValueError(str(exc)) from exc
        finally:
            self._head.close()
        return read

    def handle(self) -> None:
        self._head = gevent.Timeout(None)
        try:
            super().handle()
        finally:
            self._head.close()  # a request line that is too long ends the connection between the two
