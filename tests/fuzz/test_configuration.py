# SPDX-License-Identifier: Apache-2.0
"""Configuration: whatever the bytes of files and environment, settings or a ConfigurationError. Nothing else."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.generate import damaged, in_time, one_sentence
from vcenter_eam_plugin import config
from vcenter_eam_plugin.config import ENVIRONMENT_PREFIX, SECTIONS, Configuration
from vcenter_eam_plugin.config_text import in_force
from vcenter_eam_plugin.domain.errors import ConfigurationError
from vcenter_eam_plugin.options import options_of

SECRET = "correct-horse-battery"
GOOD = f"""
[DEFAULTS]
state_directory=/var/lib/x
log_level=SYS_INFO
[VCENTER]
vc_host=vcenter.example
vc_username=svc@vsphere.local
vc_password={SECRET}
[EAM]
clusters=
    /DC0/host/A
    B
mode=act
ovf_properties=
    a=1
    b=2
[RABBIT]
rabbit_hosts=10.0.0.1, [::1]:5671
""".encode()
TWO = f"""
[VCENTER]
vc_username=svc
vc_password={SECRET}
[VCENTER:one]
vc_host=one.example
[VCENTER:two]
vc_host=two.example
[EAM]
clusters=A
[EAM:two]
mode=act
[ZOOKEEPER]
zookeeper_servers=zk1:2181 zk2
""".encode()

NAMES = sorted(
    {name for kind in SECTIONS.values() for option in options_of(kind) for name in (option.name, *option.aliases)}
)
TITLES = st.sampled_from([*SECTIONS, "VCENTER:one", "EAM:one", "VCENTER:../../x", "VCENTER:", "EAM: ", "default", "\0"])
VALUES = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "", "0", "-1", "65536", "9" * 5000, "1e400", "nan", "inf", "true", "/", "/dev/null", "/x\0y",
            "http://[::1", "http://u:p@h/", "https://h:99999", "[::1]:1", "a@b", "{host", "{host!r:{x}}", "{0}", "a=b",
            "\ud800", "\N{ARABIC-INDIC DIGIT FIVE}", "x" * 3000, "a\nb", ",,,", "=", "%(x)s", "aa:" * 31 + "aa",
        ]
    ),
)  # fmt: skip
OPTIONS = st.sampled_from([*NAMES, "vc_password_file", "rabbit_password_file", "nonsense", ""])


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """Sections and options that there are, with values that may be anything."""
    lines: list[str] = []
    for title in draw(st.lists(TITLES, min_size=1, max_size=6)):
        lines.append(f"[{title}]")
        for name, value in draw(st.lists(st.tuples(OPTIONS, VALUES), max_size=5)):
            lines.append(f"{name} = {value}")
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def read(directory: Path, *contents: bytes, environ: dict[str, str] | None = None) -> Configuration | None:
    """The settings, or ``None`` when a ConfigurationError said why not; no secret is in what is shown."""
    paths = [directory / f"{number}.conf" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    with in_time(contents):
        try:
            found = config.load(paths, environ or {})
        except ConfigurationError as exc:
            text = one_sentence(exc, most=200_000)
            assert text.encode()  # can be printed and logged
            if SECRET.encode() in b"".join(contents):
                assert SECRET not in text
            return None
        shown = in_force(found)
    assert shown.encode()
    assert SECRET not in shown
    return found


def usable(found: Configuration) -> None:
    """What a service does with it first must not fail in a way of its own."""
    for unit in found.vcenters:
        assert (found.defaults.state_directory / f"{unit.name}.pause.json").parent == found.defaults.state_directory
        assert not (found.defaults.state_directory / f"{unit.name}.pause.json").exists()
        unit.vcenter.vc_password().encode()
        unit.vcenter.vc_host.encode()


@given(
    content=damaged(
        GOOD, TWO, telling=(b"[", b"]", b"=", b"\t", b"[VCENTER:x]\n", b"_file=/dev/null\n", SECRET.encode())
    )
)
@example(content=GOOD)
@example(content=b"[\0]\na=1\n" + GOOD)
@example(content=GOOD.replace(b"vc_password=", b"vc_password_file=/x\0"))
@example(content=GOOD.replace(b"/var/lib/x", b"/var/\0lib"))
@example(content=TWO.replace(b":two]", b":../../two]"))
@example(content=TWO.replace(b":two]", b":" + b"t" * 300 + b"]"))
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    found = read(tmp_path, content)
    if found is not None:
        usable(found)


@given(contents=st.lists(written(), min_size=1, max_size=3))
def test_any_values_of_known_options(tmp_path: Path, contents: list[bytes]) -> None:
    found = read(tmp_path, *contents)
    if found is not None:
        usable(found)


VARIABLES = st.dictionaries(
    st.builds(
        lambda title, name: f"{ENVIRONMENT_PREFIX}{title.replace(':', '__')}__{name}".replace("\0", "_"),
        TITLES,
        st.sampled_from(NAMES) | st.text(st.characters(exclude_characters="=\0"), max_size=12),
    ),
    VALUES.filter(lambda text: "\0" not in text),
    max_size=8,
)


@given(environ=VARIABLES)
@example(environ={f"{ENVIRONMENT_PREFIX}VCENTER__vc_host": "\udcff"})
@example(environ={f"{ENVIRONMENT_PREFIX}VCENTER__vc_password": "\udcff"})
@example(environ={f"{ENVIRONMENT_PREFIX}VCENTER__a/b__vc_host": "x", f"{ENVIRONMENT_PREFIX}EAM__clusters": "A"})
def test_any_environment(tmp_path: Path, environ: dict[str, str]) -> None:
    """Also bytes that are no text: Python hands those over as lone surrogates."""
    found = read(tmp_path, GOOD, environ=environ)
    if found is not None:
        usable(found)


def test_many_mistakes_are_told_in_bounded_time_and_space(tmp_path: Path) -> None:
    """A file of another program, or one whose end is missing: thousands of unknown options."""
    lines = b"".join(b"option_%d_of_another_program = x\n" % number for number in range(20_000))
    assert read(tmp_path, GOOD + lines) is None
