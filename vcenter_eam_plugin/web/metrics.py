# SPDX-License-Identifier: Apache-2.0
"""``/metrics``: the service in numbers, for Prometheus.

Read from the service at each scrape, so a number is never older than the answer. What it costs grows with hosts, and
what it gives does not: hosts are counted by cluster and state, and no series is one host's. Each application has a
registry of its own: in a host process the library's global one is the host's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from vcenter_eam_plugin import __version__
from vcenter_eam_plugin.domain.status import ContrailVm, State
from vcenter_eam_plugin.domain.time_in_state import BOUNDS, Durations
from vcenter_eam_plugin.service import Service
from vcenter_eam_plugin.tally import Tally
from vcenter_eam_plugin.unit import Unit

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "vcenter_eam_"
_MODES = ("observe", "act", "paused")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. ``name`` without prefix, and for a counter without ``_total``."""

    kind: type[GaugeMetricFamily] | type[CounterMetricFamily] | type[HistogramMetricFamily]
    name: str
    meaning: str
    labels: tuple[str, ...] = ("vcenter",)

    @property
    def full_name(self) -> str:
        """As it is shown."""
        return f"{PREFIX}{self.name}{'_total' if self.kind is CounterMetricFamily else ''}"


def _gauge(name: str, meaning: str, *labels: str) -> Family:
    return Family(GaugeMetricFamily, name, meaning, ("vcenter", *labels))


def _counter(name: str, meaning: str, *labels: str) -> Family:
    return Family(CounterMetricFamily, name, meaning, ("vcenter", *labels))


_ROWS = (
    Family(GaugeMetricFamily, "build_info", "Always 1; says which version runs.", ("version",)),
    # --- ContrailVMs
    _gauge("contrailvms", "ContrailVMs by cluster and state.", "cluster", "state"),
    _gauge("contrailvm_longest_in_state_seconds",
           "How long the one has been in this state that is in it for longest, of those this process saw.",
           "cluster", "state"),
    Family(HistogramMetricFamily, "contrailvm_time_in_state_seconds",
           "Stays in a state that began and ended since the start.", ("vcenter", "state")),
    _gauge("issues", "Issues that EAM shows, by exact type.", "type"),
    _gauge("violations", "Rules of vCenter that are seen broken, by rule.", "rule"),
    # --- this instance
    _gauge("connected", "1 when vCenter was logged in to and is being watched."),
    _gauge("ready", "1 when everything was read once, and states are given out."),
    _gauge("mode", "1 for the mode that it is in, 0 for the others.", "mode"),
    _gauge("leading", "1 when this instance publishes and acts for this vCenter."),
    _gauge("epoch", "Term of this instance as a leader; 0 before its first."),
    _gauge("alarms", "Alarms that are open, by name; those of hosts are counted together.", "alarm"),
    # --- what comes in
    _gauge("source_live", "1 when what is known of this source is current.", "source"),
    _gauge("source_stale_seconds", "How long the source has not been current; 0 when it is.", "source"),
    _gauge("session_logged_in", "1 when a session at vCenter is held."),
    _counter("logins", "Logins to vCenter; more than one means that a session ended."),
    _counter("inventory_listings", "Complete readings of the inventory; more than one means that a stream broke."),
    _counter("slow_answers", "Answers to this method that were left to the slow decoder: not written as usual.",
             "method"),
    # --- what is done
    _gauge("queue_keys", "Keys in the work queue: ready, being worked on, or for later.", "stage"),
    _gauge("waiting", "Hosts for which something is to be done that may not be done yet."),
    _gauge("repairs_stopped", "Clusters in which repairs are stopped, because several failed."),
    _counter("plans", "Plans with something to do, by what became of them.", "outcome"),
    _counter("actions", "Actions that were begun, by kind and how they ended (done, or the error).", "action",
             "outcome"),
    _counter("repairs", "Repairs that came to an end.", "outcome"),
    _counter("operations", "Operations that people asked for: begun, or the error that refused them.", "operation",
             "outcome"),
    _counter("operation_steps", "Steps of operations: done, or failed and not begun.", "operation", "outcome"),
    # --- what goes out
    _gauge("outbox_messages", "Messages that the broker has not confirmed."),
    _gauge("outbox_oldest_seconds", "Age of the oldest of them; 0 when there is none."),
    _gauge("outbox_held_keys", "ContrailVMs whose next message the broker refuses."),
    _gauge("outbox_quarantined_keys", "ContrailVMs whose record cannot be sent."),
    _gauge("broker_connected", "1 when a broker is connected."),
    _counter("confirms", "Messages that the broker confirmed."),
    _counter("refusals", "Messages that the broker refused, or could not route; each is tried again."),
    _counter("broker_connects", "Connections to a broker; more than one means that one was lost."),
    # --- the process
    Family(GaugeMetricFamily, "loop_longest_hold_seconds",
           "The longest that anything held the event loop for, in the last minute.", ()),
    Family(CounterMetricFamily, "loop_holds", "How often the event loop was held above its limit of 50 ms.", ()),
)  # fmt: skip

FAMILIES: Mapping[str, Family] = {family.name: family for family in _ROWS}
"""By name, in the order in which they are shown. One is shown without samples while it cannot be known."""


class _Scrape:
    """The families of one answer, as they fill."""

    def __init__(self) -> None:
        self.metrics: dict[str, Metric] = {
            name: family.kind(PREFIX + name, family.meaning, labels=family.labels) for name, family in FAMILIES.items()
        }

    def add(self, name: str, value: float, *labels: str) -> None:
        self.metrics[name].add_metric(labels, float(value))  # type: ignore[attr-defined] # each kind has its own

    def add_durations(self, name: str, durations: Durations, *labels: str) -> None:
        total, buckets = 0, []
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), durations.counts, strict=True):
            total += count
            buckets.append((bound, total))
        metric = self.metrics[name]
        assert isinstance(metric, HistogramMetricFamily)
        metric.add_metric(labels, buckets, sum_value=durations.seconds)


