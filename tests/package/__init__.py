# SPDX-License-Identifier: Apache-2.0
"""The distribution as its users get it. Imports nothing of the checkout: what is tested is what was installed."""
