# SPDX-License-Identifier: Apache-2.0
"""Users, their privileges, and the ``vim.AuthorizationManager`` that tells them.

Privileges are per user and hold on every object. ``System.Anonymous``, ``System.View`` and ``System.Read`` come with
any user, unless it is created with ``read=False``; ``EAM.Modify`` implies ``EAM.View``. Names compare without regard to
case, because the EAM reference writes ``Eam.View`` where vCenter's list has ``EAM.View``.

Not promised: roles, permissions per object, propagation, groups.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal

from pyVmomi import eam, vim

from vcenter_eam_plugin.simulator.world import Call, ManagedObject, World, soap

_ANYBODY = frozenset({"system.anonymous", "system.view"})
_READ = "system.read"
_IMPLIED = {"eam.modify": "eam.view"}


@dataclass(frozen=True)
class User:
    """A login. ``privileges`` are lower-case names; ``everything`` stands for all there are."""

    name: str
    password: str = field(repr=False)
    privileges: frozenset[str] = frozenset()
    everything: bool = False
    extension: bool = False

    def has(self, privilege: str) -> bool:
        """Whether the user holds the privilege, by itself or by implication."""
        return self.everything or privilege.lower() in self.privileges


class Users:
    """The identity source: who may log in and what each may do."""

    def __init__(self) -> None:
        self._by_name: dict[str, User] = {}

    def add(self, name: str, password: str, privileges: Iterable[str] | Literal["all"], *, read: bool = True) -> User:
        """Create or replace a user; sessions that are open see the new privileges at once."""
        if privileges == "all":
            user = User(name, password, everything=True)
        else:
            held = {privilege.lower() for privilege in privileges} | _ANYBODY | ({_READ} if read else set())
            held |= {implied for one, implied in _IMPLIED.items() if one in held}
            user = User(name, password, frozenset(held))
        self._by_name[name.lower()] = user
        return user

    def find(self, name: str) -> User | None:
        """The user of that login name (case does not matter), or ``None``."""
        return self._by_name.get(name.lower())

    def check(self, name: str, password: str) -> User | None:
        """The user if the password is right."""
        user = self.find(name)
        if user is None or not hmac.compare_digest(user.password.encode(), password.encode()):
            return None
        return user


def require(user: User, privilege: str, obj: ManagedObject) -> None:
    """Raise the endpoint's fault when ``user`` lacks ``privilege``: vCenter's names both, EAM's names nothing."""
    if user.has(privilege):
        return
    if obj.vmodl.__name__.startswith("eam."):
        raise eam.fault.NotAuthorized(msg="The user is not authorized to perform this operation.")
    raise vim.fault.NoPermission(
        object=obj.ref, privilegeId=privilege, msg="Permission to perform this operation was denied."
    )


@cache
def reading(kind: type) -> str:
    """The privilege that reading properties of a type demands (vSphere and ESX Agent Manager API references)."""
    if kind.__name__.startswith("eam."):
        return "EAM.View"
    if kind in (vim.ServiceInstance, vim.SessionManager):
        return "System.Anonymous"
    return "Host.Config.Settings" if kind is vim.host.EsxAgentHostManager else "System.Read"


class AuthorizationManager(ManagedObject):
    """``vim.AuthorizationManager``: what a client may ask before it tries."""

    vmodl: ClassVar[type] = vim.AuthorizationManager

    def __init__(self, world: World, users: Users) -> None:
        super().__init__(world, "AuthorizationManager")
        self._users = users
        self.props.update(
            privilegeList=vim.AuthorizationManager.Privilege.Array(),
            roleList=vim.AuthorizationManager.Role.Array(),
            description=vim.AuthorizationDescription(),
        )

    @soap("HasPrivilegeOnEntities")
    def has_privilege_on_entities(
        self,
        call: Call,
        entity: Any,
        sessionId: str,  # noqa: N803 - the API's names
        privId: Any = (),  # noqa: N803
    ) -> Any:
        """For each entity, which of the privileges the session's user has."""
        user = call.session.manager.user_of(sessionId)
        return self._answer(user, entity, privId)

    @soap("HasUserPrivilegeOnEntities")
    def has_user_privilege_on_entities(
        self,
        call: Call,
        entities: Any,
        userName: str,  # noqa: N803 - the API's names
        privId: Any = (),  # noqa: N803
    ) -> Any:
        """The same by user name."""
        return self._answer(self._users.find(userName), entities, privId)

    @soap("FetchUserPrivilegeOnEntities")
    def fetch_user_privilege_on_entities(self, call: Call, entities: Any, userName: str) -> Any:  # noqa: N803
        """All privileges of a user on each entity; of an administrator those that this simulator checks."""
        user = self._users.find(userName)
        names = sorted(CHECKED) if user is None or user.everything else [p for p in sorted(CHECKED) if user.has(p)]
        return vim.AuthorizationManager.UserPrivilegeResult.Array(
            vim.AuthorizationManager.UserPrivilegeResult(entity=one, privileges=names if user else [])
            for one in entities
        )

    @staticmethod
    def _answer(user: User | None, entities: Any, privileges: Iterable[str]) -> Any:
        kind = vim.AuthorizationManager.EntityPrivilege
        return kind.Array(
            kind(
                entity=entity,
                privAvailability=[
                    vim.AuthorizationManager.PrivilegeAvailability(
                        privId=one, isGranted=user is not None and user.has(one)
                    )
                    for one in privileges
                ],
            )
            for entity in entities
        )


CHECKED: set[str] = {"System.Anonymous", "System.View", "System.Read"}
"""Every privilege that some method of the simulator demands; the dispatcher adds those it finds on the methods."""
