# SPDX-License-Identifier: Apache-2.0
"""The page's templates, compiled when this module is imported, as Python compiles its own.

jinja2 compiles a template when it is first asked for, which takes 190 ms for all of them (measured). That belongs to
the start of a process, and not into the event loop of one that has heartbeats to keep.
"""

from __future__ import annotations

from pathlib import Path

from flask import Flask
from jinja2.bccache import Bucket, BytecodeCache


class _Compiled(BytecodeCache):
    """In memory, for every application of this process; jinja2 itself compares the sources' checksums."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._code:
            bucket.bytecode_from_string(self._code[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[bucket.key] = bucket.bytecode_to_string()


def _compiled() -> _Compiled:
    """By an application that is made for nothing else, so that jinja2 compiles with Flask's own settings."""
    cache = _Compiled()
    app = Flask("templates", template_folder=str(Path(__file__).parent / "templates"), static_folder=None)
    app.jinja_env.bytecode_cache = cache
    # Names of filters are looked up while a template is compiled; the functions come with the page.
    app.jinja_env.filters |= dict.fromkeys(("utc", "iso", "host_id", "sentence"), str)
    for name in app.jinja_env.list_templates(extensions=["html"]):
        app.jinja_env.get_template(name)
    return cache


COMPILED = _compiled()
