# SPDX-License-Identifier: Apache-2.0
"""pyVmomi at the edge: session, inventory, events, host settings."""
