# SPDX-License-Identifier: Apache-2.0
"""S03: a new package comes host by host: a canary that shows it works, then waves; nothing after the first failure."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vcenter_eam_plugin.domain import upgrade as rules
from vcenter_eam_plugin.domain.status import State
from vcenter_eam_plugin.domain.upgrade import FAILED_SECONDS, HostSight, Phase, Upgrade, admits, advance, begin

NOW = 1000.0
URL = "http://ovf.example/new/contrail.ovf"
RESTING = (State.MAINTENANCE, State.STANDBY, State.UNREACHABLE)


def running(host: str, **changes: Any) -> HostSight:
    """A host with the VM that it had before the upgrade."""
    values: dict[str, Any] = {
        "state": State.ACTIVE, "vm": f"old-{host}", "held": None, "old_runs": True, "name": f"{host}.example",
    }  # fmt: skip
    return HostSight(**values | changes)


def held(host: str, **changes: Any) -> HostSight:
    """Its new VM is there, off, and waits; the old one runs."""
    return running(host, held=f"new-{host}", **changes)


def upgraded(host: str, **changes: Any) -> HostSight:
    return running(host, vm=f"new-{host}", **changes)


def fleet(number: int) -> dict[str, HostSight]:
    return {f"h{n}": running(f"h{n}") for n in range(number)}


def begun(number: int = 5, wave_size: int = 2) -> Upgrade:
    upgrade = begin(URL, fleet(number), wave_size=wave_size, all_at_once=False, now=NOW)
    assert upgrade is not None
    return upgrade


def all_held(number: int = 5, **changes: HostSight) -> dict[str, HostSight]:
    return {host: held(host) for host in fleet(number)} | changes


def with_canary(number: int = 5) -> Upgrade:
    upgrade = advance(begun(number), all_held(number), NOW)
    assert upgrade.phase is Phase.CANARY
    return upgrade


# --- the way it should go ----------------------------------------------------------------------------------


def test_canary_then_waves_then_done() -> None:
    """S03: one host first; then as many as the wave has, each wave after the one before has come up."""
    upgrade, hosts = begun(), fleet(5)
    assert (upgrade.phase, upgrade.canary) == (Phase.HOLDING, "h0")
    assert advance(upgrade, hosts, NOW) == upgrade, "no new VM is held yet"
    hosts = all_held()
    upgrade = advance(upgrade, hosts, NOW)
    assert (upgrade.phase, upgrade.admitted) == (Phase.CANARY, ("h0",))
    hosts["h0"] = upgraded("h0", state=State.STARTING)
    assert advance(upgrade, hosts, NOW) == upgrade, "the canary has not come up yet"
    hosts["h0"] = upgraded("h0")
    upgrade = advance(upgrade, hosts, NOW)
    assert (upgrade.phase, upgrade.admitted) == (Phase.WAVES, ("h0", "h1", "h2"))
    hosts["h1"] = upgraded("h1")
    assert advance(upgrade, hosts, NOW) == upgrade, "half of the wave"
    hosts["h2"] = upgraded("h2")
    upgrade = advance(upgrade, hosts, NOW)
    assert upgrade.admitted == ("h0", "h1", "h2", "h3", "h4")
    hosts |= {"h3": upgraded("h3"), "h4": upgraded("h4")}
    upgrade = advance(upgrade, hosts, NOW)
    assert upgrade.phase is Phase.DONE
    assert advance(upgrade, fleet(5), NOW) == upgrade, "done stays done"


def test_the_canary_is_an_active_host_and_without_one_nothing_begins() -> None:
    """S03: a host that is broken anyway shows nothing about the new package."""
    hosts = {"h0": running("h0", state=State.FAULTY), "h1": running("h1", vm=None), "h2": running("h2")}
    upgrade = begin(URL, hosts, wave_size=4, all_at_once=False, now=NOW)
    assert upgrade is not None
    assert upgrade.canary == "h2"
    assert upgrade.old == {"h0": "old-h0", "h2": "old-h2"}, "a host without a VM gets the new one anyway"
    del hosts["h2"]
    assert begin(URL, hosts, wave_size=4, all_at_once=False, now=NOW) is None


def test_all_at_once_admits_everybody_and_ends_when_all_are_up() -> None:
    """S03: --all-at-once needs no hold and no canary."""
    hosts = {"h0": running("h0", state=State.FAULTY), "h1": running("h1")}
    upgrade = begin(URL, hosts, wave_size=1, all_at_once=True, now=NOW)
    assert upgrade is not None
    assert admits(upgrade, "h0")
    assert admits(upgrade, "h1")
    upgrade = advance(upgrade, {"h0": upgraded("h0", state=State.BLOCKED), "h1": upgraded("h1")}, NOW + 10_000)
    assert upgrade.phase is Phase.WAVES
    assert advance(upgrade, {"h0": upgraded("h0"), "h1": upgraded("h1")}, NOW).phase is Phase.DONE


def test_a_replacement_that_nobody_asked_for_is_not_admitted() -> None:
    """Design section 5: without an upgrade of ours a new VM beside a running one waits for a person."""
    assert not admits(None, "h0")
    assert not admits(begun(), "h0")
    done = msgspec.structs.replace(begun(), phase=Phase.DONE, admitted=("h0",))
    assert admits(done, "h0")
    assert not admits(done, "h1"), "one that was away has not had its turn"


# --- what goes wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("canary", "why"),
    [
        (held("h0", old_runs=False), "EAM stopped the old VM of h0.example while the new one is held"),
        (running("h0", vm=None, old_runs=False), "h0.example lost its old VM before the new one was held"),
    ],
    ids=["old VM off", "old VM gone"],
)
def test_without_the_old_vm_running_it_stops_and_says_how_many_are_affected(canary: HostSight, why: str) -> None:
    """S03: verified on the canary, before anything is admitted."""
    upgrade = advance(begun(), all_held(h0=canary), NOW)
    assert upgrade.phase is Phase.STOPPED
    assert upgrade.admitted == ()
    assert upgrade.why == f"{why}; 5 host(s) are not upgraded"
    assert advance(upgrade, all_held(), NOW) == upgrade, "stopped stays stopped"


@pytest.mark.parametrize("state", [State.BLOCKED, State.FAULTY, State.MISSING, State.POWERED_OFF, State.SUSPENDED])
def test_a_canary_that_does_not_come_up_stops_it(state: State) -> None:
    """S03: not at once, since EAM may be at work; the others keep their old VM."""
    upgrade, hosts = with_canary(), all_held(h0=upgraded("h0", state=state))
    upgrade = advance(upgrade, hosts, NOW)
    assert upgrade.failing_since == {"h0": NOW}
    upgrade = advance(upgrade, hosts, NOW + FAILED_SECONDS - 1)
    assert upgrade.phase is Phase.CANARY
    upgrade = advance(upgrade, hosts, NOW + FAILED_SECONDS)
    assert (upgrade.phase, upgrade.admitted) == (Phase.STOPPED, ("h0",))
    assert upgrade.why == "h0.example did not come up with the new package; 5 host(s) are not upgraded"


def test_where_marking_is_refused_it_stops_instead_of_waiting_for_ever() -> None:
    """S03: only a try tells whether an account may mark; the canary is that try, and the others keep their old VM."""
    upgrade = advance(with_canary(), all_held(), NOW, may_mark=False)
    assert (upgrade.phase, upgrade.admitted) == (Phase.STOPPED, ("h0",))
    assert upgrade.why == "EAM refuses MarkAsAvailable to our account; 5 host(s) are not upgraded"
    at_once = begin("u", fleet(2), wave_size=1, all_at_once=True, now=NOW)
    assert at_once is not None
    assert advance(at_once, fleet(2), NOW, may_mark=False) == at_once, "nothing is held there"


def test_a_failure_that_passes_is_forgotten() -> None:
    """S03: the time counts from the last time it failed."""
    upgrade = advance(with_canary(), all_held(h0=upgraded("h0", state=State.MISSING)), NOW)
    upgrade = advance(upgrade, all_held(h0=upgraded("h0", state=State.STARTING)), NOW + 100)
    assert upgrade.failing_since == {}
    upgrade = advance(upgrade, all_held(h0=upgraded("h0", state=State.FAULTY)), NOW + FAILED_SECONDS + 50)
    assert upgrade.phase is Phase.CANARY


def test_who_fails_without_being_admitted_stops_nothing() -> None:
    """S03: a host that was broken before, or breaks while it waits, is none of the new package's."""
    hosts = all_held(h3=held("h3", state=State.FAULTY))
    upgrade = with_canary()
    for seconds in (0, FAILED_SECONDS + 1):
        upgrade = advance(upgrade, hosts, NOW + seconds)
    assert upgrade.phase is Phase.CANARY


