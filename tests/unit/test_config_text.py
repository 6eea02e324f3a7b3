# SPDX-License-Identifier: Apache-2.0
"""Generated pages are current; the sample file is complete and means what it says."""

import re
from pathlib import Path

import pytest

from tests.support import api_page
from tests.support.state_page import page
from vcenter_eam_plugin.config import SECTIONS, load
from vcenter_eam_plugin.config_text import in_force, reference, sample
from vcenter_eam_plugin.options import options_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("path", "text", "command"),
    [
        ("etc/vcenter_eam.conf", sample(), "vcenter-eam config sample"),
        ("docs/configuration.md", reference(), "vcenter-eam config sample --markdown"),
        ("docs/states.md", page(), "python -m tests.support.state_page"),
        ("docs/api.md", api_page.page(), "python -m tests.support.api_page"),
    ],
)
def test_generated_file_is_current(path: str, text: str, command: str) -> None:
    assert (ROOT / path).read_text("utf-8") == text, f"make it anew: {command} > {path}"


def test_sample_with_every_setting_uncommented_gives_the_defaults(tmp_path: Path) -> None:
    """So the defaults shown are the defaults in force, in a spelling that can be read."""
    lines = [
        line[1:] if line.startswith("#") and line[1:2] not in {" ", ""} else line for line in sample().splitlines()
    ]
    given = {"vc_host =": "vc_host = h", "vc_username =": "vc_username = u", "vc_password =": "vc_password = p"}
    given["clusters ="] = "clusters = A"
    given["rabbit_password ="] = ""
    path = tmp_path / "all.conf"
    path.write_text("\n".join(given.get(line, line) for line in lines), "utf-8")
    configuration = load([path], {})
    for _, values in configuration.sections():
        for option in options_of(type(values)):
            if not option.required and option.name not in ("vc_username", "vc_password"):
                assert getattr(values, option.name) == option.default, option.name


def test_sample_as_it_stands_sets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sample.conf"
    path.write_text(sample().replace("[VCENTER]", "").replace("[EAM]", ""), "utf-8")
    assert load([path], {}, need_vcenter=False).origins == {}


def test_values_in_force_can_be_read_again_and_mask_secrets(tmp_path: Path) -> None:
    first = tmp_path / "first.conf"
    first.write_text(
        "[VCENTER]\nvc_host=h\nvc_username=u\nvc_password=hunter2\n"
        "[EAM]\nclusters=\n  A, b\n  C\novf_properties=\n  k=v\n  l=m=n\n",
        "utf-8",
    )
    text = in_force(load([first], {}))
    assert "hunter2" not in text
    second = tmp_path / "second.conf"
    second.write_text(text, "utf-8")
    again = load([second], {})
    assert again.vcenters[0].eam == load([first], {}).vcenters[0].eam


def test_every_option_is_used_or_says_that_it_is_not() -> None:
    """A setting that does nothing would be a lie."""
    code = "\n".join(
        path.read_text("utf-8")
        for path in (ROOT / "vcenter_eam_plugin").rglob("*.py")
        if path.name != "config.py" or path.parent.name == "cli"
    )
    for kind in SECTIONS.values():
        for option in options_of(kind):
            used = re.search(rf"\.{option.name}\b", code) is not None
            says_not = "not used by this release" in (kind.__doc__ or "") + option.description
            assert used != says_not, option.name


def test_every_option_says_what_it_means() -> None:
    for section, kind in SECTIONS.items():
        assert kind.__doc__, section
        for option in options_of(kind):
            assert option.description.endswith("."), option.name
            assert "|" not in option.description + option.kind.allowed, f"{option.name}: breaks the table of the page"
