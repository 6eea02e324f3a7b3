# SPDX-License-Identifier: Apache-2.0
"""All metadata of the distribution. Tool settings are in ``pyproject.toml``; why each dependency: ``docs/adr``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# Read as text: importing the package here would need its dependencies before they are installed.
VERSION = re.search(r'^__version__ = "([^"]+)"', (HERE / "vcenter_eam_plugin/__init__.py").read_text("utf-8"), re.M)[1]

# Lower bounds are the oldest releases that the tests were run with; no upper bounds, so that a host process can choose.
REQUIRES = [
    "gevent>=25.4",  # greenlets: the way of every Python service of Contrail
    "pyvmomi>=9.0",  # vSphere and EAM types and SOAP; the first releases with both in one distribution
    "kombu>=5.5",  # the message bus, as Contrail uses it
    "six>=1.16",  # the text/bytes boundary: values handed over by a host process, cookies, message bodies
    "msgspec>=0.19",  # messages: frozen structs, fast JSON, JSON Schema from the same definition
    "click>=8.2",  # the command line
    "rich>=13.9",  # its tables and the demo's live view
    "flask>=3.1",  # the JSON API that commands use, and the status page; docs/adr/0017, 0031
    "psutil>=6.0",  # memory that the demo's summary reports
    "cryptography>=43",  # certificates: the simulator's own, and the subject named when one is refused
    "lxml>=5.3",  # the OVF descriptor and the introspect's XML, read without external entities
    "pyyaml>=6.0",  # the host specification file, whose errors name their line
    "prometheus_client>=0.21",  # /metrics; docs/adr/0032
    "kazoo>=2.10",  # leader election through ZooKeeper; docs/adr/0021
]

EXTRAS = {
    "test": [
        "pytest>=9.0",
        "pytest-timeout>=2.4",
        "hypothesis>=6.140",
        "trustme>=1.2",
        "schemathesis>=4.0",  # asks the API all that its OpenAPI document allows and forbids; docs/adr/0032
        "jsonschema>=4.23",
        "setuptools>=77",  # the tests read setup.py
        "stevedore>=5.4",  # the tests play a host process that loads plugins as Contrail's services do
    ],
    "browser": [
        "playwright>=1.49",  # drives a Chromium that is installed already; no browser is downloaded
        "axe-playwright-python>=0.1.4",  # carries axe-core, which knows the rules of accessibility
    ],
    "package": [
        "build>=1.2",  # makes the wheel and the sdist that are checked
        "twine>=6.0",  # checks their metadata as an index would
    ],
    "lint": [
        "ruff>=0.9",
        "mypy>=1.14",
    ],
}

setup(
    name="contrail-vcenter-eam-plugin",
    version=VERSION,
    description="Keeps one healthy ContrailVM on every ESXi host through VMware ESX Agent Manager",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["contrail", "tungsten fabric", "vsphere", "vcenter", "esx agent manager", "eam", "vrouter"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: No Input/Output (Daemon)",
        "Environment :: Console",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Networking",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",  # the floor of stevedore's current release; docs/adr/0002
    packages=find_packages(include=["vcenter_eam_plugin", "vcenter_eam_plugin.*"]),
    package_data={
        "vcenter_eam_plugin": ["py.typed", "web/templates/*.html", "web/static/*"],
        "vcenter_eam_plugin.analytics": ["*.sandesh"],
    },
    # Beside the package, below the prefix: what an installation copies to its place.
    data_files=[
        ("share/man/man1", ["etc/man/vcenter-eam.1"]),
        ("share/man/man8", ["etc/man/contrail-vcenter-eam-plugin.8"]),
        ("share/contrail-vcenter-eam-plugin", ["etc/vcenter_eam.conf", "etc/contrail-vcenter-eam-plugin.service"]),
        ("share/contrail-vcenter-eam-plugin/prometheus", ["etc/prometheus/alerts.yml"]),
        ("share/contrail-vcenter-eam-plugin/grafana", ["etc/grafana/dashboard.json"]),
        ("share/contrail-vcenter-eam-plugin/samples", sorted(str(p) for p in Path("etc/samples").glob("*.conf"))),
        ("share/contrail-vcenter-eam-plugin/alarms", sorted(str(p) for p in Path("etc/alarms").glob("*.json"))),
    ],
    zip_safe=False,
    install_requires=REQUIRES,
    extras_require={**EXTRAS, "dev": [*EXTRAS["test"], *EXTRAS["lint"], "tox>=4.23"]},
    entry_points={
        "console_scripts": [
            "contrail-vcenter-eam-plugin = vcenter_eam_plugin.__main__:server_main",
            "vcenter-eam = vcenter_eam_plugin.cli.main:main",
        ],
        "contrail.vcenter.plugins": ["eam = vcenter_eam_plugin.plugin:EamPlugin"],
    },
)
