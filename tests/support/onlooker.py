# SPDX-License-Identifier: Apache-2.0
"""Somebody who looks at a bench as operators do: by ``vcenter-eam``, and by a browser without JavaScript."""

from __future__ import annotations

import time
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import gevent
import pytest

from tests.support.bench import SECONDS, Bench
from tests.support.commands import Operator
from tests.support.web import Web
from vcenter_eam_plugin.web.control import ControlSocket


class _Text(HTMLParser):
    """What a page says, one blank between its words; nothing of scripts and styles, and no attribute."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self._found: list[str] = []
        self._hidden = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._hidden += tag in ("script", "style", "title")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style", "title")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._found.append(data)

    def __str__(self) -> str:
        return " ".join(" ".join(self._found).split())


class Onlooker:
    """See the module. What is not there at once is waited for: EAM is read on a hint, and rules are looked for."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.operator = Operator(bench)
        self.web = Web(bench)

    def start(self, **changes: Any) -> None:
        """Start the bench's service with its web server and its control socket."""
        self.web.start(also=(ControlSocket,), **changes)

    def address(self, host: Any) -> str:
        """Path of a host's page."""
        return f"/hosts/test/{host.moid}"

    # --- one look -----------------------------------------------------------------------------------------

    def page(self, path: str = "/", **headers: str) -> str:
        """What a page says."""
        answer = self.web.ask("GET", path, **headers)
        assert answer.headers["content-type"].startswith("text/html"), answer.headers
        return str(_Text(answer.body.decode()))

    def told(self, *command: str) -> str:
        """What a command says to a person, without the lines of its tables."""
        done = self.operator.run(*command)
        return " ".join("".join(" " if "\u2500" <= letter <= "\u257f" else letter for letter in done.output).split())

    def given(self, *command: str) -> list[dict[str, Any]]:
        """What it gives to a program."""
        return self.operator.ask(*command)

    def host(self, host: Any) -> dict[str, Any]:
        """One host, as a program gets it."""
        found: dict[str, Any] = self.given("host", host.name)[0]["host"]
        return found

    # --- until it is seen ---------------------------------------------------------------------------------

    def sees(self, path: str, *words: str) -> str:
        """Until a page says all of these."""
        return self._until(lambda: self.page(path), words, path)

    def reads(self, command: str, *words: str) -> str:
        """Until a command, written as at a shell, says all of these."""
        return self._until(lambda: self.told(*command.split()), words, command)

    def gets(self, command: str, condition: Callable[[list[dict[str, Any]]], Any]) -> Any:
        """Until what it gives to a program fulfils ``condition``."""
        deadline = time.monotonic() + SECONDS
        while True:
            given = self.given(*command.split())
            try:
                found = condition(given)
            except (IndexError, KeyError, StopIteration):
                found = None
            if found:
                return found
            if time.monotonic() > deadline:
                pytest.fail(f"not within {SECONDS:g} s: {command} --json gives {given}")
            gevent.sleep(0.1)

    def _until(self, look: Callable[[], str], words: tuple[str, ...], where: str) -> str:
        deadline = time.monotonic() + SECONDS
        while True:
            text = look()
            missing = [word for word in words if word not in text]
            if not missing:
                return text
            if time.monotonic() > deadline:
                pytest.fail(f"not within {SECONDS:g} s: {where} says nothing of {missing}, but: {text}")
            gevent.sleep(0.1)


@pytest.fixture
def make_onlooker(make_bench: Callable[..., Bench]) -> Callable[..., Onlooker]:
    """``make_onlooker(hosts=...)``: a bench that is not started, and somebody who looks at it."""
    return lambda **simulator: Onlooker(make_bench(**simulator))
