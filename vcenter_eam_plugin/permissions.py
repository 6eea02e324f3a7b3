# SPDX-License-Identifier: Apache-2.0
"""What other users of this machine can do with our files.

Looks at modes and at the way to a file, and not at access control lists. A group is trusted: who is in it was decided.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vcenter_eam_plugin.domain.errors import ConfigurationError


def others_may_read(path: Path) -> bool:
    """Whether every user may read this file. Raises OSError when it is not there."""
    return _others_may(path, stat.S_IROTH)


def others_may_write(path: Path) -> bool:
    """Whether every user may write to this file. Devices such as /dev/null are no files. Raises OSError."""
    return _others_may(path, stat.S_IWOTH)


def _others_may(path: Path, bit: int) -> bool:
    resolved = path.resolve(strict=True)
    mode = resolved.stat().st_mode
    if not stat.S_ISREG(mode) or not mode & bit:
        return False
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in resolved.parents)


def own_directory(path: Path) -> Path:
    """The state directory, made if need be: ours and for nobody else, since it tells the whole fleet's state.

    One that others could enter is closed. Raises ConfigurationError for one that others own or could exchange: who can
    put a file there speaks in our name.
    """
    where = f"Section [DEFAULTS], option state_directory: {path}"
    try:
        for parent in reversed(path.parents):
            parent.mkdir(mode=0o755, exist_ok=True)  # one by one: "parents" would make them by the umask alone
        path.mkdir(mode=0o700, exist_ok=True)
        about = path.stat()
    except OSError as exc:
        raise ConfigurationError(
            f"{where} cannot be made: {exc.strerror}.", remedy="Make it, owned by the user of this service."
        ) from exc
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"{where} is not writable for this user.", remedy="Give it to the user of this service, or name another."
        )
    if about.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{where} belongs to another user (uid {about.st_uid}) than this service (uid {os.geteuid()}).",
            remedy="Give it to the user of this service, or name another.",
        )
    if about.st_mode & stat.S_IWOTH:
        # Not mended like the rest: what is in it may be anybody's by now.
        raise ConfigurationError(
            f"{where}: everybody may write to it.", remedy=f"Look at what is in it, then chmod 700 {path}"
        )
    for parent in path.resolve().parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise ConfigurationError(
                f"{where}: everybody may put another directory in its place, because they may write to {parent}.",
                remedy=f"chmod o-w {parent}",
            )
    if about.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        path.chmod(0o700)
    return path


def open_private(path: Path) -> int:
    """A descriptor to write a file anew, for us alone (0600); a link in its place is refused. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # it may be an earlier one, from before this was looked at
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
