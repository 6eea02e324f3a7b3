# SPDX-License-Identifier: Apache-2.0
"""The last line of defence for secrets: what leaves us as text is searched for those of the configuration.

The first line is that nobody writes one: :class:`~vcenter_eam_plugin.options.Secret` shows itself as ``***``, our
errors are sentences of our own, tracebacks are printed without the values of variables. What is left are words of
libraries, which we repeat where something happens that nobody foresaw; those are why there is this.

Not promised: that a secret is found which was cut in two, or encoded in a way that is not listed at :func:`forms`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator
from html import escape as html_escape
from io import TextIOBase
from typing import TextIO
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape as xml_escape

from vcenter_eam_plugin.config import Configuration
from vcenter_eam_plugin.domain.credentials import credential_sign
from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.options import Secret, options_of

MASK = "***"
LEAST = 6
"""Characters: a shorter secret, such as RabbitMQ's "guest", is a word that lines are full of."""
LOOK_SECONDS = 10.0
"""Between two looks at files that hold secrets: a line must not cost a read of the disk."""
MOST_KEPT = 100
"""Secrets: former ones of files that were changed are still looked for, so many in all."""
_LEAST_BASE64 = 8
"""Characters of base64: fewer are found in any text."""


class Redactor:
    """``redactor(text)`` is the text without secrets. ``secrets`` gives them; ``clock`` counts seconds."""

    def __init__(self, secrets: Callable[[], Iterable[str]], clock: Callable[[], float]) -> None:
        self._secrets = secrets
        self._now = clock
        self._known: dict[str, None] = {}
        self._words: tuple[str, ...] = ()
        self._look_again = clock()

    def __call__(self, text: str) -> str:
        if self._now() >= self._look_again:
            self._look()
        # One search for each: a regular expression of all of them takes a hundred times as long.
        for word in self._words:
            if word in text:
                text = text.replace(word, MASK)
        return text

    def _look(self) -> None:
        self._look_again = self._now() + LOOK_SECONDS
        found = {secret: None for secret in self._secrets() if len(secret) >= LEAST}
        if found.keys() <= self._known.keys():
            return
        self._known = dict(list({**found, **self._known}.items())[:MOST_KEPT])
        words = {form for secret in self._known for form in forms(secret)}
        # The longest first, so that none is left in part.
        self._words = tuple(sorted(words, key=len, reverse=True))


def forms(secret: str) -> Iterator[str]:
    """A secret as text may hold it: as it is, in a URL, XML, HTML, JSON, Python's repr, and base64."""
    for text in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret)):
        yield text
        yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), text)
    yield xml_escape(secret)
    yield xml_escape(secret, {'"': "&quot;", "'": "&apos;"})
    yield html_escape(secret)
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield repr(secret.encode())[2:-1]
    yield from _in_base64(secret.encode())


def _in_base64(secret: bytes) -> Iterator[str]:
    """The characters that the secret alone decides, for each place it can have in what was encoded with it."""
    for before in range(3):
        start, end = (before * 8 + 5) // 6, (before + len(secret)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(bytes(before) + secret + bytes(2)).decode("ascii")[start:end]
            if len(text) >= _LEAST_BASE64:
                yield text


def secrets_of(configuration: Configuration) -> Iterator[str]:
    """All that may not be shown: secret options, and OVF properties that look like one. A lost file is left out."""
    for _, values in configuration.sections():
        for option in options_of(type(values)):
            value = getattr(values, option.name)
            if isinstance(value, Secret):
                try:
                    yield value()
                except ConfigurationError:
                    continue
    for unit in configuration.vcenters:
        yield from (value for key, value in unit.eam.ovf_properties if credential_sign(key, value))


class RedactedStream(TextIOBase):
    """A stream that passes on without secrets what is written: for standard error, where gevent prints tracebacks."""

    def __init__(self, stream: TextIO, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._stream = stream
        self._redact = redact

    def write(self, text: str) -> int:
        self._stream.write(self._redact(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()
