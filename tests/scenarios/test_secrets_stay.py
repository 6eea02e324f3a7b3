# SPDX-License-Identifier: Apache-2.0
"""No secret leaves: whatever happens, no log line, error, alarm, page, message, file or traceback holds one.

The whole service runs with secrets that nothing else looks like, and all that it says anywhere is searched for them, as
they are and encoded. In this process nothing is masked behind the service's back, so that what is seen is what it says
to a host process; the daemon, which masks what is left, is its own test at the end.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import gevent.util
import pytest

from tests.support.bench import Bench
from tests.support.processes import write_secret
from tests.support.rabbit import RabbitNode, wait_for
from tests.support.web import Web
from vcenter_eam_plugin import redaction
from vcenter_eam_plugin.options import Secret
from vcenter_eam_plugin.plugin import EamPlugin
from vcenter_eam_plugin.vsphere.session import Session

VCENTER = "vc/Pass&word<0451>\"'%+é"
BROKER = "mq+Pass&word<8112>%2F\"'"
TOKEN = "web-token/0451&8112<>\"'%"
WRONG = "wr0ng/Pass&word<7777>\"'%"
SECRETS = (VCENTER, BROKER, TOKEN, WRONG)

TALKATIVE = ("", "vcenter_eam_plugin", "kombu", "amqp", "kazoo", "pyVmomi", "werkzeug", "flask", "gevent", "urllib3")
"""Loggers at DEBUG: what an operator switches on when nothing works."""


class Ear:
    """Everything that is said: log records with their arguments, standard output and error, and what is handed in."""

    def __init__(self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
        self._caplog = caplog
        self._capfd = capfd
        self.texts: list[str] = []

    def hear(self, what: object) -> None:
        self.texts.append(what if isinstance(what, str) else repr(what))

    def everything(self) -> str:
        self.texts += self._capfd.readouterr()
        formatter = logging.Formatter()
        records = [f"{formatter.format(record)} {record.args!r}" for record in self._caplog.records]
        return "\n".join((*records, *self.texts))


@pytest.fixture
def ear(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Ear:
    for name in TALKATIVE:
        caplog.set_level(logging.DEBUG, logger=name)
    return Ear(caplog, capfd)


def assert_none_in(said: str) -> None:
    """No form of a secret is in it. That it would be found is tests/unit/test_redaction.py's to prove."""
    found = [
        said[max(0, at - 120) : at + 40]
        for secret in SECRETS
        for form in redaction.forms(secret)
        if (at := said.find(form)) >= 0
    ]
    assert found == []


@pytest.fixture
def secret_broker(rabbit_node: RabbitNode, rabbit_vhost: str) -> Iterator[str]:
    """A user of the broker with the secret password."""
    rabbit_node.add_user("keeper", BROKER.replace('"', '\\"'))
    rabbit_node.allow("keeper", rabbit_vhost)
    yield "keeper"
    rabbit_node.eval('rabbit_auth_backend_internal:delete_user(<<"keeper">>, <<"test">>)')


@pytest.fixture
def web(make_bench: Callable[..., Bench], secret_broker: str) -> Web:
    """One host, one cluster; vCenter and broker take the secrets and nothing else."""
    web = Web(make_bench(hosts=1, clusters=1, password=VCENTER))
    web.bench.broker = replace(web.bench.broker, user=secret_broker, password=lambda: BROKER)
    return web


def look_everywhere(web: Web, ear: Ear) -> None:
    """All that can be asked for, and all that was written or sent."""
    bench = web.bench
    assert bench.service is not None
    ear.hear(bench.service.status())
    ear.hear(bench.service.configuration)
    ear.hear(bench.messages)
    ear.hear(vars(bench.unit))
    ear.hear(bench.unit.session)
    ear.hear(bench.alarms())
    ear.hear("\n".join(gevent.util.format_run_info()))
    for path in ("/", "/login", "/healthz", *(f"/api/v1/{name}" for name in ("status", "hosts", "scope", "plan"))):
        for answer in (web.ask("GET", path), web.ask("GET", path, bearer=TOKEN), web.ask("GET", path, bearer=WRONG)):
            ear.hear(str(answer.headers))
            ear.hear(answer.body.decode())
    for file in (bench.directory / "state").iterdir():
        if file.is_file():
            ear.hear(file.read_bytes().decode("latin-1"))


def start(web: Web, **changes: Any) -> None:
    web.start(token=TOKEN, **changes)


def test_a_whole_life_tells_no_secret(web: Web, ear: Ear) -> None:
    """Logged in, deployed, published, asked, changed by token and by session, faults healed, stopped."""
    start(web)
    bench = web.bench
    bench.wait_until_active()
    look_everywhere(web, ear)
    cookie = web.log_in(TOKEN.replace("%", "%25").replace("&", "%26").replace("+", "%2B"))
    assert cookie.status == 303
    ear.hear(str(cookie.headers))
    assert web.ask("POST", "/api/v1/pause", {}, bearer=TOKEN).status == 200
    assert web.ask("POST", "/api/v1/activate", {}, bearer=TOKEN).status == 200
    bench.simulator.faults.inject("session_kill")
    bench.vcenter.enter_maintenance(bench.vcenter.hosts()[0])
    bench.wait_for_state(bench.names()[0], "MAINTENANCE")
    look_everywhere(web, ear)
    bench.stop()
    said = ear.everything()
    assert "Leading from now on" in said
    assert "token, from 127.0.0.1 told test to pause" in said
    assert "Start from server" in said, "amqp's own logger was not heard"
    assert_none_in(said)


