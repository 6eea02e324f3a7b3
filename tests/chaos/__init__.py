# SPDX-License-Identifier: Apache-2.0
"""The chaos rig: whole daemons, real servers, faults by seed, and checkers over what was recorded."""
