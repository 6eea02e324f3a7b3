# SPDX-License-Identifier: Apache-2.0
"""S02, S03: who the service is. As an extension it may mark; as another identity it takes nobody's agency unasked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.test_s03_agency import OTHER, create_agency
from tests.support.bench import Bench
from tests.support.extensions import KEY, ClientCertificate, client_certificate, register_extension
from tests.support.scenario import assert_can_be_followed
from tests.support.simulator import connected
from vcenter_eam_plugin import eam_poll
from vcenter_eam_plugin.domain.errors import UnknownTarget, WrongState
from vcenter_eam_plugin.domain.operations import Operation, Request
from vcenter_eam_plugin.options import Secret

ACCOUNT = "svc-contrail@vsphere.local"
Login = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Identities:
    """The bench's extension, and how to log in as whom."""

    bench: Bench
    certificate: ClientCertificate

    def by_certificate(self) -> Login:
        """As the extension; the simulator has no SDK tunnel."""
        register_extension(self.bench.simulator, self.certificate)
        return self.again()

    def again(self) -> Login:
        return {
            "vc_username": "",
            "vc_extension_key": KEY,
            "vc_client_cert": self.certificate.both,
            "vc_tunnel_port": 0,
        }

    def by_service_account(self) -> Login:
        """As an account that is bound to the extension, with the privileges of that account."""
        register_extension(self.bench.simulator, self.certificate)
        self.bench.simulator.add_user(ACCOUNT, "secret", "all")
        with connected(self.bench.simulator) as instance:
            instance.content.extensionManager.SetServiceAccount(KEY, ACCOUNT)
        return {"vc_username": ACCOUNT, "vc_password": Secret("secret"), "vc_extension_key": KEY}


@pytest.fixture
def who(bench: Bench, tmp_path: Path) -> Identities:
    return Identities(bench, client_certificate(tmp_path))


@pytest.fixture(autouse=True)
def nobody_unregisters(bench: Bench) -> Any:
    """EAM would destroy the agency with its VMs."""
    yield
    assert [call for call in bench.writes("UnregisterExtension") if call.fields["user"] != bench.simulator.user] == []


def vms(bench: Bench) -> list[str]:
    return [bench.vcenter.agent_vm(name).moid for name in bench.names()]


def agencies(bench: Bench) -> list[Any]:
    return list(bench.simulator.vcenter.eam.agencies.values())


def adopt(bench: Bench, target: str = "", word: str = "ContrailVM-Agency") -> list[dict[str, Any]]:
    """As `vcenter-eam adopt` does, to the end; returns the events."""
    asked = Request(operation=Operation.ADOPT, target=target)
    operations = bench.service.operations
    shown = operations.preview(asked)
    assert shown.acknowledge == "ContrailVM-Agency"
    running = operations.begin(asked, digest=shown.digest, acknowledge=word, who="a test")
    return list(running.follow())


def wait_until_blocked(bench: Bench, *says: str) -> None:
    bench.wait_for(lambda: all(bench.state(host) == "BLOCKED" for host in bench.names()), "all BLOCKED")
    alarm = bench.alarms()["agency-conflict"]
    assert all(word in alarm for word in says), alarm


# --- an extension may mark --------------------------------------------------------------------------------


@pytest.mark.parametrize("login", [Identities.by_certificate, Identities.by_service_account])
def test_held_provisioning_works_as_an_extension(
    bench: Bench, who: Identities, login: Callable[[Identities], Login]
) -> None:
    """S20: users are refused MarkAsAvailable by default, an extension is not; also for a ContrailVM that came again."""
    bench.start(vcenter=login(who), hold_after_provisioning=True)
    bench.wait_until_active()
    (agency,) = agencies(bench)
    assert (agency.owner, agency.solution) == (None, KEY)
    assert {call.fields["user"] for call in bench.writes("MarkAsAvailable")} == {KEY}
    assert len(bench.writes("MarkAsAvailable")) == len(bench.names())
    for name in bench.names():
        assert bench.vcenter.agent_vm(name).name == f"ContrailVM-DC0-{name}", "customised while it was held"
    first, *_ = bench.names()
    before = bench.vcenter.agent_vm(first)
    bench.vcenter.power_off(before)
    bench.vcenter.destroy(before)
    bench.wait_for(lambda: bench.state(first) != "ACTIVE", "the loss is seen")
    bench.wait_until_active()
    after = bench.vcenter.agent_vm(first)
    assert (after.moid != before.moid, after.name) == (True, f"ContrailVM-DC0-{first}")
    assert bench.alarms() == {}
    assert_can_be_followed(bench.messages)


