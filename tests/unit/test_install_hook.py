# SPDX-License-Identifier: Apache-2.0
"""S20: the operator's command runs once per VM, reads its facts on standard input, and harms nobody else."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest

from tests.support.simulator import wait_for
from vcenter_eam_plugin import install_hook
from vcenter_eam_plugin.install_hook import InstallHook

RECORD = """
import json, pathlib, sys
facts = json.load(sys.stdin)
with pathlib.Path(sys.argv[1]).open("a") as file:
    file.write(json.dumps({"facts": facts, "arguments": sys.argv[2:]}) + "\\n")
"""


def facts_of(host: str, vm: str, ip: str) -> dict[str, Any]:
    return {"host": host, "vm": vm, "ip": ip, "guestinfo": {"contrail.name": "é; rm -rf / $(x)"}}


class Runs:
    """Hooks whose command writes what it was given into a file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.remembered = directory / "x.installed.json"
        self.record = directory / "record"
        self.hooks: list[InstallHook] = []

    def hook(self, *command: str) -> InstallHook:
        command = command or (sys.executable, "-c", RECORD, str(self.record), "argument with spaces; $HOME")
        hook = InstallHook(command, self.remembered, facts_of, logging.getLogger("test.install"), lambda: 0.0)
        self.hooks.append(hook)
        return hook

    def seen(self) -> list[dict[str, Any]]:
        return (
            [json.loads(line) for line in self.record.read_text("utf-8").splitlines()] if self.record.exists() else []
        )


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(tmp_path)
    yield runs
    for hook in runs.hooks:
        hook.stop()


def idle(hook: InstallHook) -> Callable[[], bool]:
    return lambda: all(greenlet.dead for greenlet in hook._running.values())


def test_it_reads_its_facts_and_gets_its_arguments_as_they_are(runs: Runs) -> None:
    """S20: no shell, and nothing of the host on the command line, where others could read it."""
    runs.hook()("host-1", "vm-1", "10.0.0.1")
    wait_for(runs.seen)
    assert runs.seen() == [
        {"facts": facts_of("host-1", "vm-1", "10.0.0.1"), "arguments": ["argument with spaces; $HOME"]}
    ]


