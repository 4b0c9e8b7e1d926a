"""Requests as SWE-ReX' client sends them, to a gateway that really runs commands."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.gateway.conftest import Rig


@dataclass
class Swerex:
    rig: Rig
    session: str = "agent-1"
    ids: "itertools.count[int]" = field(default_factory=itertools.count)

    async def post(self, call: str, request_id: str | None = None, /, **body: Any) -> httpx.Response:
        headers = {"X-Request-ID": request_id or f"request-{next(self.ids)}"}
        url = f"/compat/swerex/{self.session}/{call}"
        return await self.rig.http.post(url, json=body, headers=headers)

    async def ask(self, call: str, /, **body: Any) -> dict[str, Any]:
        answer = await self.post(call, **body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def fault(self, call: str, /, **body: Any) -> dict[str, Any]:
        answer = await self.post(call, **body)
        assert answer.status_code == 511, answer.text
        found: dict[str, Any] = answer.json()["swerexception"]
        return found

    async def run(self, command: str, **fields: Any) -> dict[str, Any]:
        return await self.ask("run_in_session", **action(command, **fields))

    async def run_fault(self, command: str, **fields: Any) -> dict[str, Any]:
        return await self.fault("run_in_session", **action(command, **fields))

    async def upload(self, data: bytes, target_path: str, *, unzip: bool) -> httpx.Response:
        form = {"target_path": target_path, "unzip": str(unzip).lower()}
        url = f"/compat/swerex/{self.session}/upload"
        return await self.rig.http.post(url, data=form, files={"file": ("sent.zip", data)})


def action(command: str, **fields: Any) -> dict[str, Any]:
    """With all the fields that the client sends."""
    return {
        "command": command,
        "session": "default",
        "timeout": 25.0,
        "is_interactive_command": False,
        "is_interactive_quit": False,
        "check": "silent",
        "error_msg": "",
        "expect": [],
        "action_type": "bash",
        **fields,
    }
