# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the servers that tests use, and the rule that CI skips nothing."""

import os

import pytest

collect_ignore = ["browser"]
"""Has a configuration of its own, because Playwright needs a standard library that is not patched."""

pytest_plugins = [
    "tests.support.rabbit",
    "tests.support.simulator",
    "tests.support.vcsim",
    "tests.support.zookeeper",
    "tests.support.bench",  # on top of the first two: scenarios
    "tests.support.commands",  # on top of that: an operator
    "tests.support.web",  # and a client of the web server
    "tests.support.onlooker",  # both
]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was not tested, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    reasons = sorted({str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)})
    terminalreporter.section(f"NOT TESTED HERE: {len(skipped)} tests were skipped", red=True, bold=True)
    for reason in reasons:
        terminalreporter.line(reason)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With CI=true a skip is a failure: a green run must mean that everything ran."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shard", default="1/1", metavar="I/N", help="Run the I-th of N parts, whole modules each.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the modules of other shards to other processes: most of a scenario's time is waiting."""
    part, parts = (int(number) for number in config.getoption("--shard").split("/"))
    modules = sorted({item.path for item in items})
    mine = set(modules[part - 1 :: parts])
    config.hook.pytest_deselected(items=[item for item in items if item.path not in mine])
    items[:] = [item for item in items if item.path in mine]
