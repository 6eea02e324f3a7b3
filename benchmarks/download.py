# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.download URL``: fetch it by HTTP, throw it away, and say how many bytes came.

Linux drops what is read with MSG_TRUNC from a TCP socket without copying it, so this costs next to nothing and is not
what limits a server; curl takes more time than nginx does.
"""

from __future__ import annotations

import socket
import sys
from urllib.parse import urlsplit

AT_ONCE = 4 << 20
"""Bytes per read."""


def main(url: str) -> None:
    """See the module. Ends with an error when less comes than was announced."""
    parts = urlsplit(url)
    assert parts.hostname
    with socket.create_connection((parts.hostname, parts.port or 80)) as sock:
        sock.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            some = sock.recv(4096)
            assert some, head
            head += some
        head, _, body = head.partition(b"\r\n\r\n")
        assert b" 200 " in head.splitlines()[0], head
        came, buffer = len(body), bytearray(AT_ONCE)
        while size := sock.recv_into(buffer, AT_ONCE, socket.MSG_TRUNC):
            came += size
    print(came)


if __name__ == "__main__":
    main(sys.argv[1])
