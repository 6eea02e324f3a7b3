# SPDX-License-Identifier: Apache-2.0
"""S02: one login, its cookie shared with EAM, and a session that survives what ends sessions. Against both servers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from pyVmomi import eam, vim

from tests.support.vcenters import Admin, VCenter, wait_for
from vcenter_eam_plugin.domain.errors import (
    CertificateRejected,
    ConfigurationError,
    LoginRefused,
    SessionExpired,
    Unavailable,
)
from vcenter_eam_plugin.simulator.knobs import Knobs
from vcenter_eam_plugin.simulator.server import Simulator
from vcenter_eam_plugin.vsphere import session as module
from vcenter_eam_plugin.vsphere.session import Session, SessionSettings


def agencies(session: Session) -> int:
    """Ask EAM something, with the vCenter session's cookie."""
    return len(session.call(eam.EsxAgentManager("EsxAgentManager", session.eam_stub()).QueryAgency))


def server_time(session: Session) -> object:
    return session.call(_instance(session).CurrentTime)


def _instance(session: Session) -> Any:
    return vim.ServiceInstance("ServiceInstance", session.vim_stub())


def test_s02_one_login_serves_vcenter_and_eam(vcenter: VCenter, admin: Admin) -> None:
    """S02: log in once, use the cookie at both endpoints, log out at the end."""
    before = admin.session_count()
    with vcenter.session() as session:
        assert session.instance_uuid
        assert session.alive()
        assert agencies(session) == 0
        assert server_time(session) is not None
        assert session.generation == 1
        assert admin.session_count() == before + 1
    wait_for(lambda: admin.session_count() == before, "the logout")


def test_s02_expired_session_is_renewed_for_vcenter_and_eam(vcenter: VCenter, admin: Admin) -> None:
    """S02: an ended session is noticed by whoever calls next, and the new cookie reaches EAM too."""
    with vcenter.session() as session:
        cookie = session.cookie
        admin.kill_sessions_but_own()
        assert not session.alive()
        assert agencies(session) == 0
        assert session.generation == 2
        assert session.cookie != cookie
        assert session.alive()
        assert server_time(session) is not None


def test_p10_many_greenlets_share_one_new_login(vcenter: VCenter, admin: Admin) -> None:
    """P10, bug of other integrations: each caller that met an expired session logged in by itself."""
    before = admin.session_count()
    with vcenter.session() as session:
        admin.kill_sessions_but_own()
        callers = [gevent.spawn(agencies, session) for _ in range(10)]
        gevent.joinall(callers, raise_error=True)
        assert session.generation == 2
        assert admin.session_count() == before + 1


def test_call_may_refuse_to_renew(vcenter: VCenter, admin: Admin) -> None:
    """Whoever owns server-side objects must hear of the end of the session instead of losing them silently."""
    with vcenter.session() as session:
        admin.kill_sessions_but_own()
        with pytest.raises(SessionExpired):
            session.call(_instance(session).CurrentTime, renew=False)
        assert session.generation == 1
        session.keep_alive()
        assert session.generation == 2


def test_wrong_password_is_one_sentence_and_is_not_repeated(vcenter: VCenter) -> None:
    """Bad input: who was refused where; and the same password is not offered again, so no account gets locked."""
    now = [100.0]
    with vcenter.proxy() as proxy:
        settings = vcenter.settings(port=proxy.port, password=lambda: "wrong")
        session = Session(settings, clock=lambda: now[0])
        with pytest.raises(LoginRefused) as caught:
            session.open()
        assert vcenter.user in str(caught.value)
        assert "wrong" not in str(caught.value)
        assert caught.value.exit_code == 3
        offered = proxy.accepted
        with pytest.raises(LoginRefused):
            session.open()
        assert proxy.accepted == offered
        now[0] += module.REFUSED_SECONDS + 1
        with pytest.raises(LoginRefused):
            session.open()
        assert proxy.accepted > offered


def test_corrected_password_is_used_at_once(vcenter: VCenter) -> None:
    """A rotated secret: the next login reads it anew, and the wait after a refusal does not apply to another one."""
    secrets = iter(["wrong", vcenter.password])
    session = Session(vcenter.settings(password=lambda: next(secrets)))
    with pytest.raises(LoginRefused):
        session.open()
    session.open()
    assert session.alive()
    session.close()


