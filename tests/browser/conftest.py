# SPDX-License-Identifier: Apache-2.0
"""A browser, and installations for it to look at: simulator, RabbitMQ and daemon, each a process of its own."""

from __future__ import annotations

import json
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support import rabbit
from tests.support.processes import DaemonProcess, SimulatorProcess, daemon_process, simulator_process, write_secret
from tests.support.rabbit import RabbitNode, free_port
from vcenter_eam_plugin.simulator.sample_ovf import write_sample

rabbit_node = rabbit.rabbit_node
"""The fixture that other tests have, too; as a plugin it would be loaded after what imports it here."""

TOKEN = "4b1d-token-of-the-tests-0f7e"
CHROMIUM = "chromium"
"""Debian's; Playwright's own is not downloaded."""
ARGUMENTS = (
    "--no-sandbox",  # it runs as root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DEFAULTS = """
[DEFAULTS]
state_directory = {directory}/state
ovf_server_port = {ovf_port}
{defaults}

[RABBIT]
rabbit_hosts = 127.0.0.1:{rabbit_port}
rabbit_vhost = /

[INTROSPECT]
introspect_token_file = {token_file}
"""
VCENTER = """
[VCENTER:{name}]
vc_host = {host}
vc_port = {port}
vc_username = {user}
vc_password_file = {password_file}
vc_ca_certs = {ca_file}

[EAM:{name}]
mode = {mode}
clusters =
    {clusters}
ovf_package = {ovf}
agent_vm_datastore = shared-*
agent_vm_network = VM Network
# What is off stays off until a person resolves it.
power_off_grace_seconds = 3600
poll_seconds = 2
"""


class Installation:
    """What a browser looks at: one daemon. ``ca_file`` is what its page is to be trusted by, where it speaks TLS.

    Of several vCenters ``simulator`` is the first.
    """

    def __init__(self, simulator: SimulatorProcess, daemon: DaemonProcess, ca_file: Path | None = None) -> None:
        self.simulator = simulator
        self.daemon = daemon
        self.trust = ssl.create_default_context(cafile=ca_file) if ca_file is not None else None
        host = "http://127.0.0.1" if ca_file is None else "https://localhost"
        self.url = f"{host}:{daemon.web_port}"

    def start(self) -> None:
        """Start the daemon, again too."""
        self.daemon.start()
        until(lambda: self.ask("/healthz"), "the page is served")

    def ask(self, path: str) -> Any:
        """What the API answers to a GET; ``None`` while it does not."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=60, context=self.trust) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            return None

    def vcenter(self, name: str = "lab") -> dict[str, Any]:
        """What the API says of one vCenter."""
        (found,) = [each for each in self.ask("/api/v1/status")["vcenters"] if each["name"] == name]
        return dict(found)

    def hosts(self) -> dict[str, dict[str, Any]]:
        """What the API says, by name."""
        return {host["esxi"]["name"]: host for host in self.ask("/api/v1/hosts")["hosts"]}

    def wait_for(self, state: str, *names: str, seconds: float = 60.0) -> None:
        """Until each of these hosts, or every host, is in this state."""
        until(
            lambda: (hosts := self.hosts()) and all(hosts[name]["state"] == state for name in names or hosts),
            f"{names or 'all'} {state}",
            seconds,
        )

    def switch(self, verb: str, vcenter: str = "lab") -> None:
        """Activate or pause, as a script does it."""
        self._post(f"/api/v1/{verb}", {"vcenter": vcenter})

    def resolve(self, name: str) -> None:
        """Have a host's issues resolved, as a script does it."""
        shown = self._post("/api/v1/preview", {"operation": "resolve", "target": name})
        consent = {"digest": json.loads(shown)["digest"], "acknowledge": json.loads(shown)["acknowledge"]}
        self._post("/api/v1/apply", {"operation": "resolve", "target": name, **consent})

    def _post(self, path: str, body: dict[str, Any]) -> bytes:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60, context=self.trust) as answer:
            return bytes(answer.read())

    def resolves(self) -> int:
        """How often anybody had EAM resolve something."""
        return self.writes("Resolve")

    def writes(self, method: str | None = None) -> int:
        """How often anybody had vCenter or EAM change something."""
        journal = self.simulator.control("GET", "journal")
        return sum(entry["kind"] == "call" and method in (None, entry["fields"]["method"]) for entry in journal)


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Wait for it, and give it. The other tests' way of waiting would run gevent's loop beside the browser's."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return value


def make_simulator(
    stack: ExitStack, directory: Path, *, hosts: int, clusters: int, knobs: tuple[str, ...] = ()
) -> SimulatorProcess:
    """Clusters are called ClusterA, ClusterB ..."""
    directory.mkdir(exist_ok=True)
    options = ("--hosts", str(hosts), "--clusters", str(clusters), *(f"--knob={knob}" for knob in knobs))
    return stack.enter_context(simulator_process(directory, *options))