def test_an_account_that_is_not_bound_to_the_extension_is_told(bench: Bench) -> None:
    """S02, bad input: vc_extension_key is set, and vCenter takes the account for a plain user."""
    bench.start(vcenter={"vc_extension_key": KEY})
    bench.wait_until_active()
    assert "--service-account" in bench.alarms()["identity"]
    (agency,) = agencies(bench)
    assert agency.owner == bench.simulator.user


def test_held_provisioning_as_a_plain_user_gives_up_the_hold_and_says_so(bench: Bench) -> None:
    """S20 gone wrong: the account may not mark; the hold is cleared once, and every host gets its ContrailVM."""
    bench.start(hold_after_provisioning=True)
    bench.wait_until_active()
    assert "reserved for vCenter extensions" in bench.alarms()["may-not-mark"]
    bench.wait_for(lambda: not bench.unit.agency().hold_after_provisioning, "the hold is cleared")


def test_a_renewed_certificate_is_used_at_the_next_login(
    bench: Bench, who: Identities, tmp_path: Path, quick_retries: None
) -> None:
    """S02: file and vCenter are changed one after the other; in between a login is refused, said, and then made."""
    bench.start(vcenter=who.by_certificate())
    bench.wait_until_active()
    newer = client_certificate(tmp_path, "renewed")
    with connected(bench.simulator) as instance:
        instance.content.extensionManager.SetExtensionCertificate(KEY, newer.cert.read_text("utf-8"))
    bench.simulator.faults.inject("session_kill")
    pipeline = bench.unit.pipeline
    bench.wait_for(lambda: "certificate of the extension" in str(pipeline.inventory.last_error), "the refusal")
    who.certificate.both.write_bytes(newer.both.read_bytes())
    host = bench.names()[0]
    bench.vcenter.rename(bench.vcenter.agent_vm(host), "renamed while nobody was logged in")
    bench.wait_for(lambda: pipeline.inventory.live, "it watches again")
    bench.wait_until_active()


# --- another identity -------------------------------------------------------------------------------------


def test_a_user_that_becomes_an_extension_makes_no_second_agency(bench: Bench, who: Identities) -> None:
    """S03: an extension does not see the user's agency. BLOCKED, nothing written, and back as the user all is well."""
    bench.start()
    bench.wait_until_active()
    bench.stop()
    stood, written = vms(bench), len(bench.writes())
    login = who.by_certificate()
    written = len(bench.writes())
    bench.start(vcenter=login)
    wait_until_blocked(bench, bench.simulator.user, KEY, "adopt", "uninstall")
    with pytest.raises(WrongState, match="neither see nor use"):
        adopt(bench)
    bench.unit.pipeline.workers.look_at_everything()
    bench.wait_for(lambda: not len(bench.unit.pipeline.workers.queue), "everything was looked at")
    bench.stop()
    assert (len(agencies(bench)), len(bench.writes()), vms(bench)) == (1, written, stood)
    bench.start()
    bench.wait_until_active()
    assert bench.alarms() == {}
    assert vms(bench) == stood


def test_without_its_memory_an_extension_still_makes_no_second_agency(bench: Bench, who: Identities) -> None:
    """S03, the state directory is lost as well: agent VMs that no visible agency explains forbid a new one."""
    bench.start()
    bench.wait_until_active()
    bench.stop()
    stood = vms(bench)
    bench.start(vcenter=who.by_certificate(), defaults={"state_directory": bench.directory / "another"})
    bench.wait_for(lambda: "agent VMs stand in the scope" in bench.alarms().get("act:agency", ""), "the refusal")
    assert (len(agencies(bench)), vms(bench)) == (1, stood)


