"""What a shim is told by its environment: which gateway, which session, which mode.

Owns the names of the variables and their checks. They are read once, at the start; a value that means nothing
is an error, not a default.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.shims.calls import ANSWER_S, Address, Calls, GatewayFault

URL = "MARS_GATEWAY_URL"
TOKEN = "MARS_GATEWAY_TOKEN"
TOKEN_FILE = "MARS_SHIM_TOKEN_FILE"
"""Not MARS_GATEWAY_TOKEN_FILE: that is the server's, with the tokens of all tenants."""
SESSION = "MARS_GATEWAY_SESSION"
_DEFAULT_URL = "http://127.0.0.1:8090"

Environment = Mapping[str, str]


def calls_of(environ: Environment, answer_s: float = ANSWER_S) -> Calls:
    """Raises GatewayFault."""
    try:
        address = Address(environ.get(URL) or _DEFAULT_URL)
    except ValueError as error:
        raise GatewayFault(f"{URL} {error}") from error
    return Calls(address, _token(environ), answer_s)


def number(environ: Environment, name: str, default: float, least: float) -> float:
    """Raises GatewayFault."""
    text = environ.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value < float("inf"):
        raise GatewayFault(f"{name} must be a number of at least {least:g}, not {text!r}")
    return value


def choice(environ: Environment, name: str, *allowed: str) -> str:
    """The first is the default. Raises GatewayFault."""
    value = environ.get(name) or allowed[0]
    if value not in allowed:
        raise GatewayFault(f"{name} must be {' or '.join(allowed)}, not {value!r}")
    return value


def _token(environ: Environment) -> str | None:
    if token := environ.get(TOKEN):
        return token
    path = environ.get(TOKEN_FILE)
    if not path:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise GatewayFault(f"{TOKEN_FILE}: {path} cannot be read ({error})") from error
    if not token or not token.isascii() or not token.isprintable():
        raise GatewayFault(f"{TOKEN_FILE}: {path} must hold one token in one line")
    return token