def test_resume_after_a_stop_before_the_canary_goes_on_with_the_canary_alone() -> None:
    """S03: a person has looked, but nothing was shown yet."""
    stopped = advance(begun(), all_held(h0=held("h0", old_runs=False)), NOW)
    upgrade = rules.resume(stopped)
    assert (upgrade.phase, upgrade.why, upgrade.admitted) == (Phase.CANARY, "", ("h0",))
    assert advance(upgrade, all_held(), NOW).admitted == ("h0",)
    assert advance(upgrade, all_held(h0=upgraded("h0")), NOW).admitted == ("h0", "h1", "h2")


def test_a_pause_admits_nobody_and_is_over_with_resume() -> None:
    """S03: those admitted go on to their end."""
    upgrade = rules.pause(with_canary())
    hosts = all_held(h0=upgraded("h0"))
    assert advance(upgrade, hosts, NOW) == upgrade
    assert admits(upgrade, "h0")
    assert advance(rules.resume(upgrade), hosts, NOW).admitted == ("h0", "h1", "h2")
    paused = rules.pause(begun())
    assert advance(paused, all_held(), NOW) == paused, "not even the canary"
    assert rules.resume(paused).phase is Phase.HOLDING


# --- who goes away -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", RESTING)
def test_a_canary_that_rests_before_its_turn_is_replaced(state: State) -> None:
    """S03: by a host that is there, whose new VM is held and whose old one runs."""
    hosts = all_held(h0=running("h0", state=state), h1=held("h1", state=state), h2=held("h2", old_runs=False))
    upgrade = advance(begun(), hosts, NOW)
    assert (upgrade.canary, upgrade.phase, upgrade.admitted) == ("h3", Phase.HOLDING, ())
    assert advance(upgrade, hosts, NOW).admitted == ("h3",)