def test_it_inherits_no_secret(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords may come by our environment; a command that dumps its own must not pass them on."""
    monkeypatch.setenv("VCENTER_EAM__VCENTER__vc_password", "hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    dump = "import json, os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(json.dumps(dict(os.environ)) + chr(10))"
    runs.hook(sys.executable, "-c", dump, str(runs.record))("host-1", "vm-1", "10.0.0.1")
    wait_for(runs.seen)
    (environment,) = runs.seen()
    assert "hunter2" not in str(environment)
    assert environment["PATH"] == os.environ["PATH"]
    assert environment["LC_ALL"] == "C.UTF-8"


def test_once_per_vm_also_after_a_restart(runs: Runs) -> None:
    """S20: a probe every three seconds asks for it; a respawned ContrailVM is another VM."""
    hook = runs.hook()
    for _ in range(5):
        hook("host-1", "vm-1", "10.0.0.1")
    hook("host-2", "vm-2", "10.0.0.2")
    wait_for(idle(hook))
    again = runs.hook()
    again("host-1", "vm-1", "10.0.0.1")
    again("host-1", "vm-3", "10.0.0.1")
    wait_for(idle(again))
    assert sorted(one["facts"]["vm"] for one in runs.seen()) == ["vm-1", "vm-2", "vm-3"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("/nowhere/install",), "did not work"),
        ((sys.executable, "-c", "import sys; sys.exit('no route to guest')"), "ended with 1. no route to guest"),
        ((sys.executable, "-c", r"import sys; sys.stderr.buffer.write(b'\xff\xfe'); sys.exit(3)"), "ended with 3"),
        ((sys.executable, "-c", "import time; time.sleep(60)"), "timed out"),
    ],
    ids=["not there", "fails", "says no text", "without an end"],
)
def test_a_command_that_fails_is_in_the_log_and_not_run_again(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, command: tuple[str, ...], said: str
) -> None:
    """S20: bytes that are no text ended the greenlet with a traceback once."""
    monkeypatch.setattr(install_hook, "COMMAND_SECONDS", 1.0)
    hook = runs.hook(*command)
    hook("host-1", "vm-1", "10.0.0.1")
    wait_for(idle(hook))
    (greenlet,) = hook._running.values()
    assert greenlet.exception is None
    assert said in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR
    hook("host-1", "vm-1", "10.0.0.1")
    assert idle(hook)()


def test_many_take_turns_and_those_without_one_have_it_after_the_restart(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: a fleet's first deployment started a command per ContrailVM at once; a stop forgot those that waited."""
    monkeypatch.setattr(install_hook, "AT_ONCE", 2)
    before = set(psutil.Process().children())
    hook = runs.hook(sys.executable, "-c", "import time; time.sleep(60)")
    for n in range(6):
        hook(f"host-{n}", f"vm-{n}", "10.0.0.1")
    wait_for(lambda: len(set(psutil.Process().children()) - before) == 2)
    gevent.sleep(0.2)
    assert len(set(psutil.Process().children()) - before) == 2
    hook.stop()
    wait_for(lambda: not set(psutil.Process().children()) - before, what="the commands were ended")
    again = runs.hook()
    for n in range(6):
        again(f"host-{n}", f"vm-{n}", "10.0.0.1")
    wait_for(idle(again))
    assert sorted(one["facts"]["vm"] for one in runs.seen()) == ["vm-2", "vm-3", "vm-4", "vm-5"]


def test_what_cannot_be_remembered_does_not_run(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    """Bug: a full disk ended the worker, at every probe anew. Once there is room it runs."""
    blocker = runs.remembered.with_suffix(".new")
    blocker.mkdir()
    hook = runs.hook()
    hook("host-1", "vm-1", "10.0.0.1")
    wait_for(idle(hook))
    assert "cannot be written" in caplog.text
    assert runs.seen() == []
    blocker.rmdir()
    hook("host-1", "vm-1", "10.0.0.1")
    wait_for(runs.seen)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"null", b'"vm-1"', b'["\xff"]', b"[" * 50_000])
def test_a_damaged_memory_is_kept_aside_and_said(runs: Runs, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Bug: it was taken for an empty one without a word, and written over. S20: the command then runs once more."""
    runs.remembered.write_bytes(content)
    hook = runs.hook()
    aside = runs.directory / "x.installed.json.damaged-19700101T000000Z"
    assert aside.read_bytes() == content
    for said in (caplog.text, hook.trouble):
        assert str(runs.remembered) in said
        assert str(aside) in said
        assert "runs once more" in said
    assert "move the damaged one away" in hook.trouble
    hook("host-1", "vm-1", "10.0.0.1")
    wait_for(runs.seen)
    wait_for(idle(hook))
    again = runs.hook()
    assert (again.done, str(aside) in again.trouble) == (("vm-1",), True), "said until it is moved away"
    aside.unlink()
    assert runs.hook().trouble == ""


def test_a_memory_that_cannot_even_be_moved_is_said(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.remembered.write_text("{")

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "replace", refuse)
    assert "Read-only file system" in runs.hook().trouble
    assert runs.remembered.exists()


def test_facts_that_cannot_be_had_leave_the_vm_to_a_later_time(runs: Runs) -> None:
    """Bug: a host whose entry is refused was remembered as done before its facts were asked for."""
    troubles = ["its entry is refused"]

    def facts(host: str, vm: str, ip: str) -> dict[str, Any]:
        if troubles:
            raise ValueError(troubles.pop())
        return facts_of(host, vm, ip)

    hook = runs.hook()
    hook._facts_of = facts
    with pytest.raises(ValueError, match="refused"):
        hook("host-1", "vm-1", "10.0.0.1")
    hook("host-1", "vm-1", "10.0.0.1")
    wait_for(runs.seen)