def section_of(name: str, simulator: SimulatorProcess, directory: Path, *, clusters: int, mode: str) -> str:
    """What a configuration says of one vCenter."""
    about = simulator.about
    names = [f"{prefix}{letter}" for prefix in ("", *LETTERS) for letter in LETTERS][:clusters]
    return VCENTER.format(
        name=name,
        mode=mode,
        password_file=write_secret(directory / f"password-{name}", about["password"]),
        ovf=write_sample(directory / "ovf"),
        clusters="\n    ".join(f"/DC0/host/Cluster{each}" for each in names),
        **{key: about[key] for key in ("host", "port", "user", "ca_file")},
    )


def make_daemon(
    stack: ExitStack,
    directory: Path,
    node: RabbitNode,
    simulator: SimulatorProcess,
    sections: str,
    *,
    tls: bool = False,
    ovf_port: int | None = None,
    defaults: str = "",
    more: str = "",
) -> Installation:
    """Started, and nothing is known yet. ``defaults`` are options of ``[DEFAULTS]``, ``more`` are sections."""
    directory.mkdir(exist_ok=True)
    ca_file = None
    text = sections + DEFAULTS.format(
        directory=directory,
        ovf_port=ovf_port or free_port(),
        defaults=defaults,
        token_file=write_secret(directory / "token", TOKEN),
        rabbit_port=node.port,
    )
    if tls:
        authority, ca_file = trustme.CA(), directory / "authority.pem"
        authority.cert_pem.write_to_path(ca_file)
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(directory / "page.crt")
        write_secret(directory / "page.key", issued.private_key_pem.bytes().decode())
        text += f"introspect_ssl_certfile = {directory}/page.crt\nintrospect_ssl_keyfile = {directory}/page.key\n"
    conf_file = directory / "vcenter_eam.conf"
    conf_file.write_text(text + more)
    daemon = stack.enter_context(daemon_process(directory, conf_file, free_port()))
    installation = Installation(simulator, daemon, ca_file)
    installation.start()
    return installation


def make_installation(
    stack: ExitStack,
    directory: Path,
    node: RabbitNode,
    *,
    hosts: int,
    clusters: int,
    mode: str = "act",
    knobs: tuple[str, ...] = (),
    tls: bool = False,
) -> Installation:
    """Of one vCenter, "lab". Started, and nothing is ACTIVE yet."""
    simulator = make_simulator(stack, directory, hosts=hosts, clusters=clusters, knobs=knobs)
    section = section_of("lab", simulator, directory, clusters=clusters, mode=mode)
    return make_daemon(stack, directory, node, simulator, section, tls=tls)


@pytest.fixture(scope="session")
def eight(rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Eight hosts in two clusters, ACTIVE at first. Each test takes hosts of its own."""
    with ExitStack() as stack:
        made = make_installation(stack, tmp_path_factory.mktemp("eight"), rabbit_node, hosts=8, clusters=2)
        made.wait_for("ACTIVE")
        yield made


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", metavar="DIR", help="Write the pictures of the documentation there.")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which(CHROMIUM)
    assert path, "Debian's package chromium is needed"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, headless=True, args=list(ARGUMENTS))
        yield started
        started.close()


class Looking:
    """Pages of a browser that notes what they ask for and complain of."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.contexts: list[BrowserContext] = []

    def open(self, url: str, **context: Any) -> Page:
        """A page in a browser session of its own."""
        made = self._browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **context})
        made.set_default_timeout(30_000)
        self.contexts.append(made)
        page = made.new_page()
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(url)
        return page


@pytest.fixture
def look(browser: Browser) -> Iterator[Looking]:
    """Opens pages, and fails the test if one of them complained, or asked anybody but the service for anything."""
    looking = Looking(browser)
    yield looking
    for context in looking.contexts:
        context.close()
    assert looking.complaints == []
    ours = ("http://127.0.0.1:", "http://localhost:", "https://localhost:")
    assert [url for url in looking.requests if not url.startswith(ours)] == []


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> Callable[[Page, str], None]:
    """Writes a picture of what a page shows, when the command line asks for pictures."""
    folder = request.config.getoption("--screenshots")

    def write(page: Page, name: str, **options: Any) -> None:
        if folder is None:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        file = Path(folder) / f"status-{name}.png"
        page.screenshot(path=file, animations="disabled", **options)
        assert file.stat().st_size < 200_000, f"{file} is larger than a page of the documentation should load"

    return write


def log_in(page: Page, url: str, token: str = TOKEN) -> None:
    page.goto(f"{url}/login")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()
