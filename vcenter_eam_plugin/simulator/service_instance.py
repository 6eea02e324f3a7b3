# SPDX-License-Identifier: Apache-2.0
"""``vim.ServiceInstance``: the root that every client starts from, and ``vim.option.OptionManager``.

The option manager holds the one option that clients of sessions ask about, the idle limit.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any, ClassVar

from pyVmomi import vim, vmodl

from vcenter_eam_plugin.simulator.world import Call, ManagedObject, World, soap

SESSION_TIMEOUT = "config.vmacore.soap.sessionTimeout"
"""Name of the vCenter option that holds the idle limit of sessions, in seconds."""


class ServiceInstance(ManagedObject):
    """The service content, the server's clock, and what the server says it is."""

    vmodl: ClassVar[type] = vim.ServiceInstance

    def __init__(self, world: World, root_folder: Any, instance_uuid: str | None = None) -> None:
        super().__init__(world, "ServiceInstance")
        api_version = world.knobs.api_version
        release = ".".join(api_version.split(".")[:3])
        self.instance_uuid = instance_uuid or str(uuid.uuid4())
        about = vim.AboutInfo(
            name="VMware vCenter Server",
            fullName=f"VMware vCenter Server {release} build-00000000 (simulated)",
            vendor="VMware, Inc.",
            version=release,
            build="00000000",
            localeVersion="INTL",
            localeBuild="000",
            osType="linux-x64",
            productLineId="vpx",
            apiType="VirtualCenter",
            apiVersion=api_version,
            instanceUuid=self.instance_uuid,
            licenseProductName="VMware VirtualCenter Server",
            licenseProductVersion=release.split(".", maxsplit=1)[0] + ".0",
        )
        self.props["content"] = vim.ServiceInstanceContent(
            rootFolder=root_folder,
            propertyCollector=vmodl.query.PropertyCollector("propertyCollector"),
            viewManager=vim.view.ViewManager("ViewManager"),
            about=about,
            setting=vim.option.OptionManager("VpxSettings"),
            sessionManager=vim.SessionManager("SessionManager"),
            authorizationManager=vim.AuthorizationManager("AuthorizationManager"),
            eventManager=vim.event.EventManager("EventManager"),
            taskManager=vim.TaskManager("TaskManager"),
            extensionManager=vim.ExtensionManager("ExtensionManager"),
            searchIndex=vim.SearchIndex("SearchIndex"),
        )
        self.props["capability"] = vim.Capability(
            provisioningSupported=True, multiHostSupported=True, userShellAccessSupported=True
        )

    def prop_serverClock(self) -> dt.datetime:  # noqa: N802 - computed property of the API
        """Now."""
        return self.world.clock.now()

    @soap("RetrieveServiceContent")
    def retrieve_content(self, call: Call) -> Any:
        """Allowed without a login: it is how a client finds where to log in."""
        return self.props["content"]

    @soap("CurrentTime", privilege="System.View")
    def current_time(self, call: Call) -> dt.datetime:
        """Now, for those who are logged in."""
        return self.world.clock.now()


class OptionManager(ManagedObject):
    """Server settings: the session idle limit."""

    vmodl: ClassVar[type] = vim.option.OptionManager

    def __init__(self, world: World) -> None:
        super().__init__(world, "VpxSettings")

    def prop_setting(self) -> Any:
        """All options."""
        value = str(int(self.world.knobs.session_idle_seconds))
        return vim.option.OptionValue.Array([vim.option.OptionValue(key=SESSION_TIMEOUT, value=value)])

    @soap("QueryOptions")
    def query(self, call: Call, name: str = "") -> Any:
        """Options of that name, or below it (``config.``)."""
        found = [one for one in self.prop_setting() if one.key == name or not name or one.key.startswith(f"{name}.")]
        if not found:
            raise vim.fault.InvalidName(name=name, msg=f"There is no option {name}.")
        return vim.option.OptionValue.Array(found)

    @soap("UpdateOptions", privilege="Global.Settings")
    def update(self, call: Call, changedValue: Any) -> None:  # noqa: N803 - the API's name
        """Change the idle limit; any other name is an InvalidName."""
        for one in changedValue:
            if one.key != SESSION_TIMEOUT:
                raise vim.fault.InvalidName(name=one.key, msg=f"There is no option {one.key}.")
            self.world.knobs.session_idle_seconds = float(str(one.value).removesuffix("s"))
        self.touch("setting")
