# SPDX-License-Identifier: Apache-2.0
"""OVF packages to serve: descriptors with what a test asks for, manifests, archives, certificates."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme
from gevent.pywsgi import WSGIServer

from vcenter_eam_plugin.simulator import sample_ovf

ENVELOPE = "http://schemas.dmtf.org/ovf/envelope/1"


def envelope(*files: str, properties: Iterable[str] = (), body: str = "") -> str:
    """A descriptor that references these files. ``properties`` are attributes of a Property element, each."""
    references = "".join(f'<File ovf:href="{file}" ovf:id="{n}"/>' for n, file in enumerate(files))
    product = "".join(f"<Property {attributes}/>" for attributes in properties)
    return (
        f'<Envelope xmlns="{ENVELOPE}" xmlns:ovf="{ENVELOPE}"><References>{references}</References>{body}'
        f'<VirtualSystem ovf:id="ContrailVM"><Info/><ProductSection><Info/>{product}</ProductSection></VirtualSystem>'
        "</Envelope>"
    )


def manifest(files: dict[str, bytes], algorithm: str = "SHA256") -> bytes:
    """A manifest of these files."""
    return "".join(
        f"{algorithm}({name})= {hashlib.new(algorithm.lower(), content).hexdigest()}\n"
        for name, content in files.items()
    ).encode()


def write_archive(path: Path, files: dict[str, bytes], format: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar archive with these files in their order."""
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_certificate(folder: Path, name: str = "ovf", host: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate that nobody knows, and its key: ``(certificate, key)``; beside it, its authority's (``.ca``)."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / f"{name}.ca")
    issued = authority.issue_cert(host)
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    return certificate, key


@contextmanager
def ovf_server(directory: Path, scheme: str = "http", **options: Any) -> Iterator[str]:
    """A web server that has the sample package and nothing else; a query is accepted and ignored."""
    sample_ovf.write_sample(directory)

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        file = directory / environ["PATH_INFO"].lstrip("/")
        if not file.is_file():
            start_response("404 Not Found", [])
            return []
        start_response("200 OK", [])
        return [file.read_bytes()]

    server = WSGIServer(("127.0.0.1", 0), answer, log=None, error_log=None, **options)
    server.start()
    try:
        yield f"{scheme}://127.0.0.1:{server.server_port}/{sample_ovf.DESCRIPTOR_NAME}"
    finally:
        server.stop(timeout=1)
