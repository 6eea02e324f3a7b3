# SPDX-License-Identifier: Apache-2.0
"""The man pages say what the commands say."""

import pytest

from tests.support.man_page import COMMAND, MAN, pages
from vcenter_eam_plugin.cli.main import COMMANDS


@pytest.mark.parametrize("name", sorted(pages()))
def test_page_is_current(name: str) -> None:
    assert (MAN / name).read_text("utf-8") == pages()[name], f"make it anew: {COMMAND}"


def test_every_command_has_its_part() -> None:
    text = pages()["vcenter-eam.1"].replace("\\-", "-")
    assert [name for name in COMMANDS if f'.SS "{name}' not in text] == []