@pytest.mark.parametrize("gone", ["left", *RESTING])
def test_a_canary_that_goes_in_its_turn_has_not_shown_anything(gone: Any) -> None:
    """S03: the next single host has to, before there are waves."""
    hosts = all_held(h0=upgraded("h0", state=gone if gone in RESTING else State.ACTIVE))
    if gone == "left":
        del hosts["h0"]
    upgrade = advance(with_canary(), hosts, NOW)
    assert (upgrade.phase, upgrade.admitted) == (Phase.CANARY, ("h0", "h1"))
    hosts["h1"] = upgraded("h1")
    upgrade = advance(upgrade, hosts, NOW)
    assert (upgrade.phase, upgrade.admitted) == (Phase.WAVES, ("h0", "h1", "h2", "h3"))


def test_hosts_that_left_or_rest_do_not_hold_up_the_others() -> None:
    """S03: who is back goes on; who left is no part of it any more."""
    upgrade = advance(with_canary(4), all_held(4, h0=upgraded("h0")), NOW)
    assert upgrade.admitted == ("h0", "h1", "h2")
    hosts = all_held(4, h0=upgraded("h0"), h1=upgraded("h1", state=State.MAINTENANCE))
    del hosts["h2"]
    upgrade = advance(upgrade, hosts, NOW)
    assert upgrade.admitted == ("h0", "h1", "h2", "h3")
    hosts |= {"h3": upgraded("h3")}
    assert advance(upgrade, hosts, NOW).phase is Phase.WAVES, "one is not back yet"
    assert advance(upgrade, hosts | {"h1": upgraded("h1")}, NOW).phase is Phase.DONE


def test_when_every_host_of_it_left_it_is_done() -> None:
    """S03: nothing is left to upgrade."""
    assert advance(with_canary(), {"h9": fleet(10)["h9"]}, NOW).phase is Phase.DONE


def test_who_sees_no_host_at_all_decides_nothing() -> None:
    """A permission that is taken and given back must not end the upgrade, and then replace whoever returns at once."""
    upgrade = with_canary()
    assert advance(upgrade, {}, NOW) == upgrade


def test_a_host_that_was_away_at_the_end_has_its_turn_when_it_is_back() -> None:
    """S03: it comes back with its old VM, and is not replaced before it is admitted."""
    done = advance(with_canary(), {"h0": upgraded("h0")}, NOW)
    assert done.phase is Phase.DONE
    again = advance(done, all_held(h0=upgraded("h0")), NOW)
    assert (again.phase, admits(again, "h1")) == (Phase.WAVES, False)
    assert advance(again, all_held(h0=upgraded("h0")), NOW).admitted[1:] == ("h1", "h2")


def test_what_stopped_may_go_on_with_everybody_at_once_if_a_person_says_so() -> None:
    """An account that may not mark cannot go on in waves; the same package may be taken by all at once."""
    stopped = advance(begun(), all_held(), NOW, may_mark=False)
    assert rules.may_go_on_at_once(stopped, stopped.url)
    assert not rules.may_go_on_at_once(stopped, "http://ovf.example/another.ovf")
    assert not rules.may_go_on_at_once(begun(), begun().url)
    going = rules.at_once(stopped)
    assert (going.phase, admits(going, "h4")) == (Phase.WAVES, True)
    assert advance(going, {f"h{n}": upgraded(f"h{n}") for n in range(5)}, NOW).phase is Phase.DONE


def test_it_survives_its_file() -> None:
    """S03: what a restart reads is what was written."""
    upgrade = advance(with_canary(), all_held(h0=upgraded("h0", state=State.FAULTY)), NOW)
    assert msgspec.json.decode(msgspec.json.encode(upgrade), type=Upgrade) == upgrade


# --- whatever happens --------------------------------------------------------------------------------------


