"""Asks a running proxy what it does: the terminal's side of the routes in ``marsproxy.live.routes``."""

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx

from marsproxy.core.settings import ConfigError

TOKEN_ENV = "MARS_ADMIN_TOKEN"
"""Where the admin token is read from: the variable that the proxy itself reads it from."""
SILENT_S = 25.0
"""Two heartbeats of the feed, and half a one."""
ASK_TIMEOUT_S = 10.0


class NoAnswer(Exception):
    """The proxy did not answer, or not with what was asked for. The message is for people."""


def asking(url: str, transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """
    Raises:
        ConfigError: it is no URL.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url {url}: not a URL; allowed: http://HOST[:PORT], or https://")
    token = os.environ.get(TOKEN_ENV)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(
        base_url=url, headers=headers, timeout=ASK_TIMEOUT_S, transport=transport, trust_env=False
    )


def story(client: httpx.Client, session_id: str) -> dict[str, Any]:
    """
    Raises:
        NoAnswer
    """
    try:
        answer = client.get(f"/mars/v1/sessions/{quote(session_id, safe='')}/why")
    except httpx.HTTPError as exc:
        raise NoAnswer(f"{client.base_url} does not answer") from exc
    if answer.status_code == 404:
        raise NoAnswer("no such session; its story may have expired (ids are those of X-Mars-Session)")
    _check(answer)
    told: dict[str, Any] = answer.json()
    return told


def views(client: httpx.Client) -> Iterator[dict[str, Any]]:
    """The whole view after each change; its sessions are rows by id.

    Raises:
        NoAnswer: now, or when the stream ends.
    """
    whole: dict[str, Any] = {}
    try:
        with client.stream(
            "GET", "/mars/v1/live", timeout=httpx.Timeout(ASK_TIMEOUT_S, read=SILENT_S)
        ) as answer:
            _check(answer)
            name = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    told = json.loads(line.removeprefix("data: "))
                    whole = begun(told) if name == "snapshot" else changed(whole, told)
                    yield whole
    except httpx.HTTPError as exc:
        raise NoAnswer(f"{client.base_url} does not answer") from exc
    raise NoAnswer(f"{client.base_url} ended the stream")


def begun(told: dict[str, Any]) -> dict[str, Any]:
    return told | {"sessions": {row[0]: row for row in told["sessions"]}}


def changed(whole: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """The view before, with what changed."""
    sessions = whole["sessions"]
    for row in told.get("sessions", ()):
        sessions[row[0]] = row
    for session_id in told.get("gone", ()):
        sessions.pop(session_id, None)
    decisions = [*whole["decisions"], *told.get("decisions", ())][-100:]
    return whole | told | {"sessions": sessions, "decisions": decisions}


def _check(answer: httpx.Response) -> None:
    if answer.status_code in (401, 403):
        raise NoAnswer(f"the proxy asks for its admin token; set {TOKEN_ENV}")
    if answer.status_code != 200:
        raise NoAnswer(f"the proxy answered with status {answer.status_code}")
