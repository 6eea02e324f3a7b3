# SPDX-License-Identifier: Apache-2.0
"""More than one instance: who leads (ZooKeeper, kazoo)."""
