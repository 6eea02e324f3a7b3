# SPDX-License-Identifier: Apache-2.0
"""What agencies and agents have in common: a colour, issues, and the operations on issues.

``Resolve`` answers with the keys that it did *not* find or cannot resolve at present, and returns at once; the work
goes on afterwards (ESX Agent Manager API reference).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pyVmomi import eam

from vcenter_eam_plugin.simulator.eam_issues import Issue
from vcenter_eam_plugin.simulator.managed_entity import writes
from vcenter_eam_plugin.simulator.property_paths import read
from vcenter_eam_plugin.simulator.world import Call, ManagedObject, World, soap

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.esx_agent_manager import EsxAgentManager


class EamObject(ManagedObject):
    """``eam.EamObject``."""

    vmodl: ClassVar[type] = eam.EamObject

    def __init__(self, world: World, moid: str, manager: EsxAgentManager) -> None:
        super().__init__(world, moid)
        self.manager = manager
        self.parent = manager
        self.issues: dict[int, Issue] = {}
        self.status = "green"

    def holders(self) -> Iterable[EamObject]:
        """The objects whose issues this one shows: itself, and for an agency its agents."""
        return (self,)

    def require_visible(self, call: Call) -> None:
        """Raise ``NotAuthorized`` when the caller may not know of it."""
        self.require_visible_to(call.session, call.user)

    def require_visible_to(self, session: Any, user: str) -> None:
        """The same for a session and its user."""

    def property_for(self, session: Any, name: str) -> Any:
        """A property as a session reads it."""
        if session is not None:
            self.require_visible_to(session, session.user_name)
        return read(self, name)

    def issue_value(self, issue: Issue) -> Any:
        """The pyVmomi form of one of its own issues."""
        raise NotImplementedError

    def resolve_one(self, issue: Issue) -> bool:
        """Begin to remedy one of its own issues; False when it cannot be remedied at present."""
        raise NotImplementedError

    def issue_values(self, keys: Sequence[int] | None = None) -> Any:
        """The issues it shows, all or those of the given keys."""
        wanted = set(keys) if keys is not None else None
        values = []
        for holder in self.holders():
            if holder.issues:
                self.manager.file_again(holder)
                values += [
                    holder.issue_value(issue)
                    for issue in holder.issues.values()
                    if wanted is None or issue.key in wanted
                ]
        return eam.issue.Issue.Array(values)

    @soap("QueryIssue", "EAM.View")
    def query_issue(self, call: Call, issueKey: Sequence[int] | None = None) -> Any:  # noqa: N803 - the API's name
        """All issues, or those of the given keys that there are."""
        self.require_visible(call)
        return self.issue_values(issueKey or None)

    @writes("Resolve", "EAM.Modify")
    def resolve(self, call: Call, issueKey: Sequence[int]) -> Any:  # noqa: N803 - the API's name
        """Begin to remedy the issues of the given keys; answers with the keys that nothing was begun for."""
        self.require_visible(call)
        return self._resolve(call.user, list(issueKey))

    @writes("ResolveAll", "EAM.Modify")
    def resolve_all(self, call: Call) -> None:
        """The same for every issue it shows."""
        self.require_visible(call)
        self._resolve(call.user, [key for holder in self.holders() for key in holder.issues])

    def _resolve(self, user: str, keys: list[int]) -> list[int]:
        left = dict.fromkeys(keys)
        for holder in tuple(self.holders()):
            for key, issue in tuple(holder.issues.items()):
                if key in left and holder.resolve_one(issue):
                    del left[key]
                    self.world.journal.add("eam", action="resolve", user=user, type=issue.type, object=holder.moid)
        return list(left)
