# SPDX-License-Identifier: Apache-2.0
"""P14: looking changes nothing, and what is then done is what was shown."""

from collections import Counter
from typing import Any

from tests.support.commands import Operator
from vcenter_eam_plugin.config import Mode

PREVIEWS = (
    ("resolve", "--all"),
    ("scope", "remove", "/DC0/host/ClusterA"),
    ("retreat", "/DC0/host/ClusterA"),
    ("upgrade", "start"),
    ("uninstall",),
)
"""Operations that a person may ask to be shown; some are refused here, and a refusal may change nothing either."""


def look_at_everything(operator: Operator) -> dict[str, Any]:
    """Every reading command and every preview; returns the plan."""
    for command in ("status", "scope", "upgrade"):
        operator.run(command, "--json")
    for preview in PREVIEWS:
        assert operator.run(*preview, "--preview", "--json").exit_code != 2, f"there is no command {preview}"
    (plan,) = operator.ask("plan")[0]["plans"]
    return dict(plan)


def test_p14_in_observe_mode_the_write_counter_stays_at_nought(operator: Operator) -> None:
    """P14: a vCenter that misses everything, looked at for ten polls and by every command: nothing changes it."""
    bench = operator.bench
    operator.start(mode=Mode.OBSERVE, poll_seconds=0.5)
    for host in bench.names():
        bench.wait_for_state(host, "PENDING")
    assert bench.wait_for(lambda: look_at_everything(operator)["lines"], "a plan")
    began = bench.unit.pipeline.poll.read_at
    bench.wait_for(lambda: bench.unit.pipeline.poll.read_at > began + 5.0, "ten polls")
    look_at_everything(operator)
    assert bench.writes() == []


def test_p14_apply_does_the_plan_and_nothing_else(operator: Operator) -> None:
    """P14: three faults of three kinds; the calls that change something are those of the plan, each once."""
    bench = operator.bench
    operator.start(poll_seconds=60.0, power_off_grace_seconds=0.2)  # so that the poll does not bring a repair about
    bench.wait_until_active()
    bench.unit.gate.pause()
    off, gone, _ = bench.vcenter.hosts()
    bench.vcenter.power_off(bench.vcenter.agent_vm(off))
    bench.vcenter.destroy(bench.vcenter.agent_vm(gone))
    added = bench.vcenter.add_host(bench.vcenter.clusters()[0])
    wanted = sorted(host.name for host in (off, gone, added))
    seen = len(bench.writes())

    def planned() -> dict[str, Any] | None:
        plan = look_at_everything(operator)
        return plan if sorted(line["target"] for line in plan["lines"]) == wanted else None

    plan = bench.wait_for(planned, "a plan of three lines")
    again = look_at_everything(operator)
    assert (again["digest"], again["lines"]) == (plan["digest"], plan["lines"])
    assert bench.writes()[seen:] == [], "shown, and shown again, and not begun"

    bench.unit.gate.activate()
    events = operator.ask("apply", "--digest", plan["digest"])
    assert sorted(event["target"] for event in events if event.get("outcome") == "done") == wanted
    calls = [call for call in bench.writes()[seen:] if call.fields["user"] == bench.simulator.user]
    agents = {agent.host: agent.moref for agent in bench.unit.pipeline.fleet.agents.values()}
    assert Counter((call.fields["method"], call.fields["object"]) for call in calls) == Counter(
        [
            ("Resolve", agents[off.moid]),
            ("Resolve", agents[gone.moid]),
            ("EsxAgentHostManagerUpdateConfig", added.props["configManager"].esxAgentHostManager._GetMoId()),
        ]
    )
    bench.wait_until_active()
