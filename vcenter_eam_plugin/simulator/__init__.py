# SPDX-License-Identifier: Apache-2.0
"""A vCenter with ESX Agent Manager that speaks real SOAP: for the demo, the tests, and tests of your own."""