class ServiceCollector(Collector):
    """What ``service`` is, in families."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> Iterable[Metric]:
        """The families without samples: a registry asks for their names when it takes us in."""
        return _Scrape().metrics.values()

    def collect(self) -> Iterator[Metric]:
        scrape = _Scrape()
        scrape.add("build_info", 1, __version__)
        status = self._service.status()
        for unit, shown in zip(self._service.units, status["vcenters"], strict=True):
            _add_unit(scrape, unit, shown)
            if unit.pipeline is not None:
                _add_contrailvms(scrape, unit.name, unit.pipeline.fleet.statuses(), unit.tally, unit.pipeline.now())
        scrape.add("loop_longest_hold_seconds", status["loop"]["longest_in_last_minute"]["ms"] / 1e3)
        scrape.add("loop_holds", status["loop"]["over_limit"])
        yield from scrape.metrics.values()


class Metrics:
    """The registry of one application, and its text."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(ServiceCollector(service))
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """In the text format, :data:`CONTENT_TYPE`."""
        return generate_latest(self.registry)


def _add_unit(scrape: _Scrape, unit: Unit, shown: Mapping[str, Any]) -> None:
    name, tally = unit.name, unit.tally
    scrape.add("connected", shown["connected"], name)
    scrape.add("ready", shown.get("ready", False), name)
    for mode in _MODES:
        scrape.add("mode", shown["mode"] == mode, name, mode)
    scrape.add("leading", shown.get("leading", False), name)
    # An alarm of a host carries its moref behind a colon.
    _add_counts(scrape, "alarms", name, Counter((alarm["name"].partition(":")[0],) for alarm in shown["alarms"]))
    scrape.add("session_logged_in", bool(unit.session.cookie), name)
    scrape.add("logins", unit.session.generation, name)
    _add_counts(scrape, "slow_answers", name, {(method,): n for method, n in unit.session.fallen_back.items()})
    _add_counts(scrape, "plans", name, {(key,): count for key, count in tally.plans.items()})
    _add_counts(scrape, "actions", name, tally.actions)
    _add_counts(scrape, "operations", name, tally.operations)
    _add_counts(scrape, "operation_steps", name, tally.steps)
    for state, durations in tally.times.ended.items():
        scrape.add_durations("contrailvm_time_in_state_seconds", durations, name, state.value)
    pipeline = unit.pipeline
    if pipeline is None:
        return
    scrape.add("epoch", shown["epoch"], name)
    for source, about in shown["sources"].items():
        scrape.add("source_live", about["live"], name, source)
        scrape.add("source_stale_seconds", about["stale_seconds"], name, source)
    scrape.add("inventory_listings", pipeline.inventory.listings, name)
    queue = pipeline.workers.queue
    for stage, keys in (("ready", len(queue)), ("working", queue.working), ("later", queue.later)):
        scrape.add("queue_keys", keys, name, stage)
    scrape.add("waiting", len(shown["waiting"]), name)
    ledger = pipeline.planner.ledger
    scrape.add("repairs_stopped", len(ledger.open_breakers(pipeline.now())), name)
    _add_counts(scrape, "repairs", name, {(key,): count for key, count in ledger.ended.items()})
    _add_delivery(scrape, name, shown["publisher"])


def _add_delivery(scrape: _Scrape, name: str, publisher: Mapping[str, Any]) -> None:
    if publisher["backlog"] is not None:  # the outbox cannot be read: no number is better than a wrong one
        scrape.add("outbox_messages", publisher["backlog"], name)
        scrape.add("outbox_oldest_seconds", publisher["oldest_unsent_age"] or 0.0, name)
    scrape.add("outbox_held_keys", publisher["held"], name)
    scrape.add("outbox_quarantined_keys", len(publisher["quarantined"]), name)
    scrape.add("broker_connected", publisher["connected"], name)
    scrape.add("confirms", publisher["confirmed"], name)
    scrape.add("refusals", publisher["refused"], name)
    scrape.add("broker_connects", publisher["connects"], name)


def _add_contrailvms(scrape: _Scrape, name: str, statuses: Iterable[ContrailVm], tally: Tally, now: float) -> None:
    counts: Counter[tuple[str, State]] = Counter()
    oldest: dict[tuple[str, State], float] = {}
    issues: Counter[tuple[str, ...]] = Counter()
    rules: Counter[tuple[str, ...]] = Counter()
    for status in statuses:
        where = status.esxi.cluster or status.esxi.compute_resource, status.state
        counts[where] += 1
        since = tally.times.since(status.key)
        if since is not None:
            oldest[where] = min(oldest.get(where, since), since)
        issues.update((issue.type,) for issue in status.eam.issues)
        rules.update((violation.name,) for violation in status.violations)
    for (cluster, state), count in counts.items():
        scrape.add("contrailvms", count, name, cluster, state.value)
    for (cluster, state), since in oldest.items():
        scrape.add("contrailvm_longest_in_state_seconds", max(now - since, 0.0), name, cluster, state.value)
    _add_counts(scrape, "issues", name, issues)
    _add_counts(scrape, "violations", name, rules)


def _add_counts(scrape: _Scrape, family: str, name: str, counts: Mapping[tuple[str, ...], int]) -> None:
    for labels, count in counts.items():
        scrape.add(family, count, name, *labels)
