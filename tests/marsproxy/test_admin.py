"""Whoever has the token, or whoever is on this machine where there is none; nobody else."""

import pytest
from fastapi import Request

from marsproxy.admin import AdminCaller, admin
from marsproxy.config import Secret
from marsproxy.errors import Refuse


def request_from(host: str | None, **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw, "client": None if host is None else (host, 1)})


async def status_of(token: Secret | None, request: Request) -> int | AdminCaller:
    try:
        return await admin(token)(request)
    except Refuse as exc:
        return exc.refusal.status


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
async def test_this_machine_may_where_no_token_is_set(host: str) -> None:
    """Over either family, or both at once."""
    assert await status_of(None, request_from(host)) is AdminCaller.LOOPBACK


@pytest.mark.parametrize("host", ["10.0.0.7", "::2", "::ffff:10.0.0.7", "", "not-an-address", None])
async def test_nobody_else_may(host: str | None) -> None:
    """Unknown is not here."""
    assert await status_of(None, request_from(host)) == 403


@pytest.mark.parametrize("header", ["forwarded", "x_forwarded_for", "x_real_ip", "via"])
async def test_what_was_passed_on_does_not_come_from_here(header: str) -> None:
    """It is the reverse proxy that is on this machine."""
    assert await status_of(None, request_from("127.0.0.1", **{header: "10.0.0.7"})) == 403


async def test_a_token_is_asked_of_everybody() -> None:
    """Here too, and in one form only."""
    token = Secret("s3cret")
    assert (
        await status_of(token, request_from("10.0.0.7", authorization="Bearer s3cret")) is AdminCaller.TOKEN
    )
    for wrong in ("", "Bearer", "Bearer s3cre", "Bearer s3cret ", "s3cret", "Basic s3cret"):
        assert await status_of(token, request_from("127.0.0.1", authorization=wrong)) == 401
    assert await status_of(token, request_from("127.0.0.1")) == 401
