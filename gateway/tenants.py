"""Who is calling: bearer tokens and the tenants behind them.

Owns reading and comparing tokens. Without any, the gateway is open, and then only to this machine.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from pathlib import Path

from gateway.errors import Refusal

OPEN_TENANT = ""
"""Of everybody, when no tokens are configured."""

OPERATOR = "operator"
"""The tenant that may do what concerns all tenants."""

_LEAST_TOKEN_CHARACTERS = 16


class Tenants:
    def __init__(self, tokens: Mapping[str, str]) -> None:
        """``tokens``: tenant to token."""
        self._digests = {tenant: _digest(token) for tenant, token in tokens.items()}

    @property
    def is_open(self) -> bool:
        return not self._digests

    def __len__(self) -> int:
        return len(self._digests)

    def authenticate(self, authorization: str | None, host: str | None) -> str:
        if self.is_open:
            return _open_tenant(host)
        scheme, _, token = (authorization or "").partition(" ")
        offered = _digest(token.strip() if scheme.lower() == "bearer" else "")
        # Every token is compared, digests in constant time: the answer's delay says nothing.
        matches = [tenant for tenant, known in self._digests.items() if hmac.compare_digest(known, offered)]
        if not matches:
            raise Refusal(
                401, "invalid_token", "Authorization: a known bearer token is needed", param="Authorization"
            )
        return matches[0]

    def check_operator(self, tenant: str) -> None:
        """Raises Refusal for one tenant among several, unless it is the operator."""
        if len(self._digests) > 1 and tenant != OPERATOR:
            message = f"this concerns all tenants: only the one named {OPERATOR!r} may do it"
            raise Refusal(403, "operator_only", message, param="Authorization")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_tokens(environment_value: str | None, file: Path | None) -> dict[str, str]:
    """``tenant:token`` pairs, by comma in MARS_GATEWAY_TOKENS, by line in the file. Raises ValueError."""
    tokens: dict[str, str] = {}
    for source, entries in (
        ("MARS_GATEWAY_TOKENS", (environment_value or "").split(",")),
        (str(file), file.read_text().splitlines() if file is not None else []),
    ):
        for entry in (e.strip() for e in entries):
            if not entry or entry.startswith("#"):
                continue
            tenant, separator, token = entry.partition(":")
            if not separator or not tenant or len(token) < _LEAST_TOKEN_CHARACTERS:
                raise ValueError(
                    f"{source}: each entry must be tenant:token,"
                    f" the token of {_LEAST_TOKEN_CHARACTERS} or more characters"
                )
            if tenant in tokens:
                raise ValueError(f"{source}: tenant {tenant!r} is there twice")
            tokens[tenant] = token
    if len(set(tokens.values())) < len(tokens):
        raise ValueError("two tenants have the same token")
    return tokens


def _open_tenant(host: str | None) -> str:
    """A web page that has its own name resolve to 127.0.0.1 still sends that name."""
    name = (host or "").rsplit(":", 1)[0] if not (host or "").endswith("]") else (host or "")
    if not is_loopback(name.strip("[]")):
        message = "Host: without tokens this gateway answers only to localhost, 127.0.0.1 and [::1]"
        raise Refusal(403, "host_not_allowed", message, param="Host")
    return OPEN_TENANT


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
