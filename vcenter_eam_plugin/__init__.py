# SPDX-License-Identifier: Apache-2.0
"""Keeps one healthy ContrailVM on every ESXi host through ESX Agent Manager, and tells Contrail about it."""

__version__ = "0.1.0"
