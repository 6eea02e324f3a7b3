# SPDX-License-Identifier: Apache-2.0
"""Which privileges the login lacks, asked before something is tried.

Not promised: that EAM agrees. On which object it checks EAM.View and EAM.Modify is not documented; the root folder is
where an account should have them, with propagation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vcenter_eam_plugin.domain.errors import PrivilegeMissing
from vcenter_eam_plugin.vsphere.session import Session


def require(session: Session, privileges: Sequence[str]) -> None:
    """Raise PrivilegeMissing unless the session has all of them on the root folder. An extension may do everything."""
    if session.is_extension:
        return
    missing = [name for name, has in granted(session, privileges).items() if not has]
    if missing:
        who = session.settings.principal
        raise PrivilegeMissing(
            f"{session.name}: the account {who!r} lacks {', '.join(missing)} on the root folder.",
            remedy="Add it to the account's role there, with propagation.",
        )


def granted(session: Session, privileges: Sequence[str]) -> Mapping[str, bool]:
    """Of each privilege, whether the session has it on the root folder, as vCenter's AuthorizationManager tells."""
    content = session.content
    answer = session.call(
        content.authorizationManager.HasPrivilegeOnEntities, [content.rootFolder], session.key, list(privileges)
    )
    has = {each.privId: bool(each.isGranted) for entity in answer for each in entity.privAvailability}
    return {name: has.get(name, False) for name in privileges}
