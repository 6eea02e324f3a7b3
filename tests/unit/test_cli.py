# SPDX-License-Identifier: Apache-2.0
"""The command line: quick help, exit codes as documented, configuration shown with origins and without secrets."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from vcenter_eam_plugin.cli.main import COMMANDS, main
from vcenter_eam_plugin.domain import errors

ROOT = Path(__file__).parents[2]

RIGHT = "[VCENTER]\nvc_host=h\nvc_username=u\nvc_password=hunter2\n[EAM]\nclusters=A\nmode=act\n"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def conf(tmp_path: Path) -> str:
    path = tmp_path / "a.conf"
    path.write_text(RIGHT, "utf-8")
    return str(path)


@pytest.mark.parametrize("name", COMMANDS)
def test_line_of_the_group_is_the_commands_own_help(name: str) -> None:
    command = importlib.import_module(COMMANDS[name].module).command
    assert (command.help or "").split("\n")[0] == COMMANDS[name].help


def test_help_imports_no_library_of_an_edge() -> None:
    """Help and completion stay quick: gevent and pyVmomi take longer to import than all of it."""
    code = (
        "import sys; from vcenter_eam_plugin.cli.main import main; main(['--help'], standalone_mode=False); "
        "sys.exit(any(m in sys.modules for m in ('gevent', 'pyVmomi', 'kombu', 'rich')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


def test_configuration_error_ends_with_its_exit_code_and_one_sentence_each(conf: str) -> None:
    Path(conf).write_text("[EAM]\nmode=acts\n", "utf-8")
    done = run("config", "validate", "-c", conf)
    assert done.exit_code == 2
    assert done.stderr.startswith("vcenter-eam: ")
    assert done.stdout == ""


def test_where_no_file_was_read_that_is_what_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Bug: it said that a section is missing, and people looked for it in the file that they had forgotten to name."""
    monkeypatch.setattr("vcenter_eam_plugin.cli.common.SYSTEM_FILE", tmp_path / "nowhere.conf")
    for command in ("validate", "show"):
        done = run("config", command)
        assert done.exit_code == 2
        assert "No configuration file was read" in done.stderr
        assert str(tmp_path / "nowhere.conf") in done.stderr
        assert "Section [VCENTER]: missing" in done.stderr


def test_an_option_that_is_not_there_is_answered_with_those_that_look_like_it() -> None:
    done = run("config", "explain", "poll_second")
    assert done.exit_code == 2
    assert "there are: poll_seconds, " in done.stderr


@pytest.mark.parametrize("command", ["resolve", "release"])
def test_nobody_named_is_wrong_usage_before_any_service_is_asked(command: str, conf: str) -> None:
    done = run(command, "-c", conf)
    assert done.exit_code == 2
    assert "Name a HOST, or give --all." in done.stderr


def test_unknown_command_is_wrong_usage() -> None:
    assert run("no-such-command").exit_code == 2


def test_validate_says_what_it_found(conf: str) -> None:
    done = run("config", "validate", "-c", conf)
    assert (done.exit_code, done.stdout) == (0, "The configuration is right. vCenter: h (act).\n")


def test_show_masks_secrets_and_tells_origins(conf: str) -> None:
    done = run("config", "show", "-c", conf)
    assert "vc_password = ***" in done.stdout
    shown = json.loads(run("config", "show", "--json", "-c", conf).stdout)
    assert shown["EAM"]["mode"] == {"value": "act", "origin": conf}
    assert shown["VCENTER"]["vc_port"] == {"value": "443", "origin": "default"}
    assert "hunter2" not in done.stdout + json.dumps(shown)


def test_explain_tells_meaning_and_value_in_force(conf: str) -> None:
    done = run("config", "explain", "mode", "-c", conf)
    assert "[EAM] mode" in done.stdout
    assert f"In force: [EAM] mode = act ({conf})" in done.stdout
    assert "vc_password_file" in run("config", "explain", "vc_password", "-c", conf).stdout
    assert run("config", "explain", "no_such_option").exit_code == 2


def test_explain_needs_no_right_configuration(conf: str) -> None:
    Path(conf).write_text("[EAM]\nmode=acts\n", "utf-8")
    done = run("config", "explain", "mode", "-c", conf)
    assert done.exit_code == 0
    assert "In force: unknown" in done.stdout


def test_exit_codes_are_documented() -> None:
    """docs/operations.md lists every exit code with the error that gives it."""
    text = (ROOT / "docs/operations.md").read_text("utf-8")
    documented = {int(code): name for code, name in re.findall(r"^\| (\d+) \| `(\w+)`", text, re.MULTILINE)}
    declared = {
        kind.exit_code: kind.__name__
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.PluginError) and "exit_code" in vars(kind)
    }
    assert documented == declared


def _leaves(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for below, each in command.commands.items():
            yield from _leaves(f"{name} {below}", each)
    else:
        yield name, command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_is_its_own(name: str) -> None:
    """An operator copies it: it begins with the command, after what a shell needs, and names no option that is none."""
    for path, command in _leaves(name, importlib.import_module(COMMANDS[name].module).command):
        examples = re.findall(r"Example: (.*?)(?:\n\s*\n|\Z)", command.help or "", re.DOTALL)
        assert examples, f"{path}: no example"
        allowed = {option for parameter in command.params for option in parameter.opts}
        for example in examples:
            ours = re.split(r" [|>] ", example)[0]
            assert f"vcenter-eam {path}" in ours, f"{path}: {example}"
            given = set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", ours.split('"$(')[0]))
            assert given <= allowed, f"{path}: {example}: {given - allowed}"
