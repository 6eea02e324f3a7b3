# SPDX-License-Identifier: Apache-2.0
"""The servers that integration tests run against."""

from tests.support.vcenters import admin, simulator_vcenter, vcenter

__all__ = ["admin", "simulator_vcenter", "vcenter"]
