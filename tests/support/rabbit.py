# SPDX-License-Identifier: Apache-2.0
"""A private RabbitMQ node: own name, own ports on loopback, own epmd, own directories, gone at the end of the run.

Nothing of an installed broker's service is used or touched. Each test gets a virtual host of its own. The node can
be broken as a real one breaks: stopped, killed, frozen (SIGSTOP), blocked by its memory alarm.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import gevent
import pytest
import trustme

from vcenter_eam_plugin.bus import broker
from vcenter_eam_plugin.bus.broker import BrokerSettings

_PORTS = (10240, 32768)
"""Of our servers: above those that services have by default, and below where Linux begins with its own by default."""
_KERNEL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
START_DEADLINE = 90.0
"""Seconds; 6 to 10 on an idle machine with two cores."""


def _find(name: str, *places: str) -> str | None:
    for place in places:
        if os.access(place, os.X_OK):
            return place
    return shutil.which(name)


# Debian's rabbitmq-server on PATH changes to another user when root calls it; the script behind it does not.
_SERVER = _find("rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server")
_EPMD = _find("epmd")
_ERL_CALL = _find("erl_call")


def wait_for(condition: Callable[[], object], deadline: float = 20.0, what: str = "the condition") -> None:
    """Wait until ``condition()`` is true; fail after ``deadline`` seconds, naming ``what``."""
    until = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < until, f"{what} did not come true within {deadline:g} s"
        gevent.sleep(0.01)


def free_port() -> int:
    """A port on loopback that nobody listens on now, and that nobody's outgoing connection will have.

    A server that is killed wants it again, and the kernel gives those in its own range to any connection meanwhile.
    """
    first, beyond = _PORTS
    beyond = min(beyond, int(_KERNEL_PORTS.read_text().split()[0]))
    while True:
        port = first + secrets.randbelow(max(beyond - first, 1000))
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


class RabbitNode:
    """One node. ``start()`` again after ``stop()`` or ``kill()`` finds what was durable."""

    def __init__(self, directory: Path) -> None:
        assert all((_SERVER, _EPMD, _ERL_CALL))
        self.port = free_port()
        self.tls_port = free_port()
        self._dist_port = free_port()
        self._epmd_port = free_port()
        self._name = f"eam-test-{os.getpid()}-{self.port}@localhost"
        self._cookie = uuid4().hex
        self._directory = directory
        self._epmd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._beam: int | None = None
        directory.mkdir(parents=True, exist_ok=True)
        cookie = directory / ".erlang.cookie"
        cookie.write_text(self._cookie)
        cookie.chmod(0o400)
        authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        self.authority = authority
        """Signed the node's certificate, and is trusted by it for those of clients."""
        identity = authority.issue_cert("127.0.0.1", "localhost", common_name="broker.example")
        identity.private_key_pem.write_to_path(directory / "key.pem")
        self.cert_file = directory / "cert.pem"
        identity.cert_chain_pems[0].write_to_path(self.cert_file)
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\n"
            f"ssl_options.cacertfile = {self.ca_file}\n"
            f"ssl_options.certfile = {self.cert_file}\n"
            f"ssl_options.keyfile = {directory / 'key.pem'}\n"
            "ssl_options.verify = verify_peer\n"
            "ssl_options.fail_if_no_peer_cert = false\n"
            "disk_free_limit.absolute = 1MB\n"  # a full disk of the machine is not what these tests are about
            "raft.wal_max_size_bytes = 33554432\n"
            "log.file.level = warning\n"
        )
        (directory / "enabled_plugins").write_text("[].\n")
        self._environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(directory),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "no-such-file"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def start(self) -> None:
        """Start the node and wait until it takes connections."""
        if self._epmd is None:
            # As our own child: the one that erl starts by itself is a daemon that outlives everybody.
            self._epmd = subprocess.Popen(
                [str(_EPMD), "-port", str(self._epmd_port), "-address", "127.0.0.1"],
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            wait_for(lambda: listens(self._epmd_port), 10, "epmd listening")
        with (self._directory / "server.out").open("ab") as out:
            self._server = subprocess.Popen(
                [str(_SERVER)],
                env=self._environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # the script starts erl below itself: one group to signal
            )
        wait_for(lambda: self._ended() or listens(self.port), START_DEADLINE, "RabbitMQ listening")
        assert not self._ended(), (self._directory / "server.out").read_text()[-2000:]
        self._beam = int("".join(filter(str.isdigit, self.eval("os:getpid()"))))
        self.eval("rabbit:await_startup()")

    def stop(self) -> None:
        """As the service is stopped: in order. ``start()`` brings it back."""
        self.eval("spawn(init, stop, [])")
        assert self._server
        self._server.wait(60)
        self._server = self._beam = None

    def kill(self) -> None:
        """As a power cut of the broker."""
        if self._server is not None:
            self._signal(signal.SIGKILL)
            self._server.wait(20)
            self._server = self._beam = None
            wait_for(lambda: not listens(self.port), 10, "the port being free")

    def settle(self) -> None:
        """Let what was declared survive a kill.

        The registry of quorum queues reaches the disk half a second after it was last touched; a kill before that
        brings the queue back empty and without a leader, so that it confirms nothing any more (RabbitMQ 3.10.8).
        """
        self.eval("[dets:sync(Table) || Table <- dets:all()]")

    def freeze(self) -> None:
        """SIGSTOP: it holds its sockets and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def block(self) -> None:
        """Raise the memory alarm: publishers get ``connection.blocked`` and are read no more."""
        self.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.00001)")

    def unblock(self) -> None:
        self.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.6)")

    def close(self) -> None:
        """End everything that was started."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(10)
            self._epmd = None

    def eval(self, expression: str) -> str:
        """Evaluate an Erlang expression in the node; two milliseconds instead of rabbitmqctl's two seconds."""
        done = subprocess.run(
            [str(_ERL_CALL), "-sname", self._name, "-c", self._cookie, "-e"],
            input=f"{expression}.\n".encode(),
            env=self._environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        answer = done.stdout.decode()
        assert (done.returncode, answer[:4]) == (0, "{ok,"), answer + done.stderr.decode()
        return answer

    def make_vhost(self) -> str:
        """A new virtual host, open to guest."""
        name = f"test-{uuid4().hex[:8]}"
        self.eval(f'rabbit_vhost:add(<<"{name}">>, <<"test">>)')
        self.allow("guest", name)
        return name

    def drop_vhost(self, name: str) -> None:
        self.eval(f'rabbit_vhost:delete(<<"{name}">>, <<"test">>)')

    def close_connections(self, vhost: str) -> None:
        """As an operator does: every client of the virtual host gets ``connection.close`` with code 320."""
        self.eval(
            "Vhost = fun (P) -> {P, catch rabbit_networking:connection_info(P, [vhost])} end, "
            '[rabbit_networking:close_connection(P, "test") || '
            f'{{P, [{{vhost, <<"{vhost}">>}}]}} <- [Vhost(P) || P <- rabbit_networking:connections()]]'
        )

    def add_user(self, name: str, password: str) -> None:
        self.eval(f'rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"{password}">>, <<"test">>)')

    def allow(self, user: str, vhost: str, *, configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
        patterns = ", ".join(f'<<"{pattern}">>' for pattern in (configure, write, read))
        self.eval(f'rabbit_auth_backend_internal:set_permissions(<<"{user}">>, <<"{vhost}">>, {patterns}, <<"test">>)')

    def _ended(self) -> bool:
        return self._server is None or self._server.poll() is not None

    def _signal(self, number: int) -> None:
        if self._server is None or self._server.poll() is not None:
            return
        if self._beam is not None:
            os.kill(self._beam, number)  # the script then ends by itself, and leaves no zombie behind
        else:
            os.killpg(self._server.pid, number)


def take_all(settings: BrokerSettings, queue: str | None = None) -> list[Any]:
    """Every delivery that waits in a queue (the default one unless named), raw and in order, taken out of it."""
    connection = broker.connect(settings)
    taken: list[Any] = []
    try:
        channel = connection.channel()
        while (message := channel.basic_get(queue or settings.queue)) is not None:
            channel.basic_ack(message.delivery_tag)
            taken.append(message)
    finally:
        broker.close(connection, polite=True)
    return taken


def listens(port: int) -> bool:
    """Whether somebody accepts connections there, on loopback."""
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def require_rabbit() -> None:
    """Skip, or with CI=true fail, where no RabbitMQ can be run."""
    missing = [
        name for name, path in (("rabbitmq-server", _SERVER), ("epmd", _EPMD), ("erl_call", _ERL_CALL)) if not path
    ]
    if not missing:
        return
    reason = f"{', '.join(missing)} not found: delivery is NOT tested against a real RabbitMQ"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def rabbit_node() -> Iterator[RabbitNode]:
    """The node of this test run."""
    require_rabbit()
    directory = Path(tempfile.mkdtemp(prefix="eam-rabbit-"))
    node = RabbitNode(directory)
    try:
        node.start()
        yield node
    finally:
        node.close()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def rabbit_vhost(rabbit_node: RabbitNode) -> Iterator[str]:
    """A virtual host of the test's own."""
    name = rabbit_node.make_vhost()
    yield name
    rabbit_node.drop_vhost(name)


@pytest.fixture
def rabbit_url(rabbit_node: RabbitNode, rabbit_vhost: str) -> str:
    """Its ``amqp://`` URL."""
    return f"amqp://guest:guest@127.0.0.1:{rabbit_node.port}/{rabbit_vhost}"


@pytest.fixture
def broker_settings(rabbit_url: str) -> BrokerSettings:
    """Settings for that virtual host, with short times."""
    return BrokerSettings.from_url(
        rabbit_url, confirm_timeout=2.0, connect_timeout=5.0, retry_first=0.05, retry_longest=0.5, heartbeat=4
    )
