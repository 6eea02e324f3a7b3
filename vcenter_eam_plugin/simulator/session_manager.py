# SPDX-License-Identifier: Apache-2.0
"""Sessions of the simulated vCenter: ``vim.SessionManager`` and what belongs to one session.

A session is found by its cookie. Its property collectors, views and event collectors live and die with it, and
whoever waits in one of them is woken with ``NotAuthenticated`` when it ends. A session that made no call for the
idle limit is gone, as in vCenter; a call that is still waiting keeps it alive.

A vCenter extension logs in with its certificate, or with the password of its service account: its session bears the
extension's key as user name, and EAM tells extensions from users by it.

Not promised: single sign-on tokens, cloning of sessions, impersonation, login of an extension by its subject name.
"""

from __future__ import annotations

import dataclasses
import functools
import uuid
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from pyVmomi import vim, vmodl

from vcenter_eam_plugin.simulator.authorization import User, Users, require
from vcenter_eam_plugin.simulator.property_collector import DEFAULT_COLLECTOR, PropertyCollector, PropertyHub
from vcenter_eam_plugin.simulator.wire import Encoder
from vcenter_eam_plugin.simulator.world import Call, ManagedObject, World, soap

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.extension_manager import ExtensionManager


class WireCall(Call):
    """A call as it came over the wire: what the methods of sessions, collectors and views need beyond ``Call``.

    ``session`` is ``None`` before a login; a successful login leaves its session in ``opened``. ``effects`` names the
    faults by name that apply to this call and that only the method itself can act out. ``gone`` tells a method that
    waits whether its client still listens. ``told`` counts the object updates by type that the answer holds.
    """

    session: Session

    def __init__(
        self,
        session: Session | None,
        user: User,
        encoder: Encoder,
        address: str,
        agent: str,
        effects: frozenset[str] = frozenset(),
        gone: Callable[[], bool] = lambda: False,
        certificate: bytes | None = None,
        told: Counter[str] | None = None,
    ) -> None:
        super().__init__(user.name, encoder.version, session, functools.partial(require, user), address)
        self.encoder = encoder
        self.agent = agent
        self.effects = effects
        self.gone = gone
        self.certificate = certificate
        self.told = told if told is not None else Counter()
        self.opened: Session | None = None


class Session:
    """One login. ``key`` is what the API shows, ``cookie`` what the client must present and nobody else sees.

    ``extension`` is the key of the extension that logged in, ``None`` for a user; ``account`` whose privileges count,
    ``None`` for an extension that logged in with its certificate.
    """

    def __init__(
        self,
        manager: SessionManager,
        account: str | None,
        address: str,
        agent: str,
        locale: str,
        *,
        extension: str | None = None,
    ) -> None:
        self.manager = manager
        self.account = account
        self.extension = extension
        self.user_name = extension or account or ""
        self.key = str(uuid.uuid4())
        self.cookie = uuid.uuid4().hex + uuid.uuid4().hex[:8]
        self.address = address
        self.agent = agent
        self.locale = locale
        self.login_time = manager.world.clock.now()
        self.last_active = manager.world.clock.monotonic()
        self.last_active_time = self.login_time
        self.calls = 0
        self.in_progress = 0
        self.ended = False
        self.quiet = False
        """Whoever waits in it when it ends is not woken."""
        self.ghost = ""
        """It has ended and is not refused: the effect that its calls meet instead."""
        self.objects: dict[str, ManagedObject] = {}

    @property
    def is_extension(self) -> bool:
        """A vCenter extension logged in, and not a user."""
        return self.extension is not None

    def began(self) -> None:
        """A call of this session starts; while one is in progress the session does not idle out."""
        self.calls += 1
        self.in_progress += 1
        self._touch()

    def finished(self) -> None:
        """A call of this session is over."""
        self.in_progress -= 1
        self._touch()

    def _touch(self) -> None:
        self.last_active = self.manager.world.clock.monotonic()
        self.last_active_time = self.manager.world.clock.now()

    def new_moid(self) -> str:
        """Name for an object of this session, in vCenter's form; nobody can guess another session's."""
        return f"session[{self.key}]{uuid.uuid4()}"

    def adopt(self, obj: ManagedObject) -> None:
        """Make ``obj`` an object of this session; ``obj.dispose()`` is called once when it goes."""
        self.objects[obj.moid] = obj
        self.manager.world.add(obj)

    def drop(self, obj: ManagedObject) -> None:
        """Remove an object of this session."""
        if self.objects.pop(obj.moid, None) is not None:
            self.manager.world.remove(obj)
            obj.dispose()  # type: ignore[attr-defined] # every adopted class has it

    def find(self, ref: Any) -> ManagedObject | None:
        """The object behind a reference or moid as this session sees it: not the other sessions' objects."""
        moid = ref if isinstance(ref, str) else ref._moId
        own = self.objects.get(moid)
        if own is not None or moid.startswith("session["):
            return own
        return self.manager.world.objects.get(moid)

    def info(self) -> Any:
        """The ``vim.UserSession``."""
        return vim.UserSession(
            key=self.key,
            userName=self.user_name,
            fullName=self.account or self.user_name,
            loginTime=self.login_time,
            lastActiveTime=self.last_active_time,
            locale=self.locale,
            messageLocale=self.locale,
            extensionSession=self.is_extension,
            ipAddress=self.address,
            userAgent=self.agent,
            callCount=self.calls,
        )


