# SPDX-License-Identifier: Apache-2.0
"""Ways in over HTTP. They sit on the service, and nobody imports them but those who start it."""
