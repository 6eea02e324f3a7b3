# SPDX-License-Identifier: Apache-2.0
"""What a setting is made of: a kind (how text becomes a value), a default, a description.

:mod:`vcenter_eam_plugin.config` declares each setting once, as a dataclass field made by :func:`option`; reading,
the environment, the sample file, the reference page and ``vcenter-eam config`` all follow from that field.

Not promised: that a value which parses also works. Whether a host answers or a cluster exists is found at run time.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from urllib.parse import urlsplit

from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.permissions import others_may_write

T = TypeVar("T")

_OPTION = "vcenter_eam.option"
"""Key of an :class:`Option` in a dataclass field's metadata."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """How a value is written. ``parse`` raises ``ValueError`` (its text, if any, is shown to the operator)."""

    allowed: str
    """Completes "allowed: ...": what may be written."""
    parse: Callable[[str], T]
    show: Callable[[T], str] = str
    """The inverse of ``parse``: text that parses to the same value."""


@dataclass(frozen=True, slots=True)
class Option:
    """One setting as its declaration has it, without the value."""

    name: str
    kind: Kind[Any]
    default: Any
    """``dataclasses.MISSING`` when the operator must give one."""
    description: str
    aliases: tuple[str, ...]
    secret: bool

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def default_text(self) -> str:
        """The default as it would be written in a file; empty for a required one and for a secret."""
        return "" if self.required or self.secret else self.kind.show(self.default)


def option(
    kind: Kind[T],
    description: str,
    *,
    default: Any = dataclasses.MISSING,
    aliases: tuple[str, ...] = (),
    secret: bool = False,
) -> T:
    """Declare a setting: a dataclass field (typed as its value) that knows how it is written and what it means."""
    metadata = {_OPTION: (kind, description, aliases, secret)}
    return cast(T, dataclasses.field(default=default, metadata=metadata))


def options_of(section: type[Any]) -> tuple[Option, ...]:
    """The options of a section's dataclass, in the order of declaration."""
    found = []
    for field in dataclasses.fields(section):
        kind, description, aliases, secret = field.metadata[_OPTION]
        found.append(Option(field.name, kind, field.default, description, aliases, secret))
    return tuple(found)


@dataclass(frozen=True, repr=False)
class Secret:
    """A password, given as text or as the file that holds it. Call it to get the text.

    A file is read again at each call, so a password that was changed on disk is used at the next login.
    Neither ``repr`` nor ``str`` shows it.
    """

    value: str = ""
    file: Path | None = None

    def __call__(self) -> str:
        """The secret. Raises ConfigurationError when its file cannot be read; a trailing newline is not part of it."""
        if self.file is None:
            return self.value
        try:
            return self.file.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
            raise ConfigurationError(
                f"The secret in {self.file} cannot be read: {reason}.", remedy="Check the file and who may read it."
            ) from exc

    def __repr__(self) -> str:
        return "***"


# --- kinds ---------------------------------------------------------------------------------------------------


def _text(raw: str) -> str:
    if "\n" in raw:
        raise ValueError("it has more than one line")
    return raw


def check_text(raw: str) -> None:
    """Raise ValueError for what no value of any kind can hold: no file has such a name, no server takes it."""
    if "\0" in raw:
        raise ValueError("it has a NUL character")
    if any(0xD800 <= ord(char) < 0xE000 for char in raw):  # how Python hands over bytes of the environment
        raise ValueError("it is not UTF-8 text")


def _filled(raw: str) -> str:
    if not raw:
        raise ValueError
    return _text(raw)


def _boolean(raw: str) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    try:
        return words[raw.lower()]
    except KeyError:
        raise ValueError from None


def split_list(raw: str) -> tuple[str, ...]:
    """One item a line; or, when all is on one line, separated by commas (so a name with a comma needs its own line)."""
    parts = raw.splitlines() if "\n" in raw else raw.split(",")
    return tuple(part.strip() for part in parts if part.strip())


def _show_list(items: Iterable[str]) -> str:
    items = tuple(items)
    if any("," in item for item in items):
        return "\n" + "\n".join(items)
    return ", ".join(items)


TEXT = Kind("text on one line", _text)
NAME = Kind("text on one line, not empty", _filled)
BOOLEAN = Kind("true or false", _boolean, lambda value: "true" if value else "false")
SECRET: Kind[Secret] = Kind("text on one line", lambda raw: Secret(_text(raw)), lambda _: "")
LIST = Kind("a list, one item a line or separated by commas on one line", split_list, _show_list)


def members(names: Iterable[str]) -> Kind[tuple[str, ...]]:
    """A list of some of these names, in this spelling; it may be empty."""
    names = tuple(names)

    def parse(raw: str) -> tuple[str, ...]:
        items = split_list(raw)
        if unknown := [item for item in items if item not in names]:
            raise ValueError(f"{', '.join(unknown)} may not be listed")
        return items

    return Kind("a list, also an empty one, of " + ", ".join(names), parse, _show_list)


