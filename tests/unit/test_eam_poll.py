# SPDX-License-Identifier: Apache-2.0
"""The poll of EAM: cheap when nothing changes, at once on a hint, and no list from a sick EAM is a deletion."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import gevent
import pytest
from gevent.event import Event
from gevent.lock import Semaphore

from tests.support.facts import AGENCY, CLUSTER, VCENTER, a_cluster, a_host, a_vm, an_agency, an_agent, an_issue
from vcenter_eam_plugin.agency_memory import AgencyMemory
from vcenter_eam_plugin.alarms import Alarms
from vcenter_eam_plugin.backoff import MOST_UNREAD
from vcenter_eam_plugin.domain.errors import LoginRefused, ObjectGone, PluginError, SuspectRead, Unavailable
from vcenter_eam_plugin.domain.facts import AgencyFacts, AgentFacts
from vcenter_eam_plugin.domain.fleet import Fleet
from vcenter_eam_plugin.domain.observations import AgentsObserved, Hint, InventoryObserved, Observation
from vcenter_eam_plugin.domain.status import State
from vcenter_eam_plugin.eam_poll import (
    AGENCY_ABSENT,
    AGENTS_AT_ONCE,
    OVERFLOW_SECONDS,
    SLOW_SECONDS,
    STALE_AFTER,
    SURVEY_SECONDS,
    EamPoll,
)
from vcenter_eam_plugin.vsphere.events import OVERFLOW

NAME = "ContrailVM-Agency"


@dataclass
class Eam:
    """An EAM that answers from what the test says there is, and books every call."""

    clock: Callable[[], float]
    there: list[AgencyFacts] = field(default_factory=lambda: [an_agency()])
    agents: dict[str, AgentFacts] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    sick: PluginError | None = None
    unlisted: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    while_listing: Callable[[], None] | None = None

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.sick is not None:
            raise self.sick

    def agencies(self) -> tuple[AgencyFacts, ...]:
        self._call("agencies")
        return tuple(self.there)

    def read_agency(self, moref: str) -> AgencyFacts:
        self._call("read_agency")
        for agency in self.there:
            if agency.moref == moref:
                return agency
        raise ObjectGone(f"{moref} is gone.")

    def read_runtime(self, known: AgencyFacts) -> AgencyFacts:
        """One request: how it is; the configuration is that of ``known``."""
        self._call("read_runtime")
        for agency in self.there:
            if agency.moref == known.moref:
                return replace(known, status=agency.status, goal=agency.goal, issues=agency.issues)
        raise ObjectGone(f"{known.moref} is gone.")

    def agents_of(self, agency: str) -> tuple[str, ...]:
        self._call("agents_of")
        answer = tuple(agent for agent in self.agents if agent not in self.unlisted)
        if self.while_listing is not None:
            self.while_listing()
        return answer

    def read_agents(self, morefs: Sequence[str]) -> AgentsObserved:
        self._call(f"read {len(morefs)}: {' '.join(morefs[:3])}")
        began = self.clock()
        there = self.agents.keys() - self.unknown
        found = tuple(replace(self.agents[m], read_began=began) for m in morefs if m in there)
        return AgentsObserved(found, tuple(m for m in morefs if m not in there))


class Stopping(Event):
    """Where the loop pauses: a pause lasts until the test ends it, and moves the clock instead of taking time."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.pauses: list[float] = []
        self.may_go_on = Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.pauses.append(timeout)
        self.may_go_on.acquire()
        self.bench.now += timeout
        return self.is_set()


