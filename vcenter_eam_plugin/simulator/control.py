# SPDX-License-Identifier: Apache-2.0
"""The simulator's own HTTP interface, ``/simulator/*``: what no vCenter has, in JSON.

Only loopback peers are answered, and only with the token that the simulator prints when it starts, in the header
``X-Simulator-Token``.

    GET    /simulator/faults            the catalogue, and the faults that are on
    POST   /simulator/faults            {"name": "slow", "delay": 2, "method": "Login", "count": 1}
    DELETE /simulator/faults[/NAME]     switch off all, or those of one name
    GET    /simulator/knobs             all knobs
    POST   /simulator/knobs             {"power_on": 1.5}
    GET    /simulator/journal[?after=N] what really happened, from sequence number N on
    GET    /simulator/traffic           what each client address asked so far, and what it was told
    POST   /simulator/stimuli           {"verb": "add_host", "cluster": "ClusterA"}
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from pyVmomi import vmodl

from vcenter_eam_plugin.simulator.faults import CATALOGUE
from vcenter_eam_plugin.simulator.stimuli import VERBS
from vcenter_eam_plugin.simulator.world import ManagedObject

if TYPE_CHECKING:
    from vcenter_eam_plugin.simulator.server import Simulator

MAX_BODY = 64 * 1024


class _Refused(Exception):
    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


class Control:
    """Answers control requests for one simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def answer(self, verb: str, path: str, environ: dict[str, Any]) -> tuple[str, bytes]:
        """HTTP status and JSON body."""
        try:
            self._admit(environ)
            result = self._do(verb, path.removeprefix("/simulator/").split("/"), environ)
        except _Refused as exc:
            return exc.status, _json({"error": str(exc)})
        except (LookupError, TypeError, ValueError) as exc:
            return "400 Bad Request", _json({"error": str(exc)})
        except vmodl.MethodFault as exc:
            return "409 Conflict", _json({"error": exc.msg or type(exc).__name__})
        return "200 OK", _json(result)

    def _admit(self, environ: dict[str, Any]) -> None:
        if not ipaddress.ip_address(environ.get("REMOTE_ADDR") or "0.0.0.0").is_loopback:  # noqa: S104 - no binding
            raise _Refused("403 Forbidden", "The control interface answers loopback addresses only.")
        token = environ.get("HTTP_X_SIMULATOR_TOKEN", "")
        if not hmac.compare_digest(token.encode(), self._simulator.control_token.encode()):
            raise _Refused("401 Unauthorized", "The header X-Simulator-Token is missing or wrong.")

    def _do(self, verb: str, parts: list[str], environ: dict[str, Any]) -> Any:  # noqa: PLR0911 - one per route
        match (verb, *parts):
            case ("GET", "faults"):
                return {"catalogue": CATALOGUE, "active": [one.as_dict() for one in self._simulator.faults.active]}
            case ("POST", "faults"):
                return self._simulator.faults.inject(**_body(environ)).as_dict()
            case ("DELETE", "faults"):
                return {"cleared": self._simulator.faults.clear()}
            case ("DELETE", "faults", name):
                return {"cleared": self._simulator.faults.clear(name)}
            case ("GET", "knobs"):
                return self._simulator.knobs.as_dict()
            case ("POST", "knobs"):
                self._simulator.knobs.change(_body(environ))
                return self._simulator.knobs.as_dict()
            case ("GET", "journal"):
                query = parse_qs(environ.get("QUERY_STRING", ""))
                after = int(query.get("after", ["0"])[0])
                return [entry.as_dict() for entry in self._simulator.journal if entry.seq > after]
            case ("GET", "traffic"):
                return self._simulator.dispatcher.traffic.as_dict()
            case ("POST", "stimuli"):
                return self._stimulus(_body(environ))
        raise _Refused("404 Not Found", f"There is no {verb} /simulator/{'/'.join(parts)}.")

    def _stimulus(self, body: dict[str, Any]) -> Any:
        verb = body.pop("verb", None)
        if verb not in VERBS:
            raise ValueError(f"there is no verb {verb!r}; there are {', '.join(sorted(VERBS))}")
        result = getattr(self._simulator.vcenter.stimuli, verb)(**body)
        if isinstance(result, ManagedObject):
            return {"result": result.moid}
        return {"result": result if isinstance(result, str | int | float | bool | list | dict) else None}


def _body(environ: dict[str, Any]) -> dict[str, Any]:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > MAX_BODY:
        raise _Refused("413 Content Too Large", "The request is too large.")
    value = json.loads(environ["wsgi.input"].read(length) or b"{}")
    if not isinstance(value, dict):
        raise TypeError("the body must be a JSON object")
    return value


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, default=str).encode() + b"\n"
