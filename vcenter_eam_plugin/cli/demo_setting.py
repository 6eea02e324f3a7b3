# SPDX-License-Identifier: Apache-2.0
"""What the demo's stories play in: delays of the simulated vCenter, and the plugin's configuration for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vcenter_eam_plugin.config import Configuration, DefaultsConfig, EamConfig, Mode, VCenterConfig, VCenterUnit
from vcenter_eam_plugin.options import Secret
from vcenter_eam_plugin.simulator.sample_ovf import write_sample
from vcenter_eam_plugin.simulator.server import Simulator

KNOBS = {
    "deploy": 1.2,
    "power_on": 0.6,
    "power_off": 0.3,
    "heartbeat": 0.6,
    "evacuate": 0.8,
    "enter_maintenance": 0.4,
    "exit_maintenance": 0.4,
}
"""Seconds: slow enough for every state in between to be seen, quick enough for a story of half a minute."""


def configuration(simulator: Simulator, directory: Path, **eam: Any) -> Configuration:
    """A configuration that acts at once on every cluster of the simulated vCenter; keywords change ``[EAM]``."""
    keep: dict[str, Any] = {
        "mode": Mode.ACT,
        "clusters": tuple(f"/DC0/host/{cluster.name}" for cluster in simulator.vcenter.clusters()),
        "ovf_package": write_sample(directory / "ovf"),
        "agent_vm_datastore": ("shared-*",),
        "agent_vm_network": ("VM Network",),
        "power_off_grace_seconds": 1.0,
    }
    return Configuration(
        defaults=DefaultsConfig(state_directory=directory / "state", ovf_server_port=0),
        vcenters=(
            VCenterUnit(
                "demo",
                VCenterConfig(
                    vc_host=simulator.host,
                    vc_port=simulator.port,
                    vc_username=simulator.user,
                    vc_password=Secret(simulator.password),
                    vc_ca_certs=Path(simulator.ca_file),
                ),
                EamConfig(**{**keep, **eam}),
            ),
        ),
    )