class Bench:
    """A poll of ``count`` healthy hosts that the inventory has listed, with a clock that the test moves."""

    directory: Path

    def __init__(self, count: int = 2, *, known_before: bool = False) -> None:
        self.now = 1000.0
        self.alive = True
        self.followed: list[tuple[str, ...]] = []
        self.suspects: list[PluginError] = []
        self.scopes: list[Sequence[str]] = []
        self.fleet = Fleet(VCENTER, [CLUSTER])
        self.eam = Eam(lambda: self.now, agents={f"agent-{n}": an_agent(n) for n in range(1, count + 1)})
        hosts = tuple(a_host(n) for n in range(1, count + 1))
        self.fleet.apply(InventoryObserved(1.0, (a_cluster(),), hosts, complete=True))
        log = logging.getLogger("test.poll")
        self.alarms = Alarms(log, lambda: self.now)
        self.stopping = Stopping(self)
        session = SimpleNamespace(identities=("contrail@vsphere.local",), is_extension=False, alive=lambda: self.alive)
        self.session = session
        self.memory = AgencyMemory(self.directory / f"{id(self)}.agency.json", NAME, session)
        self.poll = EamPoll(
            session,  # type: ignore[arg-type]
            self.eam,  # type: ignore[arg-type]
            self.fleet,
            agency_name=NAME,
            memory=self.memory,
            interval=0.005,
            known_before=known_before,
            observe=self.observe,
            follow_vms=self.follow,
            follow_scope=self.scopes.append,
            clock=lambda: self.now,
            alarms=self.alarms,
            log=log,
            stopping=self.stopping,
            on_suspect=self.suspects.append,
        )

    def observe(self, observation: Observation) -> None:
        self.fleet.apply(observation)

    def follow(self, vms: Sequence[str]) -> None:
        """As the inventory does: it tells of what is new on the list, and takes back what is not on it any more."""
        before = set(self.followed[-1]) if self.followed else set()
        self.followed.append(tuple(vms))
        new = tuple(a_vm(int(vm.removeprefix("vm-"))) for vm in vms if vm not in before)
        self.fleet.apply(InventoryObserved(self.now, vms=new, gone=tuple(before - set(vms))))

    def once(self) -> list[str]:
        """One poll; returns what was asked of EAM."""
        self.eam.calls.clear()
        self.now += 1
        self.poll._poll()
        return list(self.eam.calls)

    def states(self) -> dict[str, State]:
        return {status.esxi.moref: status.state for status in self.fleet.statuses()}


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the benches remember their agency."""
    monkeypatch.setattr(Bench, "directory", tmp_path, raising=False)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- what is asked -----------------------------------------------------------------------------------------


def test_the_first_poll_reads_everything_and_then_one_call_is_enough(bench: Bench) -> None:
    """Design section 3: cost follows changes; a healthy fleet costs one read per poll."""
    assert bench.once() == ["agencies", "agents_of", "read 2: agent-1 agent-2"]
    assert bench.followed == [(), ("vm-1", "vm-2")]
    assert bench.states() == {"host-1": State.ACTIVE, "host-2": State.ACTIVE}
    assert bench.once() == ["read_runtime"]
    assert len(bench.followed) == 2, "an unchanged list is not handed over again"


def test_a_hint_has_its_host_read_and_nobody_else(bench: Bench) -> None:
    """S17: an event wakes; what is true is read."""
    bench.once()
    bench.poll.read_soon("host-2")
    assert bench.once() == ["read_runtime", "read 1: agent-2"]


@pytest.mark.parametrize(
    ("hint", "asked"),
    [
        (Hint(1, "com.vmware.vim.eam.issue.vmPoweredOff", 0.0, host="host-1"), ["read_runtime", "read 1: agent-1"]),
        (Hint(1, "VmPoweredOffEvent", 0.0, host="host-2"), ["read_runtime", "read 1: agent-2"]),
        (Hint(1, "com.vmware.vim.eam.agent.created", 0.0, host="host-9"), ["read_agency", "agents_of"]),
        (
            Hint(1, "com.vmware.vim.eam.agent.destroyed", 0.0, host="host-1"),
            ["read_agency", "agents_of", "read 1: agent-1"],
        ),
        (Hint(1, "com.vmware.vim.eam.agency.goalstate", 0.0), ["read_agency", "agents_of"]),
        (Hint(1, "HostAddedEvent", 0.0), ["read_agency", "agents_of"]),
    ],
)
def test_what_an_event_makes_us_read(bench: Bench, hint: Hint, asked: list[str]) -> None:
    """The agent of the host that it names; the members, when it names none or says that an agent came or went."""
    bench.once()
    bench.poll.take_hints([hint])
    assert bench.once() == asked


def test_a_new_member_is_read_at_once(bench: Bench) -> None:
    """S09."""
    bench.once()
    bench.eam.agents["agent-3"] = an_agent(3)
    bench.fleet.apply(InventoryObserved(bench.now, hosts=(a_host(3),)))
    bench.poll.read_soon(None)
    assert bench.once() == ["read_agency", "agents_of", "read 1: agent-3"]
    assert bench.states()["host-3"] is State.STARTING or bench.states()["host-3"] is State.ACTIVE
    assert bench.followed[-1] == ("vm-1", "vm-2", "vm-3")


def test_a_hint_that_comes_while_the_members_are_listed_asks_again(bench: Bench) -> None:
    """Bug: such a hint was taken as answered by the list that left before it; the agent was seen a minute late."""
    bench.once()
    bench.poll.read_soon(None)

    def an_agent_is_created() -> None:
        bench.eam.while_listing = None
        bench.eam.agents["agent-3"] = an_agent(3)
        bench.poll.take_hints([Hint(1, "com.vmware.vim.eam.agent.created", 0.0)])

    bench.eam.while_listing = an_agent_is_created
    assert bench.once() == ["read_agency", "agents_of"]
    assert bench.once() == ["read_agency", "agents_of", "read 1: agent-3"]


def test_what_was_read_counts_before_the_rest_is() -> None:
    """A large fleet reaches the bus piece by piece."""
    bench = Bench(count=AGENTS_AT_ONCE + 6)
    assert [call.split(":")[0] for call in bench.once()] == [
        "agencies",
        "agents_of",
        f"read {AGENTS_AT_ONCE}",
        "read 6",
    ]
    assert [len(vms) for vms in bench.followed] == [0, AGENTS_AT_ONCE, AGENTS_AT_ONCE + 6]


def test_an_agent_forgotten_for_a_moment_has_its_vm_watched_again(bench: Bench) -> None:
    """Bug: the list of VMs to watch was renewed only after the agents, so it looked unchanged, the VM was not told."""
    bench.once()
    kept = bench.eam.agents.pop("agent-1")
    bench.poll.read_soon(None)
    bench.once()
    assert bench.followed[-1] == ("vm-2",)
    bench.eam.agents["agent-1"] = kept
    bench.poll.read_soon(None)
    bench.once()
    assert bench.followed[-1] == ("vm-1", "vm-2")
    assert bench.states()["host-1"] is State.ACTIVE


def test_an_issue_that_the_agency_shows_has_its_agent_read(bench: Bench) -> None:
    """S07: red is seen by the one call that every poll makes."""
    bench.once()
    bench.eam.there = [an_agency(an_issue("VmPoweredOff", 2))]
    bench.eam.agents["agent-2"] = an_agent(2, "VmPoweredOff")
    assert bench.once() == ["read_runtime", "read 1: agent-2"]


# --- whose agency ------------------------------------------------------------------------------------------


def test_a_foreign_agency_is_an_alarm_until_it_is_none(bench: Bench) -> None:
    """Design section 5: another owner, or several: refuse, list them."""
    other = an_agency(moref="agency-7", owner="EXAMPLE\\other")
    bench.eam.there = [an_agency(), other]
    bench.once()
    (alarm,) = bench.alarms
    assert "agency-7 of EXAMPLE\\other" in alarm.text
    assert bench.states() == {"host-1": State.BLOCKED, "host-2": State.BLOCKED}
    bench.eam.there = [an_agency()]
    bench.once()
    assert list(bench.alarms) == []
    assert set(bench.states().values()) == {State.ACTIVE}


def test_another_that_takes_our_name_is_noticed(bench: Bench) -> None:
    """In between ours alone is read; all are looked at now and then."""
    bench.once()
    bench.eam.there.append(an_agency(moref="agency-7", owner="EXAMPLE\\other"))
    bench.once()
    assert "agency-conflict" not in bench.alarms
    bench.now += SURVEY_SECONDS
    bench.once()
    assert "agency-conflict" in bench.alarms


def test_whatever_the_agency_covers_is_watched(bench: Bench) -> None:
    """S04: a cluster taken out of the file keeps its ContrailVMs, and they are watched."""
    bench.eam.there = [an_agency(scope=("domain-c5",))]
    bench.once()
    assert bench.scopes[-1] == [CLUSTER, "domain-c5"]


# --- what is no deletion -----------------------------------------------------------------------------------


def test_no_agency_at_the_first_start_is_none(bench: Bench) -> None:
    """Then one may be created, without waiting."""
    bench.eam.there = []
    bench.once()
    assert bench.fleet.ready
    assert bench.fleet.agency is None


def test_an_agency_that_an_earlier_process_knew_must_stay_away_for_a_while() -> None:
    """EAM loads its agencies after its start: an empty list then would have a second one created."""
    bench = Bench(known_before=True)
    bench.eam.there = []
    with pytest.raises(Unavailable):
        bench.once()
    bench.now += AGENCY_ABSENT - 5
    with pytest.raises(Unavailable):
        bench.once()
    assert not bench.fleet.ready
    bench.now += 5
    bench.once()
    assert bench.fleet.ready


def test_our_agency_vanishing_for_a_moment_changes_nothing(bench: Bench) -> None:
    """Suspect reads neither delete nor create; gone for good is seen after the wait, and back at once."""
    bench.once()
    kept, bench.eam.there = bench.eam.there, []
    for _ in range(3):
        with pytest.raises(Unavailable):
            bench.once()
    assert set(bench.states().values()) == {State.ACTIVE}
    bench.eam.there = kept
    bench.once()
    bench.eam.there = []
    with pytest.raises(Unavailable):
        bench.once()
    bench.now += AGENCY_ABSENT
    bench.once()
    assert set(bench.states().values()) == {State.PENDING}


def test_an_agency_that_we_destroyed_is_gone_at_once(bench: Bench) -> None:
    """Bug: after an uninstall the status went on with the agency and alarmed for a minute that it is not listed."""
    bench.once()
    bench.poll.destroyed(AGENCY)
    assert bench.fleet.agency is not None, "it is believed when it is seen"
    bench.once()
    bench.eam.there, bench.alive = [], False
    with pytest.raises(Unavailable):
        bench.once()
    bench.alive = True
    for _ in range(3):
        bench.once()
    assert bench.fleet.agency is None
    bench.eam.there = [an_agency(moref="agency-next")]
    bench.once()
    bench.eam.there = []
    with pytest.raises(Unavailable):
        bench.once()


def test_an_agency_restored_under_another_reference_is_ours_again(bench: Bench) -> None:
    """Never by a stored id: morefs differ after a restore."""
    bench.once()
    bench.eam.there = [an_agency(moref="agency-restored")]
    assert bench.once()[:3] == ["read_runtime", "agencies", "agents_of"]
    assert bench.fleet.agency is not None
    assert bench.fleet.agency.moref == "agency-restored"


def test_an_empty_list_from_a_dead_session_counts_for_nothing(bench: Bench) -> None:
    """S02: an expired session can answer empty without an error, for as long as it likes."""
    bench.once()
    bench.alive = False
    bench.eam.there = []
    for _ in range(5):
        bench.now += AGENCY_ABSENT
        with pytest.raises(Unavailable):
            bench.once()
    assert set(bench.states().values()) == {State.ACTIVE}


def test_members_missing_from_a_dead_session_are_not_gone(bench: Bench) -> None:
    """The same for the list of agents; with a session that lives, it is the truth."""
    bench.once()
    bench.alive = False
    bench.eam.agents.pop("agent-1")
    bench.poll.read_soon(None)
    with pytest.raises(Unavailable):
        bench.once()
    assert bench.states()["host-1"] is State.ACTIVE
    bench.alive = True
    bench.poll.read_everything()
    bench.once()
    assert bench.states()["host-1"] is State.PENDING


def test_p8_agents_that_a_list_leaves_out_are_asked_for_before_they_are_gone(bench: Bench) -> None:
    """Bug: with a session that lives a short list was believed, and each agent left out was reported as not there."""
    bench.once()
    bench.eam.unlisted = {"agent-1"}
    bench.poll.read_soon(None)
    with pytest.raises(SuspectRead, match="left out agent-1"):
        bench.once()
    assert set(bench.states().values()) == {State.ACTIVE}


@pytest.mark.parametrize("whole_agency", [False, True])
def test_p8_agents_that_do_not_exist_while_eam_loads_are_not_gone(bench: Bench, whole_agency: bool) -> None:
    """Bug: ManagedObjectNotFound of an EAM that has not loaded its agents was believed at once."""
    bench.once()
    bench.eam.unknown = {"agent-1"}
    bench.poll.read_soon("host-1")
    if whole_agency:

        def no_agency(_: str) -> tuple[str, ...]:
            raise ObjectGone("There is no such agency.")

        bench.eam.agents_of = no_agency  # type: ignore[method-assign]
    with pytest.raises(SuspectRead, match="may"):
        bench.once()
    assert set(bench.states().values()) == {State.ACTIVE}


def test_an_agent_that_is_neither_known_nor_listed_is_gone(bench: Bench) -> None:
    """The other side of it."""
    bench.once()
    del bench.eam.agents["agent-1"]
    bench.poll.read_soon("host-1")
    bench.once()
    assert bench.states()["host-1"] is State.PENDING


def test_p8_an_agency_that_no_list_names_but_that_answers_is_there() -> None:
    """After a restart, with lists that stay short for as long as they like: no second agency beside it."""
    bench = Bench()
    bench.once()
    later = Bench(known_before=True)
    later.memory.use(an_agency())
    later.eam.agencies = tuple  # type: ignore[method-assign]
    for _ in range(4):
        later.now += AGENCY_ABSENT
        with pytest.raises(SuspectRead, match="which exists"):
            later.once()
    assert not later.fleet.ready


def test_missed_events_have_everything_read_but_not_all_the_time(bench: Bench) -> None:
    """Bug: an overflow had the members listed and no agent read, so what an agent alone tells was seen by the sweep, up
    to ten minutes later. In a storm each page overflows."""
    bench.once()
    bench.poll.take_hints([Hint(1, OVERFLOW, 0.0)])
    assert "read 2: agent-1 agent-2" in bench.once()
    bench.poll.take_hints([Hint(1, OVERFLOW, 0.0)])
    assert "read 2: agent-1 agent-2" not in bench.once()
    bench.now += OVERFLOW_SECONDS
    assert "read 2: agent-1 agent-2" in bench.once(), "put off, and not forgotten"


# --- the loop ----------------------------------------------------------------------------------------------


@pytest.fixture
def running(bench: Bench) -> Iterator[Bench]:
    greenlet = gevent.spawn(bench.poll.run)
    until(lambda: bench.poll.read_at is not None)
    yield bench
    bench.stopping.set()
    bench.poll.wake()
    bench.stopping.may_go_on.release()
    greenlet.get(timeout=5)


def until(condition: Callable[[], bool]) -> None:
    with gevent.Timeout(5):
        while not condition():
            gevent.sleep(0.001)


def fail(bench: Bench, times: int) -> list[float]:
    """Let that many attempts fail; returns how long the loop pauses after each. It stands in the last pause then."""
    before = len(bench.stopping.pauses)
    for n in range(1, times + 1):
        until(lambda n=n: len(bench.stopping.pauses) == before + n)  # type: ignore[misc]
        if n < times:
            bench.stopping.may_go_on.release()
    return bench.stopping.pauses[before:]


def test_the_loop_reads_again_and_again(running: Bench) -> None:
    """On a timer, because EAM has no change stream; it ends when told (the fixture's end)."""
    until(lambda: running.eam.calls.count("read_runtime") >= 3)
    assert running.stopping.pauses == []


def test_a_short_trouble_is_quiet(running: Bench) -> None:
    """EAM starts or is away: retried, each time later; the picture stays, and nobody is woken for a hiccup."""
    running.eam.sick = Unavailable("EAM is still loading.")
    pauses = fail(running, 4)
    assert list(running.alarms) == []
    assert set(running.states().values()) == {State.ACTIVE}
    assert pauses[3] > 4 * pauses[0]


def test_a_long_trouble_is_an_alarm_until_it_is_over(running: Bench) -> None:
    """After a minute it is one; it ends by itself, and then everything is read: nothing is known to be unchanged."""
    running.eam.sick = Unavailable("EAM is still loading.")
    fail(running, 1)
    running.now += STALE_AFTER
    running.stopping.may_go_on.release()
    fail(running, 1)
    assert "eam" in running.alarms
    running.eam.sick = None
    running.eam.calls.clear()
    running.stopping.may_go_on.release()
    until(lambda: "eam" not in running.alarms)
    assert running.eam.calls[:3] == ["read_agency", "agents_of", "read 2: agent-1 agent-2"]


def test_what_no_time_heals_is_an_alarm_at_once(running: Bench) -> None:
    """A refused login: said at once, and tried on."""
    running.eam.sick = LoginRefused("vCenter refused the password.")
    fail(running, 1)
    assert "eam" in running.alarms
    running.eam.sick = None
    running.stopping.may_go_on.release()
    until(lambda: "eam" not in running.alarms)


def test_the_agency_of_the_bench_is_ours() -> None:
    """The bench itself: else half of these tests would pass for the wrong reason."""
    assert an_agency().moref == AGENCY
    assert an_agency().name == NAME


def test_p7_an_eam_that_was_away_for_long_is_read_within_seconds(running: Bench) -> None:
    """Bug: after some minutes the pauses had grown to a minute, and what is published must be true in 30 s."""
    running.eam.sick = Unavailable("EAM is still loading.")
    assert max(fail(running, 12)) <= MOST_UNREAD * 1.2


def test_how_current_it_is(running: Bench) -> None:
    """Live; stale since the last whole read, once a read failed, or has not come to an end for long."""
    assert running.poll.stale_since is None
    running.eam.sick = SuspectRead("EAM left out something.")
    fail(running, 1)
    assert running.poll.stale_since == running.poll.read_at
    assert running.poll.last_error is running.eam.sick
    assert running.suspects == [running.eam.sick]


def test_a_read_that_hangs_makes_it_stale(bench: Bench) -> None:
    assert bench.poll.stale_since == 1000.0, "nothing was read yet"
    bench.poll.read_at = bench.now
    bench.now += SLOW_SECONDS - 1
    assert bench.poll.stale_since is None
    bench.now += 2
    assert bench.poll.stale_since == bench.poll.read_at
