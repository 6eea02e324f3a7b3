# SPDX-License-Identifier: Apache-2.0
"""How much is tried, and from which seed.

By default a run is short and always the same, so that what is red is red for everybody. ``--fuzz-examples N`` tries N
per target, from a seed that is drawn and shown; the same seed (``--hypothesis-seed``) tries the same again.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, core, settings

DEFAULT_EXAMPLES = 40
"""Per target in CI: all targets together then take a minute of computing."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-examples",
        type=int,
        default=0,
        metavar="N",
        help="Try N inputs per target of tests/fuzz, from a new seed (or --hypothesis-seed). Else: few, and the same.",
    )


def pytest_configure(config: pytest.Config) -> None:
    examples = config.getoption("--fuzz-examples", 0)
    settings.register_profile(
        "fuzz",
        max_examples=examples or DEFAULT_EXAMPLES,
        derandomize=not examples,
        database=None,
        deadline=None,  # each target has a deadline of its own, in which a loaded machine is allowed for
        print_blob=True,
        suppress_health_check=list(HealthCheck),  # fixtures are servers, meant to serve all examples
    )
    settings.load_profile("fuzz")
    if examples and config.getoption("--hypothesis-seed", None) is None:
        core.global_force_seed = random.SystemRandom().randrange(2**32)


def pytest_report_header(config: pytest.Config) -> str:
    seed = core.global_force_seed if config.getoption("--hypothesis-seed", None) is None else "as given"
    return f"fuzz: {settings.default.max_examples} examples per target, seed {'fixed' if seed is None else seed}"
