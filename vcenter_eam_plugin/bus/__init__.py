# SPDX-License-Identifier: Apache-2.0
"""Delivery: the outbox, the publisher and the consumer library."""
