"""A shell tool that runs its commands through the gateway: what a user of a framework writes. Stdlib only."""

import json
import urllib.request

WAIT_S = 60


class GatewayBash:
    """Each agent has a session, and with it a workspace, of its own."""

    def __init__(self, url: str, session: str) -> None:
        self._session = f"{url}/v1/sessions/{session}"
        self._url = url
        self._call("PUT", self._session, {})

    def run(self, command: str) -> str:
        body = {"command": command, "output": {"merge": True}}
        status = self._call("POST", f"{self._session}/execs?wait={WAIT_S}", body)
        while status["state"] in ("queued", "starting", "running"):
            status = self._call("GET", f"{self._url}/v1/execs/{status['id']}?wait={WAIT_S}")
        return f"{status['stdout']['text']}[exit code {status['exit_code']}]"

    def close(self) -> None:
        self._call("DELETE", self._session)

    def _call(self, method: str, url: str, body: object = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=2 * WAIT_S) as answer:
            return json.loads(answer.read() or b"{}")