class SessionManager(ManagedObject):
    """``vim.SessionManager``, and the table of sessions."""

    vmodl: ClassVar[type] = vim.SessionManager

    def __init__(self, world: World, users: Users, hub: PropertyHub) -> None:
        super().__init__(world, "SessionManager")
        self._users = users
        self._hub = hub
        self._by_cookie: dict[str, Session] = {}
        self.extensions: ExtensionManager | None = None
        self.most_active = 0
        """The most sessions that were alive at any one time."""
        self.props.update(supportedLocale=["en"], messageLocaleList=["en"], defaultLocale="en", message="")

    @property
    def active(self) -> list[Session]:
        """Sessions that are alive, oldest first."""
        self._expire()
        return [session for session in self._by_cookie.values() if not session.ghost]

    def by_cookie(self, cookie: str | None) -> Session | None:
        """The living session of a cookie value."""
        self._expire()
        return self._by_cookie.get(cookie) if cookie else None

    def user_of(self, key: str) -> User | None:
        """Who is logged in with the session of that key."""
        return next((self.user(one) for one in self.active if one.key == key), None)

    def user(self, session: Session) -> User:
        """The user of a session, with the privileges of now; who was removed has none, an extension has all."""
        name = session.user_name
        if session.account is None:
            known = self.extensions is not None and self.extensions.find_by_key(name) is not None
            return User(name, "", everything=known, extension=True)
        found = self._users.find(session.account) or User(session.account, "")
        return dataclasses.replace(found, name=name, extension=session.is_extension)

    def end(self, session: Session) -> None:
        """End a session with all that belongs to it."""
        if session.ended:
            return
        session.ended = True
        self._by_cookie.pop(session.cookie, None)
        for obj in tuple(session.objects.values()):
            session.drop(obj)

    def end_all(self, *, quiet: bool = False) -> None:
        """End every session, as a restart of vCenter does. ``quiet``: whoever waits is not told."""
        for session in tuple(self._by_cookie.values()):
            session.quiet = quiet
            self.end(session)

    def haunt_all(self, effect: str) -> None:
        """Every session ends, but its calls are answered with ``effect`` instead of a refusal, until it logs out."""
        for session in self._by_cookie.values():
            session.ghost = effect

    def _expire(self) -> None:
        limit = self.world.knobs.session_idle_seconds
        now = self.world.clock.monotonic()
        for session in tuple(self._by_cookie.values()):
            if not session.in_progress and now - session.last_active > limit:
                self.end(session)

    def property_for(self, session: Session | None, name: str) -> Any:
        """Properties that depend on who asks; others come from :meth:`get`."""
        if name == "currentSession":
            return session.info() if session is not None and not session.ghost else None
        if name == "sessionList":
            if session is None:
                return None
            return vim.UserSession.Array(one.info() for one in self.active)
        return self.get(name)

    def login(self, call: WireCall, name: str, password: str, locale: str) -> Session:
        """Check the password and open a session. Raises ``vim.fault.InvalidLogin``."""
        user = self._users.check(name, password)
        if user is None:
            self.world.post_event(vim.event.BadUsernameSessionEvent(userName=name, ipAddress=call.address))
            raise vim.fault.InvalidLogin(msg="Cannot complete login due to an incorrect user name or password.")
        extension = self.extensions.of_account(user.name) if self.extensions is not None else None
        return self._open(Session(self, user.name, call.address, call.agent, locale, extension=extension))

    def _open(self, session: Session) -> Session:
        # Every session has this one, all under the same name; it is not in the world, where names are unique.
        session.objects[DEFAULT_COLLECTOR] = PropertyCollector(self._hub, session, DEFAULT_COLLECTOR)
        self._by_cookie[session.cookie] = session
        self.most_active = max(self.most_active, len(self.active))
        self.world.post_event(
            vim.event.UserLoginSessionEvent(
                userName=session.user_name,
                ipAddress=session.address,
                userAgent=session.agent,
                locale=session.locale,
                sessionId=session.key,
                fullFormattedMessage=f"User {session.user_name}@{session.address} logged in",
            )
        )
        return session

    @soap("Login")
    def login_password(self, call: WireCall, userName: str, password: str, locale: str = "en") -> Any:  # noqa: N803
        """Log in by password; the dispatcher answers with the cookie of ``call.opened``."""
        if call.session is not None:
            raise vim.fault.InvalidLogin(msg="The session is already logged in.")
        call.opened = self.login(call, userName, password, locale)
        return call.opened.info()

    @soap("LoginExtensionByCertificate")
    def login_extension_by_certificate(self, call: WireCall, extensionKey: str, locale: str = "en") -> Any:  # noqa: N803
        """Log in as an extension with the certificate that was set for it."""
        if call.session is not None:
            raise vim.fault.InvalidLogin(msg="The session is already logged in.")
        if call.certificate is None:
            raise vim.fault.NoClientCertificate(msg="The client did not present a certificate.")
        if self.extensions is None or not self.extensions.is_certificate_of(extensionKey, call.certificate):
            self.world.post_event(vim.event.BadUsernameSessionEvent(userName=extensionKey, ipAddress=call.address))
            raise vim.fault.InvalidLogin(msg="Cannot complete login: the certificate is not that of the extension.")
        call.opened = self._open(Session(self, None, call.address, call.agent, locale, extension=extensionKey))
        return call.opened.info()

    @soap("Logout")
    def logout(self, call: WireCall) -> None:
        """End the caller's session."""
        session = call.session
        self.world.post_event(
            vim.event.UserLogoutSessionEvent(
                userName=session.user_name,
                ipAddress=session.address,
                userAgent=session.agent,
                callCount=session.calls,
                sessionId=session.key,
                loginTime=session.login_time,
                fullFormattedMessage=f"User {session.user_name}@{session.address} logged out",
            )
        )
        self.end(session)

    @soap("TerminateSession", privilege="Sessions.TerminateSession")
    def terminate(self, call: WireCall, sessionId: Any) -> None:  # noqa: N803 - the API's name
        """End other sessions by key; one's own is an InvalidArgument, an unknown one NotFound, as documented."""
        known = {session.key: session for session in self.active}
        for key in sessionId:
            if key == call.session.key:
                raise vmodl.fault.InvalidArgument(invalidProperty="sessionId", msg="A session cannot terminate itself.")
            if key not in known:
                raise vim.fault.NotFound(msg=f"There is no session {key}.")
        for key in sessionId:
            self.end(known[key])

    @soap("SessionIsActive", privilege="Sessions.ValidateSession")
    def session_is_active(self, call: WireCall, sessionID: str, userName: str) -> bool:  # noqa: N803 - the API's names
        """Whether the session of that key and user is alive."""
        return any(
            session.key == sessionID and session.user_name.lower() == userName.lower() for session in self.active
        )
