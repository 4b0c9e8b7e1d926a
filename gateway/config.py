"""The server's settings: one frozen tree, read once.

Owns fields, defaults and where they come from: a TOML file, then MARS_GATEWAY_* variables, then flags,
the later ones winning. Names are the same everywhere (``queue_limit``, ``MARS_GATEWAY_QUEUE_LIMIT``,
``--queue-limit``). Tokens are secrets and no flags: other users see those.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from gateway.isolation_settings import isolation_from
from gateway.limits import ConfigError, Limits

ENV_PREFIX = "MARS_GATEWAY_"
TOKENS_ENV = "MARS_GATEWAY_TOKENS"
"""Of the server: tenant:token, separated by commas."""
PROXY_TOKEN_ENV = "MARS_GATEWAY_PROXY_TOKEN"
"""Of the server: bearer token for the proxy."""
URL_ENV = "MARS_GATEWAY_URL"
TOKEN_ENV = "MARS_GATEWAY_TOKEN"
"""Both of the client."""
SESSION_ENV = "MARS_GATEWAY_SESSION"
"""Of the shims."""
_OTHER_ENV = frozenset({TOKENS_ENV, PROXY_TOKEN_ENV, URL_ENV, TOKEN_ENV, SESSION_ENV})


@dataclass(frozen=True, slots=True)
class Config:
    host: str = "127.0.0.1"
    """Address to listen on. Any but a loopback address needs tokens."""
    port: int = 8090
    """Port to listen on; 0 takes a free one and prints it."""
    spool_dir: Path | None = None
    """Where workspaces and output of this host live; commands there go on if the gateway dies. Default: a
    private temporary directory, whose commands end with the gateway."""
    hosts: Path | None = None
    """TOML file that names the hosts to run commands on. Default: this one alone."""
    session_uids: str | None = None
    """Users that nobody else on this host has, such as 200000-265535: each session gets one of its own, which
    needs a gateway that is root, or it gets no commands. With `hosts`, this is a setting of each host."""
    sandbox: Literal["none", "bwrap"] = "none"
    """What commands on this host run in: bwrap, where all but the workspace and /tmp is read-only, or they do
    not run. With `hosts`, this is a setting of each host."""
    store: str = "memory"
    """Where keys, sessions and endings are on record: memory, or a redis://, rediss:// or unix:// URL."""
    on_stop: Literal["end", "keep"] = "end"
    """What SIGTERM does to commands: end them, or keep them running for the next gateway."""
    token_file: Path | None = None
    """Lines of tenant:token. More of them may be in MARS_GATEWAY_TOKENS."""
    proxy: str | None = None
    """URL of the MARS proxy that is told what the tools do."""
    limits: Annotated[Limits, Parameter(name="*")] = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port must be 0 to 65535, not {self.port}")
        if isolation_from(self.session_uids, self.sandbox).is_any and self.hosts is not None:
            raise ConfigError("session_uids, sandbox: with hosts, set them for each host in that file")
        if self.store != "memory" and not self.store.startswith(("redis://", "rediss://", "unix://")):
            raise ConfigError("store must be memory or a redis://, rediss:// or unix:// URL")
        if self.on_stop == "keep" and self.spool_dir is None and self.hosts is None:
            raise ConfigError("on_stop keep needs a spool_dir: what is in a temporary directory ends with us")
        if self.proxy is not None and not self.proxy.startswith(("http://", "https://")):
            raise ConfigError(f"proxy must be an http:// or https:// URL, not {self.proxy!r}")


def check_environment(environ: Mapping[str, str]) -> None:
    """A misspelt variable must not pass for a setting that took effect."""
    known = {ENV_PREFIX + name.upper() for name in setting_names()} | _OTHER_ENV
    for name in environ:
        if name.startswith(ENV_PREFIX) and name not in known:
            raise ConfigError(f"{name}: no such setting; known are {', '.join(sorted(known))}")


def setting_names() -> list[str]:
    own = [f.name for f in fields(Config) if f.name != "limits"]
    return own + [f.name for f in fields(Limits)]


def as_toml(config: Config) -> str:
    """A file that would give this configuration."""
    values: dict[str, Any] = {f.name: getattr(config, f.name) for f in fields(Config) if f.name != "limits"}
    values |= {f.name: getattr(config.limits, f.name) for f in fields(Limits)}
    return "".join(_toml_line(name, value) for name, value in values.items())


def _toml_line(name: str, value: Any) -> str:
    if value is None:
        return f"# {name} = (not set)\n"
    plain = os.fspath(value) if isinstance(value, Path) else value
    return f"{name} = {msgspec.json.encode(plain).decode()}\n"
