# SPDX-License-Identifier: Apache-2.0
"""The ESX Agent Manager endpoint: what it says about agencies and agents, and what we ask of it."""
