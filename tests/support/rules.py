# SPDX-License-Identifier: Apache-2.0
"""What scenarios of vCenter's rules (S10-S16) ask of a bench: which violations are on the bus, and who changed what."""

from __future__ import annotations

from typing import Any

from tests.support.bench import Bench

ALARMING = frozenset({"POWERED_OFF", "SUSPENDED", "MISSING", "FAULTY", "BLOCKED", "UNREACHABLE", "REMOVING", "REMOVED"})
"""States that no host shows that is only put out of service for a while."""


def of_host(bench: Bench, host: str, since: int = 0) -> list[dict[str, Any]]:
    """Every message about a host, by name, from the message with index ``since`` on."""
    return [m for m in bench.messages[since:] if m["key"] and m["esxi"]["name"] == host]


def violations_heard(bench: Bench, host: str, since: int = 0) -> set[str]:
    """Names of all violations that were published of a host."""
    return {violation["name"] for m in of_host(bench, host, since) for violation in m["violations"]}


def violations_now(bench: Bench, host: str) -> dict[str, str]:
    """Name and text of the violations that the newest message about a host has."""
    for message in bench.listener.view.states.values():
        if message["esxi"]["name"] == host:
            return {violation["name"]: violation["text"] for violation in message["violations"]}
    return {}


def wait_for_violation(bench: Bench, host: str, name: str) -> str:
    """Until it is on the bus; returns its text."""
    return str(bench.wait_for(lambda: violations_now(bench, host).get(name), f"{host}: violation {name}"))


def wait_until_kept(bench: Bench, host: str) -> None:
    """Until the bus says that no rule is broken on a host."""
    bench.wait_for(lambda: not violations_now(bench, host), f"{host}: the violation is over")


class Watched:
    """A stretch of a story, from now on: what was heard of every host, and what anybody wrote to vCenter."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.since = len(bench.messages)
        self._writes = len(bench.writes())

    def heard(self, host: str) -> list[str]:
        return self.bench.heard(host, self.since)

    def violations(self, host: str) -> set[str]:
        return violations_heard(self.bench, host, self.since)

    def writes(self) -> list[str]:
        """Methods by which a client changed something; stimuli are not among them."""
        return [entry.fields["method"] for entry in self.bench.writes()[self._writes :]]

    def assert_kept(self, *hosts: str, besides: frozenset[str] = frozenset()) -> None:
        """Nothing was repaired, alarmed or called a violation; ``hosts`` had at most ``besides`` of what alarms."""
        assert self.writes() == []
        self.assert_no_alarm(*hosts, besides=besides)
        assert {name: found for name in self.bench.names() if (found := self.violations(name))} == {}

    def assert_no_alarm(self, *hosts: str, besides: frozenset[str] = frozenset()) -> None:
        """No alarm of ours; the other hosts were not concerned at all."""
        assert self.bench.alarms() == {}
        for name in self.bench.names():
            if name in hosts:
                assert not (ALARMING - besides) & set(self.heard(name)), self.heard(name)
            else:
                assert self.heard(name) == [], name


def has_ended(task: Any) -> bool:
    """Whether a task of the simulated vCenter has come to its end, good or bad."""
    return str(task.info.state) in ("success", "error")
