# SPDX-License-Identifier: Apache-2.0
"""What an installation needs, looked at before it is relied on: ``vcenter-eam check``.

Each thing is a finding: it passes, it warns, it fails with what to do, or it could not be looked at for the failure of
another. Nothing is changed anywhere: no agency, no queue, no mark; the session is logged out again.
"""
