# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.child NAME full|quick [HOSTS...]``: one benchmark, a JSON object a row on standard output.

What it says to people goes to standard error.
"""

# As in the daemon, which is what is measured: patched before anything that imports the standard library.
from gevent import monkey

monkey.patch_all()

import dataclasses  # noqa: E402
import json  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402

from benchmarks.row import FULL, QUICK  # noqa: E402
from benchmarks.suite import chosen  # noqa: E402


def main(name: str, effort: str, *sizes: str) -> None:
    """See the module."""
    rows, sys.stdout = sys.stdout, sys.stderr  # whatever is measured may print
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of every ``finally``
    whole = QUICK if effort == "quick" else FULL
    with_sizes = dataclasses.replace(whole, sizes=tuple(map(int, sizes)) or whole.sizes)
    for one in chosen([name]):
        for row in one.measure(with_sizes):
            print(json.dumps(dataclasses.asdict(row)), file=rows, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