def test_untrusted_certificate_is_described(vcenter: VCenter) -> None:
    """Bad input: the sentence gives thumbprint and subject, so that a person can decide."""
    session = Session(vcenter.settings(ca_file=None))
    with pytest.raises(CertificateRejected) as caught:
        session.open()
    assert vcenter.thumbprint.upper() in str(caught.value).upper()
    assert "subject" in str(caught.value)
    assert caught.value.exit_code == 4


def test_pinned_thumbprint_is_trusted_and_another_is_not(vcenter: VCenter) -> None:
    with vcenter.session(ca_file=None, thumbprint=vcenter.thumbprint) as session:
        assert session.alive()
    with pytest.raises(CertificateRejected, match="another certificate"):
        Session(vcenter.settings(ca_file=None, thumbprint="00" * 32)).open()


def test_thumbprint_is_checked_also_when_an_authority_vouches(vcenter: VCenter) -> None:
    """pyVmomi looks at a thumbprint only when the authority is unknown; a pinned one must hold in any case."""
    with pytest.raises(CertificateRejected, match="another certificate"):
        Session(vcenter.settings(thumbprint="00" * 32)).open()


def test_unreadable_ca_file_is_named(vcenter: VCenter) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.pem"):
        Session(vcenter.settings(ca_file="missing.pem")).open()


def test_connection_that_the_server_closed_while_idle_goes_unnoticed(vcenter: VCenter) -> None:
    """Measured bug: the first call on a stale pooled connection fails though the server is well."""
    with vcenter.proxy() as proxy, vcenter.session(port=proxy.port) as session:
        assert session.alive()
        proxy.cut()
        wait_for(lambda: proxy.connections == 0, "the cut")
        assert session.alive()
        assert session.generation == 1


def test_write_starts_on_a_fresh_connection(vcenter: VCenter) -> None:
    """A write on a stale connection could neither be repeated nor be trusted to have failed."""
    with vcenter.proxy() as proxy, vcenter.session(port=proxy.port) as session:
        assert session.alive()
        before = proxy.accepted
        proxy.cut()
        session.call(_instance(session).CurrentTime, idempotent=False)
        assert proxy.accepted == before + 1


def test_dead_peer_ends_the_call(vcenter: VCenter) -> None:
    """Half-open TCP: pyVmomi would wait for ever; here it ends with the time-out, and its connection is closed."""
    with vcenter.proxy() as proxy, vcenter.session(port=proxy.port, call_timeout=0.5) as session:
        proxy.half_open()
        with pytest.raises(Unavailable, match="no answer"):
            session.call(_instance(session).CurrentTime)
        proxy.heal()
        wait_for(lambda: proxy.connections == 0, "the connection of the failed call to be closed")
        assert session.alive()


def test_p7_after_one_dead_connection_the_others_are_not_tried(vcenter: VCenter) -> None:
    """Bug: what lay in the pools had died with it, at vCenter's endpoint and at EAM's; each cost a whole time-out."""
    with vcenter.proxy() as proxy, vcenter.session(port=proxy.port, call_timeout=2.0) as session:
        agencies(session)
        gevent.joinall([gevent.spawn(server_time, session) for _ in range(4)], raise_error=True)
        proxy.forget()
        with pytest.raises(Unavailable, match="no answer"):
            server_time(session)
        with gevent.Timeout(1.5):
            server_time(session)
            agencies(session)


