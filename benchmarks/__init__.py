# SPDX-License-Identifier: Apache-2.0
"""What the service costs, as ratios of two things that were measured in the same run: ``python -m benchmarks``.

Of this checkout, not of the package: nothing here is installed. docs/performance.md says how it is measured and keeps
the results of a full run.
"""