def test_uninstalled_as_the_user_it_begins_anew_as_the_extension(
    bench: Bench, who: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S02: the documented way from a user to an extension."""
    monkeypatch.setattr(eam_poll, "AGENCY_ABSENT", 0.2)
    bench.start()
    bench.wait_until_active()
    operations, asked = bench.service.operations, Request(operation=Operation.UNINSTALL)
    shown = operations.preview(asked)
    running = operations.begin(asked, digest=shown.digest, acknowledge=shown.acknowledge, who="a test")
    assert list(running.follow())[-1]["ok"]
    memory = bench.unit.pipeline.poll._memory
    bench.wait_for(lambda: not memory.known_before, "the agency is seen to be gone")
    bench.stop()
    bench.start(vcenter=who.by_certificate())
    bench.unit.activate()  # an uninstall leaves it paused, also over a restart
    bench.wait_until_active()
    (agency,) = agencies(bench)
    assert agency.solution == KEY


def test_a_user_goes_on_with_an_extensions_agency_once_it_was_adopted(bench: Bench, who: Identities) -> None:
    """S03: a user sees it, and may change it; it stays the extension's. Consent is kept over restarts."""
    bench.start(vcenter=who.by_certificate())
    bench.wait_until_active()
    bench.stop()
    stood, written = vms(bench), len(bench.writes())
    bench.start()
    wait_until_blocked(bench, KEY, "vcenter-eam adopt")
    assert len(bench.writes()) == written
    assert adopt(bench)[-1]["ok"]
    bench.wait_until_active()
    bench.stop()
    bench.start()
    bench.wait_until_active()
    assert (bench.alarms(), vms(bench)) == ({}, stood)
    host = bench.names()[0]
    bench.vcenter.power_off(bench.vcenter.agent_vm(host))
    bench.wait_for(lambda: "POWERED_OFF" in bench.heard(host), "off")
    bench.wait_until_active()
    assert bench.writes("Resolve")[-1].fields["user"] == bench.simulator.user
    bench.stop()
    bench.start(vcenter=who.again())
    bench.wait_until_active()
    assert (bench.alarms(), len(agencies(bench))) == ({}, 1)


def test_one_of_several_is_adopted_by_its_moref_and_the_other_left_alone(bench: Bench) -> None:
    """S03: of two agencies of one name a person names one; a third is another question."""
    bench.simulator.add_user(OTHER, "other", "all")
    create_agency(bench, OTHER, "other")
    create_agency(bench, bench.simulator.user, bench.simulator.password)
    theirs, ours = agencies(bench)
    bench.start()
    wait_until_blocked(bench, OTHER, bench.simulator.user)
    with pytest.raises(UnknownTarget):
        adopt(bench)
    assert adopt(bench, ours.moid)[-1]["ok"]
    bench.wait_for(lambda: bench.unit.agency() is not None, "one is used")
    assert bench.unit.agency().moref == ours.moid
    assert bench.alarms().keys().isdisjoint({"agency-conflict"})
    create_agency(bench, OTHER, "other")
    bench.unit.pipeline.poll._survey_at = 0.0  # the next look at all agencies is minutes away
    bench.unit.pipeline.poll.read_soon(None)
    bench.wait_for(lambda: "agency-conflict" in bench.alarms(), "the third is noticed")
    assert {call.fields["object"] for call in bench.writes("Update")} <= {ours.moid}
    assert theirs.moid in {agency.moid for agency in agencies(bench)}


def test_adopting_without_the_privilege_changes_nothing(bench: Bench) -> None:
    """S03, bad input: EAM.Modify is missing, and it says so before consent is remembered."""
    bench.simulator.add_user(OTHER, "other", "all")
    bench.simulator.add_user("viewer@vsphere.local", "viewer", ("EAM.View",))
    create_agency(bench, OTHER, "other")
    bench.start(vcenter={"vc_username": "viewer@vsphere.local", "vc_password": Secret("viewer")})
    wait_until_blocked(bench, OTHER)
    events = adopt(bench)
    assert not events[-1]["ok"]
    assert "EAM.Modify" in events[-2]["detail"]
    wait_until_blocked(bench, OTHER)


def test_an_extension_that_somebody_unregistered_is_not_made_again_by_the_service(
    bench: Bench, who: Identities, quick_retries: None
) -> None:
    """S02 gone wrong: EAM destroys the agency; the service says that it may not any more, and writes nothing."""
    bench.start(vcenter=who.by_certificate())
    bench.wait_until_active()
    with connected(bench.simulator) as instance:
        instance.content.extensionManager.UnregisterExtension(KEY)
    written = len(bench.writes())
    bench.simulator.faults.inject("session_kill")
    pipeline = bench.unit.pipeline
    bench.wait_for(lambda: "certificate of the extension" in str(pipeline.inventory.last_error), "the refusal")
    bench.wait_for(lambda: "extension register" in bench.alarms().get("eam", ""), "the alarm")
    bench.wait_for(lambda: not agencies(bench), "EAM has destroyed the agency")
    assert [call.fields for call in bench.writes()[written:] if call.fields["user"] == KEY] == []