def integer(low: int, high: int) -> Kind[int]:
    """A whole number; both bounds are allowed."""

    def parse(raw: str) -> int:
        number = int(raw)
        if not low <= number <= high:
            raise ValueError
        return number

    return Kind(f"a whole number from {low} to {high}", _silently(parse))


def number(low: float, high: float) -> Kind[float]:
    """A number with or without a fraction; both bounds are allowed. NaN is not between them."""

    def parse(raw: str) -> float:
        value = float(raw)
        if not low <= value <= high:
            raise ValueError
        return value

    return Kind(f"a number from {low:g} to {high:g}", _silently(parse), lambda value: f"{value:g}")


def _silently(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Drop Python's own words (``invalid literal for int() ...``): "found" and "allowed" say it better."""

    def quiet(raw: str) -> T:
        try:
            return parse(raw)
        except ValueError:
            raise ValueError from None

    return quiet


def choice(values: Mapping[str, T]) -> Kind[T]:
    """One of some words, in any case."""
    by_word = {word.lower(): value for word, value in values.items()}
    words = {value: word for word, value in values.items()}

    def parse(raw: str) -> T:
        try:
            return by_word[raw.lower()]
        except KeyError:
            raise ValueError from None

    return Kind("one of " + ", ".join(values), parse, lambda value: words[value])


def _url(raw: str) -> str:
    if not raw:
        return raw
    parts = urlsplit(raw)
    if parts.username or parts.password:
        raise ValueError("it holds a user name or password, and URLs are shown and logged")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:  # a port beyond 65535 raises
        raise ValueError
    return raw


URL = Kind("an http:// or https:// URL, or nothing", _url)


def _readable_file(raw: str) -> Path | None:
    if not raw:
        return None
    path = Path(raw)
    try:
        path.open("rb").close()
        if others_may_write(path):
            raise ValueError("everybody may write to it")
    except OSError as exc:
        raise ValueError(exc.strerror) from None
    return path


FILE: Kind[Path | None] = Kind("the path of a readable file, or nothing", _readable_file, lambda path: str(path or ""))
KEY_FILE: Kind[Path | None] = Kind(FILE.allowed, FILE.parse, FILE.show)
"""One that holds a private key: who else may read it is looked at."""


def _path(raw: str) -> Path:
    if not raw.startswith("/"):
        raise ValueError
    return Path(raw)


PATH = Kind("an absolute path", _path)
PATH_OR_NONE: Kind[Path | None] = Kind(
    "an absolute path, or nothing", lambda raw: _path(raw) if raw else None, lambda path: str(path or "")
)


def _thumbprint(raw: str) -> str:
    digits = raw.replace(":", "").replace(" ", "").lower()
    if not digits:
        return ""
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError("it is not 64 hexadecimal digits")
    return ":".join(digits[i : i + 2] for i in range(0, 64, 2)).upper()


THUMBPRINT = Kind("a SHA-256 thumbprint in hexadecimal, colons optional, or nothing", _thumbprint)


def _pairs(raw: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for line in filter(None, map(str.strip, raw.splitlines())):
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise ValueError
        pairs.append((key.strip(), value.strip()))
    return tuple(pairs)


PAIRS = Kind(
    "key=value, one a line",
    _pairs,
    lambda pairs: "".join(f"\n{key}={value}" for key, value in pairs),
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where something listens. ``port`` is ``None`` when the item names none."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def parse_address(raw: str) -> Address:
    """``host``, ``host:port``, ``[v6]`` or ``[v6]:port``. Raises ValueError; its text never quotes ``raw``."""
    if "@" in raw:
        raise ValueError("user name and password have options of their own")
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:/\[\]]+))(?::(\d{1,5}))?", raw)
    if not match:
        raise ValueError
    port = int(match[3]) if match[3] else None
    if port is not None and port > 65535:
        raise ValueError
    return Address(match[1] or match[2], port)


def _addresses(raw: str) -> tuple[Address, ...]:
    found = tuple(parse_address(item) for item in re.split(r"[,\s]+", raw) if item)
    if not found:
        raise ValueError
    return found


ADDRESSES = Kind(
    "host or host:port, several separated by commas or white space",
    _addresses,
    lambda addresses: ", ".join(map(str, addresses)),
)


def template(*fields: str) -> Kind[str]:
    """Text with ``{placeholders}`` of the given names."""

    def parse(raw: str) -> str:
        used = [name for _, name, _, _ in string.Formatter().parse(_filled(raw)) if name is not None]
        if unknown := sorted(set(used) - set(fields)):
            raise ValueError(f"unknown placeholder {{{unknown[0]}}}")
        return raw

    return Kind("text with any of " + ", ".join(f"{{{field}}}" for field in fields), parse)
