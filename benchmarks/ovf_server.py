# SPDX-License-Identifier: Apache-2.0
"""The daemon's OVF server in a process of its own: ``python -m benchmarks.ovf_server PACKAGE HOLDS``.

Says the URL of the package and serves it until its standard input ends. ``HOLDS`` is written by
:mod:`benchmarks.watched`.
"""

# As in the daemon.
from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import logging  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402

from benchmarks.watched import Watch  # noqa: E402
from vcenter_eam_plugin.ovf.server import OvfServer  # noqa: E402


def main(package: str, holds: str) -> None:
    """See the module."""
    gc.freeze()
    server = OvfServer(("127.0.0.1", 0), "", logging.getLogger("benchmark"))
    server.start()
    url = server.publish(Path(package))
    watch = Watch(Path(holds))
    print(url, flush=True)
    gevent.get_hub().threadpool.apply(sys.stdin.read)
    server.stop()
    watch.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
