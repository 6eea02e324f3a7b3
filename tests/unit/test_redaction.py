# SPDX-License-Identifier: Apache-2.0
"""The last line of defence: whatever form a secret has in a text, it does not leave. And the first: it is not there."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
import time
from pathlib import Path
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcenter_eam_plugin import logs, redaction
from vcenter_eam_plugin.config import (
    Configuration,
    DefaultsConfig,
    EamConfig,
    IntrospectConfig,
    RabbitConfig,
    VCenterConfig,
    VCenterUnit,
)
from vcenter_eam_plugin.options import Secret
from vcenter_eam_plugin.redaction import RedactedStream, Redactor, secrets_of

# Printable, as passwords are; the beginning keeps what hypothesis likes best, zeros, from being in any text by chance.
SECRETS = st.text(
    st.characters(exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")), min_size=4, max_size=40
).map(lambda text: f"q7Z&'{text}")
ENCODERS = {
    "plain": lambda s: s,
    "url": lambda s: quote(s, safe=""),
    "url, slashes": quote,
    "form": quote_plus,
    "url, lower": lambda s: "".join(f"%{b:02x}" if quote(chr(b), safe="") != chr(b) else chr(b) for b in s.encode()),
    "xml": escape,
    "xml attribute": lambda s: escape(s, {'"': "&quot;", "'": "&apos;"}),
    "html": html.escape,
    "json": json.dumps,
    "json, utf-8": lambda s: json.dumps(s, ensure_ascii=False),
    "repr": repr,
    "repr of bytes": lambda s: repr(s.encode()),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "basic": lambda s: base64.b64encode(f"user:{s}".encode()).decode(),
    "sasl plain": lambda s: base64.b64encode(f"\0me\0{s}".encode()).decode(),
    "base64 in the middle": lambda s: base64.urlsafe_b64encode(f"a {s} b".encode()).decode(),
}


def redactor(*secrets: str) -> Redactor:
    return Redactor(lambda: secrets, lambda: 0.0)


@pytest.mark.parametrize("form", ENCODERS)
@given(secret=SECRETS)
def test_no_form_of_a_secret_is_left(form: str, secret: str) -> None:
    encoded = ENCODERS[form](secret)
    shown = redactor(secret)(f"before {encoded} after")
    assert redaction.MASK in shown
    assert secret not in shown
    if "base64" in form or form in ("basic", "sasl plain"):
        left = shown.removeprefix("before ").removesuffix(" after").split(redaction.MASK)
        assert all(secret.encode() not in _decoded(piece) for piece in left)
        assert sum(map(len, left)) <= len(encoded) - len(secret)
    else:
        assert encoded.strip("\"'") not in shown


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""


@given(st.text(), st.lists(SECRETS, max_size=3))
def test_text_without_a_secret_stays_as_it_is(text: str, secrets: list[str]) -> None:
    if not any(form in text for secret in secrets for form in redaction.forms(secret)):
        assert redactor(*secrets)(text) == text


def test_one_secret_inside_another_leaves_nothing_of_either() -> None:
    assert redactor("hunter2hunter2", "hunter2hunter2-and-more")("x hunter2hunter2-and-more y") == "x *** y"


def test_words_that_lines_are_full_of_are_no_secrets() -> None:
    """RabbitMQ's default password is guest; who takes it as a secret has no log."""
    assert redactor("guest", "")("log in as 'guest'") == "log in as 'guest'"


def test_a_secret_that_was_changed_on_disk_is_known_and_the_former_one_stays_so() -> None:
    now, current = [0.0], ["the-first-secret"]
    redact = Redactor(lambda: current, lambda: now[0])
    assert redact("the-first-secret") == "***"
    current[0] = "the-second-secret"
    now[0] += redaction.LOOK_SECONDS
    assert redact("the-first-secret the-second-secret") == "*** ***"


def test_a_large_answer_does_not_hold_the_event_loop() -> None:
    """A status of 2,500 hosts is a few megabytes."""
    redact = redactor(*(f"secret-number-{n}-{'x' * 20}" for n in range(6)))
    text = "some words of an answer " * 200_000
    redact("")
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 0.5


def everything(tmp_path: Path) -> tuple[Configuration, list[str]]:
    """A configuration with each secret option given, by text and by file."""
    file = tmp_path / "secret"
    file.write_text("vcenter-secret-0451\n", "utf-8")
    return Configuration(
        defaults=DefaultsConfig(),
        rabbit=RabbitConfig(rabbit_password=Secret("rabbit-secret-0451")),
        introspect=IntrospectConfig(introspect_token=Secret("token-secret-0451-0451")),
        vcenters=(
            VCenterUnit(
                "one",
                VCenterConfig(vc_host="h", vc_username="u", vc_password=Secret(file=file)),
                EamConfig(
                    clusters=("A",),
                    ovf_properties=(("root_password", "ovf-secret-0451"), ("dns", "harmless-value")),
                    ovf_allow_secret_properties=True,
                ),
            ),
        ),
    ), ["rabbit-secret-0451", "token-secret-0451-0451", "vcenter-secret-0451", "ovf-secret-0451"]


def test_every_secret_of_the_configuration_is_known_and_none_shows_itself(tmp_path: Path) -> None:
    configuration, secrets = everything(tmp_path)
    assert set(secrets_of(configuration)) == set(secrets)
    assert not [secret for secret in secrets[:3] if secret in repr(configuration) or secret in str(configuration)]
    (tmp_path / "secret").unlink()
    assert "rabbit-secret-0451" in set(secrets_of(configuration)), "a lost file does not end the search for the others"


def test_the_daemons_log_has_neither_messages_nor_tracebacks_with_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "eam.log"
    secret = "hunter2-" * 2
    handler = logs.configure(DefaultsConfig(log_file=str(file), log_level="SYS_DEBUG"), redactor(secret))
    try:
        for name in ("vcenter_eam_plugin.test", "kombu", "amqp"):
            try:
                int(secret)
            except ValueError:
                logging.getLogger(name).exception("failed with %s", secret, stack_info=True)
        handler.flush()
        said = file.read_text("utf-8")
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    assert said.count("failed with ***") == 3
    assert said.count("ValueError: invalid literal for int() with base 10: '***'") == 3
    assert secret not in said


def test_what_gevent_prints_of_a_greenlet_that_crashed_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the exception's words, by the stream, nor from its variables, which nobody prints."""
    seen = io.StringIO()
    hub = gevent.get_hub()
    monkeypatch.setattr(hub, "exception_stream", RedactedStream(seen, redactor("hunter2-hunter2")))

    def crash(words: str) -> None:
        password = words.removeprefix("say: ")
        raise RuntimeError(f"cannot log in with {password}")

    greenlet = gevent.spawn(crash, "say: hunter2-hunter2")
    greenlet.join()
    assert "RuntimeError: cannot log in with ***" in seen.getvalue()
    assert "hunter2" not in seen.getvalue()


def test_the_stream_is_one_that_others_can_use() -> None:
    inner = io.StringIO()
    stream = RedactedStream(inner, redactor("hunter2-hunter2"))
    print("x", "hunter2-hunter2", file=stream, flush=True)
    assert inner.getvalue() == "x ***\n"
    assert stream.writable()
    assert not stream.isatty()
    assert logging.StreamHandler(stream).stream is stream
