# SPDX-License-Identifier: Apache-2.0
"""The configuration file of a daemon that deploys to a simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from configparser import ConfigParser
from io import StringIO
from pathlib import Path
from typing import Any

from tests.support.processes import write_secret
from tests.support.rabbit import free_port
from vcenter_eam_plugin.simulator.sample_ovf import write_sample

TWO_CLUSTERS = ("ClusterA", "ClusterB")


def daemon_file(
    simulator: Mapping[str, Any],
    directory: Path,
    *,
    clusters: Sequence[str] = TWO_CLUSTERS,
    shared: Path | None = None,
    **sections: Mapping[str, object],
) -> str:
    """Its text. ``simulator`` is what the simulator says of itself; state goes to ``directory``.

    ``sections`` (``EAM={"mode": "observe"}``) add to what is here, or take its place. The password and the OVF package
    are written to ``shared``, which several instances may have in common, or to ``directory``.
    """
    place = shared or directory
    ovf_port = sections.get("DEFAULTS", {}).get("ovf_server_port", free_port())
    common: dict[str, dict[str, object]] = {
        "DEFAULTS": {
            "state_directory": directory / "state",
            "ovf_server_port": ovf_port,
            "ovf_base_url": f"http://127.0.0.1:{ovf_port}",
        },
        "VCENTER": {
            "vc_host": simulator["host"],
            "vc_port": simulator["port"],
            "vc_username": simulator["user"],
            "vc_password_file": write_secret(place / "password", simulator["password"]),
            "vc_ca_certs": simulator["ca_file"],
        },
        "EAM": {
            "mode": "act",
            "clusters": "".join(f"\n/DC0/host/{name}" for name in clusters),
            "ovf_package": write_sample(place / "ovf"),
            "agent_vm_datastore": "shared-*",
            "agent_vm_network": "VM Network",
            "poll_seconds": 2,
        },
    }
    parser = ConfigParser(interpolation=None)
    for section in common.keys() | sections.keys():
        options = common.get(section, {}) | dict(sections.get(section, {}))
        parser[section] = {name: str(value) for name, value in options.items()}
    text = StringIO()
    parser.write(text)
    return text.getvalue()