def test_p7_the_kernel_gives_up_a_dead_peer_within_ten_seconds(vcenter: VCenter) -> None:
    """pyvmomi #176, #548, #525: a peer that lost its power would be waited for. Whether the kernel does as it is told
    cannot be tried over the loopback."""
    with vcenter.session() as session:
        connection = session.vim_stub().GetConnection()
        option = connection.sock.getsockopt
        assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
        idle, interval, probes = (
            option(socket.IPPROTO_TCP, each) for each in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + interval * probes <= 12
        session.vim_stub().ReturnConnection(connection)


def test_dribbling_peer_ends_the_call(vcenter: VCenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket time-out starts anew with each byte; the deadline round the call does not."""
    monkeypatch.setattr(module, "DEADLINE_MARGIN_SECONDS", 0.5)
    with vcenter.proxy() as proxy, vcenter.session(port=proxy.port, call_timeout=0.5) as session:
        proxy.dribble()
        with pytest.raises(Unavailable, match=r"no answer within 1 s"):
            session.call(_instance(session).CurrentTime)
        proxy.heal()


def test_killed_call_closes_its_connection(vcenter: VCenter) -> None:
    """Measured bug: a killed greenlet left its connection open for as long as its traceback lived."""
    with vcenter.proxy() as proxy, vcenter.session(port=proxy.port) as session:
        assert session.alive()
        proxy.half_open()
        caller = gevent.spawn(session.call, _instance(session).CurrentTime)
        gevent.sleep(0.05)
        caller.kill()
        proxy.heal()
        wait_for(lambda: proxy.connections == 0, "the connection of the killed call to be closed")


def test_server_that_is_away_heals_by_itself(vcenter: VCenter) -> None:
    with vcenter.proxy() as proxy, vcenter.session(port=proxy.port) as session:
        proxy.refuse()
        with pytest.raises(Unavailable) as caught:
            session.call(_instance(session).CurrentTime)
        assert caught.value.retry
        proxy.heal()
        assert server_time(session) is not None
        assert session.generation == 1


def test_foreign_cookie_does_not_overwrite_the_session(simulator_vcenter: VCenter) -> None:
    """Measured trap: pyVmomi takes any Set-Cookie for its session; EAM's web server may set one of its own."""
    assert simulator_vcenter.simulator is not None
    with simulator_vcenter.session() as session:
        simulator_vcenter.simulator.faults.inject("set_cookie_overwrite")
        agencies(session)
        agencies(session)
        assert session.alive()
        assert session.generation == 1


def test_eam_that_is_loading_is_unavailable_and_nothing_worse(simulator_vcenter: VCenter) -> None:
    """A vCenter that restarts: EAM comes up last. That heals by itself and must not look like a lost session."""
    assert simulator_vcenter.simulator is not None
    with simulator_vcenter.session() as session:
        for fault in ("eam_not_initialized", "eam_down"):
            simulator_vcenter.simulator.faults.inject(fault)
            with pytest.raises(Unavailable):
                agencies(session)
            simulator_vcenter.simulator.faults.clear(fault)
        assert agencies(session) == 0
        assert session.generation == 1


def test_eam_alone_refusing_the_session_does_not_churn_logins(simulator_vcenter: VCenter) -> None:
    """Known problem of real EAMs: cut off from vCenter they refuse everybody. That must not end the inventory too."""
    assert simulator_vcenter.simulator is not None
    with simulator_vcenter.session() as session:
        simulator_vcenter.simulator.faults.inject("raise_fault", path="/eam/sdk", fault="eam.fault.InvalidLogin")
        for _ in range(5):
            with pytest.raises(SessionExpired):
                agencies(session)
        assert session.generation == 2
        simulator_vcenter.simulator.faults.clear()
        assert agencies(session) == 0
        simulator_vcenter.simulator.faults.inject("session_kill")
        assert agencies(session) == 0
        assert session.generation == 3


def test_secret_is_in_no_text(vcenter: VCenter) -> None:
    """Never log or show a secret."""
    with vcenter.session() as session:
        assert vcenter.password not in repr(session)
        assert vcenter.password not in repr(session.settings)
        assert session.cookie not in repr(session)


def test_eam_below_its_vcenter_is_spoken_to_at_its_own_level(make_simulator: Callable[..., Simulator]) -> None:
    """Nothing tells EAM's version beforehand: one that refuses ours is asked again at the next lower one."""
    simulator = make_simulator(knobs=Knobs(eam_level=(7, 6)))
    settings = SessionSettings(
        host=simulator.host,
        port=simulator.port,
        username=simulator.user,
        password=lambda: simulator.password,
        ca_file=str(simulator.ca_file),
    )
    session = Session(settings)
    session.open()
    assert session.eam_stub().version == "eam.version.version9_0"
    simulator.faults.inject("refuse_newer", path="/eam/sdk")
    askers = [gevent.spawn(agencies, session) for _ in range(4)]
    gevent.joinall(askers, raise_error=True)
    assert session.eam_stub().version == "eam.version.version7_6"
    session.close()
