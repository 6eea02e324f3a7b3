# SPDX-License-Identifier: Apache-2.0
"""Patches the standard library before anything else is imported, as every host process of the plugin does.

Loaded with ``-p`` from the pytest configuration: a conftest would come too late for modules that plugins import.
"""

from gevent import monkey

monkey.patch_all()
