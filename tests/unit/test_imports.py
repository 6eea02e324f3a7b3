# SPDX-License-Identifier: Apache-2.0
"""Imports point inwards: the directions that docs/architecture.md draws, held by a test.

Each part names all that it may import, of the project and of libraries, so that a new module or dependency has to be
decided here. Since direct imports are checked for every part, indirect ones follow.
"""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "vcenter_eam_plugin"
ROOT = Path(__file__).parents[2] / PACKAGE

EDGES = ("vsphere", "eam", "bus", "cluster", "ovf")

ALLOWED_PARTS: dict[str, set[str]] = {
    "domain": {"domain"},
    "simulator": {"simulator"},
    **{edge: {edge, "domain", "turns"} for edge in EDGES},
    "analytics": {"analytics", "bus", "domain"},
    "turns": set(),
}
"""What the parts that have a rule of their own may import of the project."""

OUTER = {"cli", "web", "__main__", "plugin"}
"""Ways in: nobody imports them but each other."""

# The domain is pure: what a reader may find in it is named, and neither clock nor I/O is.
DOMAIN_LIBRARIES = {
    "__future__",
    "bisect",
    "collections",
    "dataclasses",
    "datetime",
    "difflib",
    "enum",
    "fnmatch",
    "functools",
    "hashlib",
    "heapq",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "msgspec",
    "operator",
    "re",
    "types",
    "typing",
    "uuid",
    "zlib",
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        dotted = ".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts))
        yield dotted.removesuffix(".__init__"), path


@functools.cache
def imports_of(path: Path) -> tuple[str, ...]:
    return tuple(_imports_of(path))


def _imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            yield node.module or ""
            # "from vcenter_eam_plugin import config" names a module, too.
            if node.module == PACKAGE:
                yield from (f"{PACKAGE}.{alias.name}" for alias in node.names if not alias.name.startswith("__"))


def part_of(dotted: str) -> str:
    """``vcenter_eam_plugin.bus.outbox`` -> ``bus``; the package itself -> nothing."""
    return dotted.split(".")[1] if "." in dotted else ""


def own_imports() -> Iterator[tuple[str, str]]:
    for module, path in modules():
        for imported in imports_of(path):
            if imported.split(".")[0] == PACKAGE and part_of(imported):
                yield module, imported


@pytest.mark.parametrize("part", ALLOWED_PARTS)
def test_part_imports_only_what_it_may(part: str) -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, imported in own_imports()
        if part_of(module) == part and part_of(imported) not in ALLOWED_PARTS[part]
    ]
    assert not wrong


def test_simulator_is_imported_by_the_command_line_alone() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, imported in own_imports()
        if part_of(imported) == "simulator" and part_of(module) not in {"simulator", "cli"}
    ]
    assert not wrong


def test_nobody_imports_the_ways_in() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, imported in own_imports()
        if part_of(imported) in OUTER and part_of(module) not in OUTER
    ]
    assert not wrong


def test_domain_uses_no_io_no_clock_and_no_library_of_an_edge() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, path in modules()
        if part_of(module) == "domain"
        for imported in imports_of(path)
        if imported.split(".")[0] not in DOMAIN_LIBRARIES | {PACKAGE}
    ]
    assert not wrong


def test_six_serves_at_the_text_boundary_and_nowhere_else() -> None:
    """The code is Python 3: of six, only ensure_text and ensure_binary have a place."""
    wrong = []
    for module, path in modules():
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "six"
                and node.attr not in {"ensure_text", "ensure_binary", "ensure_str"}
            ):
                wrong.append(f"{module}: six.{node.attr}")
    assert not wrong


def test_every_library_is_declared() -> None:
    """What is imported is in setup.py: a fresh machine gets all of it."""
    declared = (ROOT.parent / "setup.py").read_text("utf-8").lower()
    distributions = {
        "pyvim": "pyvmomi",
        "amqp": "kombu",
        "greenlet": "gevent",
        "yaml": "pyyaml",
        "werkzeug": "flask",
        "jinja2": "flask",
    }
    missing = set()
    for _, path in modules():
        for imported in imports_of(path):
            top = imported.split(".")[0].lower()
            if top in {PACKAGE, ""} or top in sys.stdlib_module_names or top == "__future__":
                continue
            if f'"{distributions.get(top, top)}>=' not in declared:
                missing.add(top)
    assert not missing


def test_every_declared_library_is_used() -> None:
    """And nothing else is: a host process has to live with whatever we ask for."""
    declared = set(re.findall(r'^    "([a-z]+)>=', (ROOT.parent / "setup.py").read_text("utf-8"), re.MULTILINE))
    names = {"pyvmomi": {"pyvmomi", "pyvim"}, "pyyaml": {"yaml"}}
    used = {imported.split(".")[0].lower() for _, path in modules() for imported in imports_of(path)}
    assert "gevent" in declared
    assert {name for name in declared if not names.get(name, {name}) & used} == set()


def test_the_daemon_leaves_out_what_an_idle_one_never_needs() -> None:
    """Memory: libraries for TLS trouble, packages, elections and tables cost as much again as the daemon's own code."""
    code = "from gevent import monkey; monkey.patch_all(); import vcenter_eam_plugin.__main__, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "pyVmomi" in loaded
    assert loaded & {"cryptography", "lxml", "kazoo", "rich", "stevedore"} == set()


def test_every_file_carries_the_licence() -> None:
    here = ROOT.parent
    files = [*ROOT.rglob("*.py"), *(here / "tests").rglob("*.py"), here / "setup.py"]
    assert [str(p) for p in files if not p.read_text("utf-8").startswith("# SPDX-License-Identifier: Apache-2.0")] == []