@pytest.mark.parametrize("trouble", ["vcenter refuses", "vcenter is not trusted", "broker refuses", "secret is lost"])
def test_no_refusal_tells_a_secret(web: Web, ear: Ear, tmp_path: Path, trouble: str) -> None:
    """Neither the one that is right nor the one that was tried."""
    bench = web.bench
    if trouble == "vcenter refuses":
        start(web, vcenter={"vc_password": Secret(WRONG)})
        sentence = "refused"
    elif trouble == "vcenter is not trusted":
        start(web, vcenter={"vc_ca_certs": None})
        sentence = "not trusted"
    elif trouble == "broker refuses":
        bench.broker = replace(bench.broker, password=lambda: WRONG)
        start(web)
        sentence = "refused"
    else:
        start(web, vcenter={"vc_password": Secret(file=tmp_path / "missing")})
        sentence = "cannot be read"
    bench.wait_for(lambda: any(sentence in text for text in bench.alarms().values()), "the alarm")
    look_everywhere(web, ear)
    bench.stop()
    assert_none_in(ear.everything())


def test_a_crash_with_a_secret_at_hand_tells_none(web: Web, ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug beside the password: the traceback has lines of code, and not what stood in variables."""

    def crash(session: Session) -> None:
        password = session.settings.password()
        arguments = {"user": "me", "password": password}

        def crash_too() -> None:
            raise ValueError(f"a bug with {len(password)} characters")

        gevent.spawn(crash_too)  # never with a secret as its argument: gevent prints those, and dumps show them
        raise RuntimeError(f"a bug with {len(arguments)} arguments")

    monkeypatch.setattr(Session, "_login", crash)
    start(web)
    web.bench.wait_for(lambda: "connect" in web.bench.alarms(), "the alarm")
    look_everywhere(web, ear)
    web.bench.stop()
    said = ear.everything()
    assert "RuntimeError: a bug with 2 arguments" in said
    assert f"ValueError: a bug with {len(VCENTER)} characters" in said
    assert_none_in(said)


def test_a_configuration_that_is_wrong_around_a_secret_tells_none(ear: Ear, tmp_path: Path) -> None:
    """As a host process gives it, and with each secret in an option where it does not belong."""
    for option in ("vc_port", "vc_host", "vc_insecure", "vc_thumbprint"):
        for section, line in (("VCENTER", "vc_pasword"), ("RABBIT", "rabbit_pass"), ("INTROSPECT", "token")):
            sections = {
                "VCENTER": {"vc_host": "h", "vc_username": "u", "vc_password": VCENTER, option: f"u:{WRONG}@h"},
                "EAM": {"clusters": "A", "ovf_url": f"http://me:{BROKER}@h/x.ovf", "ovf_properties": f"a={TOKEN}"},
                "DEFAULTS": {"state_directory": str(tmp_path)},
            }
            sections.setdefault(section, {})[line] = TOKEN
            plugin = EamPlugin(conf_sections=sections)
            plugin.start()
            ear.hear(plugin.status())
            ear.hear(plugin)
            assert not plugin.status()["running"]
    assert_none_in(ear.everything())


DAEMON = """
import gevent, logging, sys
from pathlib import Path
from vcenter_eam_plugin import __main__ as daemon
from vcenter_eam_plugin.vsphere.session import Session
from vcenter_eam_plugin.bus import publisher

whole = Session._login
def tell(session):
    password = session.settings.password()
    logging.getLogger("vcenter_eam_plugin.library").error("a library says %s", password)
    logging.getLogger("amqp").warning("another says %r", "x\\0" + password)
    gevent.spawn(fail, password)
    whole(session)
def fail(password):
    raise ValueError("a third fails with " + password)
Session._login = tell
daemon.run((Path(sys.argv[1]),))
"""


def test_the_daemon_masks_what_a_library_says_all_the_same(
    make_bench: Callable[..., Bench], secret_broker: str, tmp_path: Path
) -> None:
    """The last line of defence, with every log at DEBUG: in the log, and in what gevent prints of a crash."""
    bench = make_bench(hosts=1, clusters=1, password=VCENTER)
    host, port = bench.broker.hosts[0]
    conf, simulator = tmp_path / "eam.conf", bench.simulator
    conf.write_text(
        f"[DEFAULTS]\nstate_directory={tmp_path / 'state'}\nlog_level=SYS_DEBUG\n"
        f"[VCENTER]\nvc_host={simulator.host}\nvc_port={simulator.port}\nvc_username={simulator.user}\n"
        f"vc_password_file={write_secret(tmp_path / 'vc', VCENTER)}\nvc_ca_certs={simulator.ca_file}\n"
        f"[EAM]\nclusters={simulator.vcenter.clusters()[0].name}\n"
        f"[RABBIT]\nrabbit_hosts={host}:{port}\nrabbit_vhost={bench.broker.vhost}\nrabbit_user={secret_broker}\n"
        f"rabbit_password_file={write_secret(tmp_path / 'mq', BROKER)}\n"
        f"[INTROSPECT]\nintrospect_port=0\nintrospect_token_file={write_secret(tmp_path / 'token', TOKEN)}\n",
        "utf-8",
    )
    log = tmp_path / "daemon.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", DAEMON, str(conf)], stdout=out, stderr=out, env={**os.environ, "PYTHONUTF8": "1"}
        )
    try:
        wait_for(lambda: "Leading from now on" in log.read_text("utf-8"), 60, "the daemon leads")
        wait_for(lambda: "a third fails" in log.read_text("utf-8"), 30, "gevent printed the crash")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    said = log.read_text("utf-8")
    assert "a library says ***" in said
    assert "ValueError: a third fails with ***" in said
    assert_none_in(said)
