# SPDX-License-Identifier: Apache-2.0
"""From text in several places to the values of a section, with every mistake named.

Knows how settings are written, not which there are: :mod:`vcenter_eam_plugin.config` declares those. Mistakes are
collected in :attr:`Reader.problems`, one sentence each, and never quote what could be a password; what works, but
should not stay so, in :attr:`Reader.warnings`.
"""

from __future__ import annotations

import configparser
import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import six

from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.options import KEY_FILE, Option, Secret, check_text, options_of
from vcenter_eam_plugin.permissions import others_may_read, others_may_write


class Section(Protocol):
    """What the class of a section has besides its options."""

    def conflicts(self) -> Iterator[str]:
        """Settings that are right each for itself, but not together."""
        ...


S = TypeVar("S", bound=Section)

MOST_PROBLEMS = 50
"""Named in one error. A file of another program has thousands, and each takes a search for what was meant."""
_UNIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""Files of the state directory are named after it."""
_SHOWN = 100
"""Characters of a value that are quoted; nobody reads more to recognise it."""


class Problems(list[str]):
    """Sentences. From :data:`MOST_PROBLEMS` on they are only counted."""

    def __init__(self) -> None:
        super().__init__()
        self.untold = 0

    @property
    def count_all(self) -> int:
        """How many there are, told or not."""
        return len(self) + self.untold

    @property
    def full(self) -> bool:
        """Whether there is no room for another, so that it need not be worded."""
        return len(self) >= MOST_PROBLEMS

    def append(self, problem: str) -> None:
        """Keep it, or count it."""
        if self.full:
            self.untold += 1
        else:
            super().append(problem)

    def extend(self, problems: Iterable[str]) -> None:
        """Keep or count each."""
        for problem in problems:
            self.append(problem)

    def __str__(self) -> str:
        more = [f"And {self.untold} more; is it the right file?"] if self.untold else []
        return "\n".join([*self, *more])


@dataclass(frozen=True, slots=True)
class _Found:
    """One value as somebody wrote it. ``rank`` orders the sources: the highest one wins."""

    text: str
    origin: str
    rank: int
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class _Given:
    """A found value with the name it was given by, which may be an alias, or the ``_file`` form of a secret."""

    found: _Found
    name: str
    is_file: bool


class Reader:
    """Takes in sources, the later ones winning, then builds sections. ``named`` may occur as ``[SECTION:name]``."""

    def __init__(self, kinds: Mapping[str, type[Any]], named: Collection[str]) -> None:
        self._kinds = kinds
        self._named = named
        self._raw: dict[str, dict[str, _Found]] = {}
        self._rank = 0
        self.problems = Problems()
        self.warnings: list[str] = []
        self.origins: dict[tuple[str, str], str] = {}
        """Per section and option that was given: by whom."""

    # --- sources -----------------------------------------------------------------------------------------------

    def take_sections(self, sections: Mapping[str, Any], *, ours: Collection[str]) -> None:
        """Sections that a host process parsed. What is unknown is the host's and ignored, but for sections ``ours``."""
        self._rank += 1
        inherited = sections.defaults() if isinstance(sections, configparser.RawConfigParser) else {}
        for title in sections:
            section, _, _ = str(title).partition(":")
            if section not in self._kinds:
                continue
            known = _names(self._kinds[section])
            for name in sections[title]:
                key = six.ensure_text(name).lower()
                if key not in known and (section not in ours or name in inherited):
                    continue
                try:
                    value = sections[title][name]
                except configparser.InterpolationError:
                    # A "%" that the host's parser cannot interpolate: take it as written, as our own parser does.
                    value = sections[title].get(name, raw=True)
                if value is not None:
                    text = six.ensure_text(value) if isinstance(value, bytes | str) else str(value)
                    self._put(str(title), key, text, "the host process")

    def take_file(self, path: Path) -> None:
        """One INI file."""
        self._rank += 1
        # strict=False: Contrail's containers append a section again for values from the environment.
        # interpolation=None: "%" is a character like any other. default_section: [DEFAULT] is no section of ours.
        parser = configparser.ConfigParser(strict=False, interpolation=None, default_section="\0")
        try:
            with path.open(encoding="utf-8") as file:
                parser.read_file(file)
            if others_may_write(path):
                self.problems.append(f"{path}: everybody may write to it; allowed: a file of those who may decide.")
        except OSError as exc:
            self.problems.append(f"{path}: cannot be read: {exc.strerror}.")
        except UnicodeDecodeError:
            self.problems.append(f"{path}: is not UTF-8 text.")
        except configparser.MissingSectionHeaderError as exc:
            self.problems.append(
                f"{path}, line {exc.lineno}: found a value before the first section; allowed: [SECTION] first."
            )
        except configparser.ParsingError as exc:
            # The parser's own sentence quotes the line, which may hold a password.
            lines = ", ".join(str(line) for line, _ in exc.errors[:MOST_PROBLEMS])
            self.problems.append(f"{path}, line {lines}: found neither a section nor a value; allowed: option = value.")
        else:
            for title in parser.sections():
                self._raw.setdefault(title, {})
                for name, value in parser.items(title):
                    self._put(title, name, value, str(path), path)

    def take_environment(self, environ: Mapping[str, str], prefix: str) -> None:
        """Variables ``<prefix><SECTION>__<option>`` and ``<prefix><SECTION>__<name>__<option>``."""
        self._rank += 1
        for variable in sorted(environ):
            if not variable.startswith(prefix):
                continue
            *title, name = variable.removeprefix(prefix).split("__")
            if len(title) in (1, 2):
                self._put(":".join(title), name.lower(), environ[variable], f"environment variable {_quoted(variable)}")
            else:
                self.problems.append(
                    f"Environment variable {_quoted(variable)}: allowed: {prefix}<SECTION>__<option> or "
                    f"{prefix}<SECTION>__<name>__<option>."
                )

    def _put(self, title: str, name: str, text: str, origin: str, file: Path | None = None) -> None:
        self._raw.setdefault(title, {})[name] = _Found(text.strip(), origin, self._rank, file)

    # --- what was taken in -------------------------------------------------------------------------------------

    def has(self, title: str) -> bool:
        """Whether the section occurs at all."""
        return title in self._raw

    def has_values(self, title: str) -> bool:
        """Whether it says anything."""
        return bool(self._raw.get(title))

    def units(self, section: str) -> list[str]:
        """The names of ``[section:name]``, in the order of their first occurrence."""
        prefix = f"{section}:"
        return [title.removeprefix(prefix) for title in self._raw if title.startswith(prefix) and title != prefix]

    def check_titles(self) -> None:
        """Report sections that there are not."""
        for title, values in self._raw.items():
            section, colon, unit = title.partition(":")
            where = next((found.origin for found in values.values()), "The file")
            if section not in self._kinds:
                hint = "" if self.problems.full else suggest(section, self._kinds)
                self.problems.append(f"{where}, section [{_quoted(title)}]: unknown; {hint}")
            elif colon and (section not in self._named or not unit.strip()):
                titles = " and ".join(f"[{name}:name]" for name in sorted(self._named))
                self.problems.append(f"{where}, section [{_quoted(title)}]: allowed with a name: {titles}.")
            elif colon and not _UNIT_NAME.fullmatch(unit):
                self.problems.append(
                    f"{where}, section [{_quoted(title)}]: allowed in its name: letters, digits, dot, dash and "
                    "underscore, 64 at most."
                )

    # --- sections ----------------------------------------------------------------------------------------------

    def build(self, kind: type[S], title: str) -> S | None:
        """The values of a section; of a named one, over those of the plain section.

        ``None`` when anything in it is wrong; then ``problems`` says what.
        """
        before = self.problems.count_all
        section, colon, _ = title.partition(":")
        given: dict[str, _Given] = {}
        for layer in (section, title) if colon else (title,):
            given |= self._given(kind, title, self._raw.get(layer, {}))
        values: dict[str, Any] = {}
        for option in options_of(kind):
            if option.name in given:
                values[option.name] = self._value(option, title, given[option.name])
            elif option.required:
                forms = f"{option.name} or {option.name}_file" if option.secret else option.name
                self.problems.append(
                    f"Section [{title}], option {forms}: missing; it has no default. {option.description}"
                )
        if self.problems.count_all > before:
            return None
        built = kind(**values)
        self.problems.extend(f"Section [{title}], {text}" for text in built.conflicts())
        return built if self.problems.count_all == before else None

    def _given(self, kind: type[Section], title: str, layer: Mapping[str, _Found]) -> dict[str, _Given]:
        """By the option's own name, what was given for it."""
        known = _names(kind)
        given: dict[str, _Given] = {}
        for name, found in layer.items():
            if name not in known:
                hint = "" if self.problems.full else suggest(name, known)
                problem = f"{found.origin}, section [{title}], option {_quoted(name)}: unknown; {hint}"
                if problem not in self.problems:  # the common section is met once per named one
                    self.problems.append(problem)
                continue
            option, is_file = known[name]
            other = given.get(option.name)
            if other is None or found.rank > other.found.rank:
                given[option.name] = _Given(found, name, is_file)
            elif found.rank == other.found.rank:
                self.problems.append(
                    f"{found.origin}, section [{title}], options {other.name} and {name}: both say the same thing; "
                    f"allowed: one of them."
                )
        return given

    def _value(self, option: Option, title: str, given: _Given) -> Any:
        """The value; when it is none, ``None`` and a problem."""
        found = given.found
        where = f"{found.origin}, section [{title}], option {given.name}"
        self.origins[title, option.name] = found.origin
        if option.secret and found.text and found.file is not None and not given.is_file:
            self._look_at(where, found.file)
        try:
            check_text(found.text)
            if given.is_file:
                return self._secret_in(Path(found.text), where)
            value = option.kind.parse(found.text)
        except ValueError as exc:
            # An address with "@" may hold a password that was put into the wrong option.
            hidden = option.secret or "@" in found.text
            shown = "a value that is not shown" if hidden else _shortened(repr(found.text))
            detail = f" ({_shortened(str(exc))})" if str(exc) else ""
            self.problems.append(f"{where}: found {shown}{detail}; allowed: {option.kind.allowed}.")
            return None
        if option.kind is KEY_FILE and value is not None and b"PRIVATE KEY-----" in value.read_bytes():
            self._look_at(where, value)
        return value

    def _look_at(self, where: str, file: Path) -> None:
        """A file with a secret in it: who else may read it, or write it."""
        if others_may_write(file):
            self.problems.append(f"{where}: everybody may write to {file}, which holds a secret.")
        elif others_may_read(file):
            self.warnings.append(f"{where}: everybody may read {file}, which holds a secret; chmod o= {file}")

    def _secret_in(self, path: Path, where: str) -> Secret:
        secret = Secret(file=path)
        try:
            secret()
            self._look_at(where, path)
        except ConfigurationError as exc:
            self.problems.append(f"{where}: {exc}")
        return secret


def suggest(word: str, allowed: Iterable[str]) -> str:
    """``did you mean ...?``, if something is close, and all that is allowed."""
    allowed = tuple(allowed)
    by_folded = {name.lower(): name for name in allowed}
    close = difflib.get_close_matches(word.lower(), by_folded, n=1)
    hint = f"did you mean {by_folded[close[0]]}? " if close else ""
    return f"{hint}Allowed: {', '.join(allowed)}."


def _quoted(text: str) -> str:
    """A title or a name that somebody wrote, as it can be printed."""
    return _shortened(repr(text)[1:-1])


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def _names(kind: type[Any]) -> dict[str, tuple[Option, bool]]:
    """All that may stand in a section: name -> (option, whether it is the ``_file`` form of a secret)."""
    names: dict[str, tuple[Option, bool]] = {}
    for option in options_of(kind):
        for name in (option.name, *option.aliases):
            names[name] = (option, False)
            if option.secret:
                names[f"{name}_file"] = (option, True)
    return names
