# SPDX-License-Identifier: Apache-2.0
"""The operator command ``vcenter-eam``."""
