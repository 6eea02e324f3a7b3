# SPDX-License-Identifier: Apache-2.0
"""A range of loopback addresses for the guests of one simulator, that no other simulator on this machine uses.

Guests of two simulators at the same address would answer for one another: a ContrailVM that is still starting would be
found healthy, because its namesake elsewhere is. A claim is a listening name in Linux's abstract socket namespace. It
goes with the process that holds it, however that ends, and leaves no file.
"""

from __future__ import annotations

import errno
import socket

FIRST = 77
"""Second number of the first range that is tried: 127.77 is what a simulator has that is alone."""
_RANGES = [*range(FIRST, 255), *range(2, FIRST)]
"""Without 127.0, which holds localhost, and 127.1, which is left to whoever names a range himself."""


class Claim:
    """``net`` is the first two numbers of the claimed addresses, ``127.77``."""

    def __init__(self, net: str, held: socket.socket) -> None:
        self.net = net
        self._held = held

    def release(self) -> None:
        """Let others have it."""
        self._held.close()


def claim() -> Claim:
    """The first range that is free. Raises ``OSError`` when all 253 are taken."""
    for number in _RANGES:
        net = f"127.{number}"
        held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            held.bind(f"\0vcenter-eam-simulator-{net}")
        except OSError as exc:
            held.close()
            if exc.errno != errno.EADDRINUSE:
                raise
        else:
            return Claim(net, held)
    raise OSError(errno.EADDRNOTAVAIL, "each loopback network from 127.2 to 127.254 belongs to another simulator")