class AnyUpgrade(RuleBasedStateMachine):
    """S03: hosts go and come, fail and heal, people pause and resume; the promises hold at every step."""

    SIZE = 7

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.hosts = fleet(self.SIZE)
        self.upgrade = begun(self.SIZE, wave_size=2)
        self.shown = False
        """A person resumed a stop, or an admitted host was seen ACTIVE with its new VM."""
        self.told = False

    host = st.integers(0, SIZE - 1).map(lambda n: f"h{n}")

    def _see(self, host: str, **changes: Any) -> None:
        if host in self.hosts:
            self.hosts[host] = msgspec.structs.replace(self.hosts[host], **changes)

    @rule()
    def eam_holds_the_new_vms(self) -> None:
        self.told = True
        for host, sight in self.hosts.items():
            if sight.vm == f"old-{host}":
                self._see(host, held=f"new-{host}")

    @rule(host=host)
    def an_admitted_one_comes_up(self, host: str) -> None:
        if self.told and host in self.hosts and host in self.upgrade.admitted:
            self._see(host, held=None, vm=f"new-{host}", state=State.ACTIVE)

    @rule(host=host, state=st.sampled_from([*RESTING, State.FAULTY, State.STARTING, State.MISSING]))
    def it_is_in_another_state(self, host: str, state: State) -> None:
        self._see(host, state=state)

    @rule(host=host)
    def it_is_well(self, host: str) -> None:
        if host in self.hosts:
            self._see(host, state=State.ACTIVE)

    @rule(host=host)
    def it_leaves(self, host: str) -> None:
        self.hosts.pop(host, None)

    @rule(host=host)
    def its_old_vm_stops(self, host: str) -> None:
        self._see(host, old_runs=False)

    @rule()
    def pause(self) -> None:
        self.upgrade = rules.pause(self.upgrade)

    @precondition(lambda self: self.upgrade.phase is not Phase.DONE)
    @rule()
    def resume(self) -> None:
        self.shown |= self.upgrade.phase is Phase.STOPPED
        self.upgrade = rules.resume(self.upgrade)

    @rule(seconds=st.sampled_from([0.0, 1.0, FAILED_SECONDS]))
    def look(self, seconds: float) -> None:
        self.now += seconds
        before = self.upgrade
        done = {h for h, s in self.hosts.items() if s.vm == f"new-{h}" and s.state is State.ACTIVE}
        # Waves begin with the look that finds them begun; from then on it has been shown.
        self.shown |= before.phase is Phase.WAVES or bool(done & set(before.admitted))
        self.upgrade = after = advance(before, self.hosts, self.now)
        new = set(after.admitted) - set(before.admitted)
        assert len(new) <= (before.wave_size if self.shown else 1)
        if before.paused or before.phase in (Phase.STOPPED, Phase.DONE):
            assert not new
        at_work = {
            h for h in before.admitted if h in self.hosts and h not in done and self.hosts[h].state not in RESTING
        }
        assert not new or not at_work, "a wave begins when the one before is through"
        if new and not before.admitted:
            assert new == {after.canary}
            assert self.hosts[after.canary].old_runs, "its old VM was seen to run"
        assert advance(after, self.hosts, self.now) == after or not after.paused

    @invariant()
    def admitted_once(self) -> None:
        assert len(set(self.upgrade.admitted)) == len(self.upgrade.admitted)


TestAnyUpgrade = AnyUpgrade.TestCase
TestAnyUpgrade.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@settings(max_examples=100, deadline=None)
@given(
    number=st.integers(1, 12),
    wave_size=st.integers(1, 5),
    resting=st.sets(st.integers(0, 11)),
    leaving=st.sets(st.integers(0, 11)),
    when=st.integers(0, 6),
)
def test_it_ends_when_everybody_is_back(
    number: int, wave_size: int, resting: set[int], leaving: set[int], when: int
) -> None:
    """S03: whoever rests for a while or leaves for good, in bounded many looks it is DONE."""
    upgrade, hosts = begun(number, wave_size), all_held(number)
    for look in range(4 * number + 10):
        if look == when:
            for n in leaving:
                hosts.pop(f"h{n}", None)
            for n in resting:
                if f"h{n}" in hosts:
                    hosts[f"h{n}"] = msgspec.structs.replace(hosts[f"h{n}"], state=State.MAINTENANCE)
        if look == 2 * number + 8:
            for host, sight in hosts.items():
                if sight.state is State.MAINTENANCE:
                    hosts[host] = msgspec.structs.replace(sight, state=State.ACTIVE)
        upgrade = advance(upgrade, hosts, NOW + look)
        for host in upgrade.admitted:
            if host in hosts and hosts[host].state is not State.MAINTENANCE:
                hosts[host] = upgraded(host)
    assert upgrade.phase is Phase.DONE or not hosts
