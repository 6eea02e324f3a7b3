# SPDX-License-Identifier: Apache-2.0
"""XML from outside, part of it: what a server that is trusted, or took over one that was, can do by its answers.

pyVmomi reads SOAP with expat, which fetches nothing and bounds what entities may grow to; this holds it to that. OVF
descriptors (tests/unit/test_ovf.py) and introspect answers (tests/unit/test_vrouter_probe.py) are read with lxml,
without entities.
"""

from __future__ import annotations

import pyexpat
import resource
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from gevent.pywsgi import WSGIServer

from vcenter_eam_plugin.domain.errors import PluginError
from vcenter_eam_plugin.vsphere.session import Session, SessionSettings

MOST_MEMORY = 256 << 20
"""Bytes: far below what the entities would grow to, and above what one answer of 8 MiB (expat's threshold) costs."""
MOST_SECONDS = 20.0

VERSIONS = b"""<?xml version="1.0"?><namespaces><namespace><name>urn:vim25</name><version>8.0.1.0</version></namespace>
</namespaces>"""

SOAP = """<?xml version="1.0"?>
<!DOCTYPE x [{entities}]>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>
<RetrieveServiceContentResponse xmlns="urn:vim25"><returnval>
<rootFolder type="Folder">group-d1</rootFolder><propertyCollector type="PropertyCollector">pc</propertyCollector>
<about><name>{text}</name><fullName>f</fullName><vendor>v</vendor><version>8.0.1</version><build>1</build>
<osType>o</osType><productLineId>vpx</productLineId><apiType>VirtualCenter</apiType><apiVersion>8.0.1.0</apiVersion>
</about></returnval></RetrieveServiceContentResponse></soapenv:Body></soapenv:Envelope>"""


def laughs() -> str:
    """A billion, in ten steps of ten."""
    steps = ['<!ENTITY e0 "haha">']
    steps += [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10)]
    return "".join(steps)


HOSTILE = {
    "billion laughs": SOAP.format(entities=laughs(), text="&e9;"),
    "quadratic": SOAP.format(entities=f'<!ENTITY a "{"a" * 50_000}">', text="&a;" * 50_000),
    "parameter entities": SOAP.format(entities='<!ENTITY % p SYSTEM "{url}/p.dtd"> %p;', text="x"),
    "a file of ours": SOAP.format(entities='<!ENTITY f SYSTEM "file://{file}">', text="&f;"),
    "a URL": SOAP.format(entities='<!ENTITY f SYSTEM "{url}/entity">', text="&f;"),
    "deep": SOAP.format(entities="", text="<a>" * 200_000),
    "cut off": SOAP.format(entities="", text="x")[:400],
    "no XML": "\x00\xff" * 1000,
}


class HostileVCenter:
    """Answers the first call of a login with ``answer``; ``asked`` are the paths that were asked for."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.asked: list[str] = []
        self.answer = b""
        self._server = WSGIServer(("127.0.0.1", 0), self._answer, log=None, ssl_context=context)
        self._server.start()
        self.url = f"https://127.0.0.1:{self._server.server_port}"

    def session(self) -> Session:
        return Session(
            SessionSettings(
                host="127.0.0.1",
                port=self._server.server_port,
                username="u",
                password=lambda: "p",
                ca_file=str(self.ca_file),
                call_timeout=MOST_SECONDS,
            )
        )

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        self.asked.append(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Type", "text/xml")])
        return [VERSIONS if environ["PATH_INFO"].endswith("vimServiceVersions.xml") else self.answer]

    def close(self) -> None:
        self._server.stop(timeout=1)


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[HostileVCenter]:
    server = HostileVCenter(tmp_path)
    yield server
    server.close()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_answer_is_an_error_that_costs_little_and_fetches_nothing(
    hostile: HostileVCenter, tmp_path: Path, kind: str
) -> None:
    """Issue 4: XML from outside without entities that explode, without files and without the network."""
    file = tmp_path / "secret.txt"
    file.write_text("the content of the file", "utf-8")
    text = HOSTILE[kind].replace("{url}", hostile.url).replace("{file}", str(file))
    hostile.answer = text.encode("utf-8", "surrogateescape")
    before, began = _peak(), time.monotonic()
    with pytest.raises(PluginError) as caught:
        hostile.session().open()
    assert time.monotonic() - began < MOST_SECONDS
    assert _peak() - before < MOST_MEMORY
    assert set(hostile.asked) <= {"/sdk/vimServiceVersions.xml", "/sdk"}
    assert "the content of the file" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert len(str(caught.value)) < 2000


def test_an_external_entity_is_left_out_and_not_read(hostile: HostileVCenter, tmp_path: Path) -> None:
    """The same answer, as far as it is read: the place of the entity is empty."""
    file = tmp_path / "secret.txt"
    file.write_text("the content of the file", "utf-8")
    hostile.answer = HOSTILE["a file of ours"].replace("{file}", str(file)).encode()
    session = hostile.session()
    with pytest.raises(PluginError):
        session.open()
    assert "the content" not in repr(vars(session))


def test_expat_bounds_what_entities_grow_to() -> None:
    """Since 2.4.0 (CVE-2013-0340); what the tests above rely on."""
    assert pyexpat.version_info >= (2, 4, 1)


def _peak() -> int:
    """Bytes of memory that this process ever used."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
