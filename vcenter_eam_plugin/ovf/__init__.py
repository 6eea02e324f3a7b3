# SPDX-License-Identifier: Apache-2.0
"""The OVF package: where EAM fetches the ContrailVM from."""
