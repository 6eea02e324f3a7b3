# SPDX-License-Identifier: Apache-2.0
"""Private ZooKeeper servers: one alone, or an ensemble of three, on free ports of loopback, gone at the end of the run.

Nothing of an installed service is used or touched but its jars. A server can be broken as a real one breaks: killed,
frozen (SIGSTOP), started again with what it had on disk.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.support.rabbit import free_port, listens, wait_for

START_DEADLINE = 90.0
"""Seconds; 1 to 3 on an idle machine with two cores."""

TICK = 500
"""Milliseconds; a session's time-out lies between 2 and 20 of them, so that tests need not wait for long."""

JAR = "/usr/share/java/zookeeper.jar"
"""Of Debian's package zookeeper; its manifest names the jars that it needs, but for TLS and for logging."""

CLASS_PATH = ":".join(
    [JAR, *(f"/usr/share/java/{name}.jar" for name in ("netty-codec", "netty-resolver", "slf4j-simple"))]
)

_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"


class ZooKeeperNode:
    """One server. ``start()`` again after ``kill()`` finds what was on disk.

    ``ensemble`` holds the lines that name all members, for each the same; without, the server stands alone.
    """

    def __init__(self, directory: Path, *, number: int = 1, ensemble: Sequence[str] = (), tls: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.tls_port = free_port() if tls else None
        self.address = f"127.0.0.1:{self.port}"
        self.ca_file = directory / "ca.pem"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        data = directory / "data"
        data.mkdir()
        (data / "myid").write_text(f"{number}\n")
        lines = [
            f"tickTime={TICK}",
            "initLimit=20",
            "syncLimit=10",
            f"dataDir={data}",
            f"clientPort={self.port}",
            "clientPortAddress=127.0.0.1",
            "admin.enableServer=false",
            "maxClientCnxns=0",
            "4lw.commands.whitelist=*",
            *ensemble,
        ]
        if tls:
            lines += self._tls_lines()
        (directory / "zoo.cfg").write_text("\n".join(lines) + "\n")

    def start(self, *, wait: bool = True) -> None:
        """Start it; ``wait`` for a server that serves, which a member of an ensemble does once there is a majority."""
        assert not self.running
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    shutil.which("java") or "java",
                    "-Xmx96m",
                    "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1",
                    "-Djava.net.preferIPv4Stack=true",
                    "-cp",
                    CLASS_PATH,
                    _MAIN,
                    str(self._directory / "zoo.cfg"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
            )
        if wait:
            self.wait_until_serving()

    def wait_until_serving(self) -> None:
        wait_for(lambda: not self.running or self.serves(), START_DEADLINE, "ZooKeeper serves")
        assert self.running, self.log[-3000:]

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return (self._directory / "server.log").read_text("utf-8", "replace")

    def serves(self) -> bool:
        """Whether it serves clients now: alone, or as a member with a majority."""
        return self.mode() != "" and (self.tls_port is None or listens(self.tls_port))

    def mode(self) -> str:
        """``standalone``, ``leader`` or ``follower``; empty while it does not serve."""
        found = [line.partition(": ")[2] for line in self.ask("srvr").splitlines() if line.startswith("Mode: ")]
        return found[0] if found else ""

    def ask(self, word: str) -> str:
        """The answer to a four-letter word, or an empty string."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as sock:
                sock.settimeout(2)
                sock.sendall(word.encode())
                answer = b""
                while piece := sock.recv(65536):
                    answer += piece
        except OSError:
            return ""
        return answer.decode("utf-8", "replace")

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: no chance to put anything in order."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait(10)
        self._process = None

    def _signal(self, number: int) -> None:
        if self.running:
            assert self._process is not None
            os.kill(self._process.pid, number)

    def _tls_lines(self) -> list[str]:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        identity = authority.issue_cert("localhost")
        store = self._directory / "server.pem"
        # Java reads keys as PKCS #8 alone.
        key = load_pem_private_key(identity.private_key_pem.bytes(), None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        store.write_bytes(pem + identity.cert_chain_pems[0].bytes())
        return [
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
            f"secureClientPort={self.tls_port}",
            "secureClientPortAddress=127.0.0.1",
            f"ssl.keyStore.location={store}",
            "ssl.keyStore.type=PEM",
            f"ssl.trustStore.location={self.ca_file}",
            "ssl.trustStore.type=PEM",
            "ssl.clientAuth=none",
        ]


class ZooKeeperEnsemble:
    """Three servers; any two of them serve."""

    def __init__(self, directory: Path) -> None:
        peers = [(free_port(), free_port()) for _ in range(3)]
        lines = [f"server.{n}=127.0.0.1:{quorum}:{vote}" for n, (quorum, vote) in enumerate(peers, start=1)]
        self.nodes = [
            ZooKeeperNode(directory / str(number), number=number, ensemble=lines) for number in range(1, len(peers) + 1)
        ]

    @property
    def hosts(self) -> str:
        """For ``zookeeper_servers``, and for KazooClient."""
        return ",".join(node.address for node in self.nodes)

    def start(self) -> None:
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            node.wait_until_serving()

    def close(self) -> None:
        for node in self.nodes:
            node.kill()


def missing() -> str:
    """What is not here for a ZooKeeper server to run, or an empty string."""
    if shutil.which("java") is None:
        return "java"
    return "" if Path(JAR).exists() else JAR


def require_zookeeper() -> None:
    """Skip, or with CI=true fail, where no ZooKeeper can be run."""
    if not (what := missing()):
        return
    reason = f"{what} not found: election is NOT tested against a real ZooKeeper"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _directory(stack: ExitStack) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="eam-zookeeper-"))
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    return directory


@pytest.fixture(scope="session")
def zookeeper() -> Iterator[ZooKeeperNode]:
    """The server of this test run. Tests that break it have it whole again when they end."""
    require_zookeeper()
    with ExitStack() as stack:
        node = ZooKeeperNode(_directory(stack))
        stack.callback(node.kill)
        node.start()
        yield node


@pytest.fixture(scope="session")
def zookeeper_tls() -> Iterator[ZooKeeperNode]:
    """One that also speaks TLS, with a certificate for localhost, and for no address."""
    require_zookeeper()
    with ExitStack() as stack:
        node = ZooKeeperNode(_directory(stack), tls=True)
        stack.callback(node.kill)
        node.start()
        yield node


@pytest.fixture
def zookeeper_root() -> str:
    """A path of the test's own."""
    return f"/test-{uuid4().hex[:8]}"
