# SPDX-License-Identifier: Apache-2.0
"""From messages on the bus to UVEs, the records that Contrail's analytics shows and alarms on."""
