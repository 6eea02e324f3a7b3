# SPDX-License-Identifier: Apache-2.0
"""The pure core: what is known, what it means, what to do. No I/O, no clock, no library of an edge."""
