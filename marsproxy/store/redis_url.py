"""From the URL of a store to clients of it: one server, Sentinel or a cluster, with or without TLS.

Owns what a URL may look like. Who reads an error here is told which part is wrong, never the URL itself:
there may be a password in it.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis import asyncio as aioredis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from marsproxy.core.settings import ConfigError

RedisClient = aioredis.Redis | RedisCluster

MEMORY = "memory"
ALLOWED = (
    f"{MEMORY}, redis://HOST[:PORT][/DB], rediss:// for TLS, unix://PATH, "
    "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE, redis+cluster://HOST:PORT,HOST:PORT "
    "(rediss+... with TLS), each with USER:PASSWORD@ in front of the host"
)
_PLAIN = ("redis", "rediss", "unix")
_SEVERAL = {"redis+sentinel": 26379, "rediss+sentinel": 26379, "redis+cluster": 6379, "rediss+cluster": 6379}
"""Schemes with several hosts, and their default ports."""
_TLS_OPTIONS = frozenset(
    ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
)


@dataclass(frozen=True, slots=True)
class _Several:
    """What a URL with several hosts says."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    path: str
    options: dict[str, Any]


def check_store_url(url: str) -> None:
    """
    Raises:
        ConfigError: no store is at such a URL.
    """
    if url != MEMORY:
        client_of(url, timeout_s=1.0)


def client_of(url: str, *, timeout_s: float) -> RedisClient:
    """A client that tries once and connects when it is used. It takes commands of several tasks at once.

    Raises:
        ConfigError: no store is at such a URL.
    """
    limits: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
    }
    try:
        scheme = urlsplit(url).scheme
        if scheme in _PLAIN:
            return aioredis.Redis.from_url(url, **limits)
        if scheme in _SEVERAL:
            several = _read(url, scheme)
            make = _sentinel if scheme.endswith("sentinel") else _cluster
            return make(several, limits)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"store.url: not usable; allowed: {ALLOWED}") from error
    raise ConfigError(f"store.url: not usable; allowed: {ALLOWED}")


def _sentinel(said: _Several, limits: dict[str, Any]) -> RedisClient:
    service, _, db = said.path.partition("/")
    if not service:
        raise ValueError("no service")
    options = {**said.options, **limits}
    sentinels = Sentinel(list(said.hosts), sentinel_kwargs=options, **options)  # type: ignore[no-untyped-call]
    master: aioredis.Redis = sentinels.master_for(service, db=int(db or 0))
    return master


def _cluster(said: _Several, limits: dict[str, Any]) -> RedisClient:
    if said.path:
        raise ValueError("a cluster has no databases")
    nodes = [ClusterNode(host, port) for host, port in said.hosts]
    return RedisCluster(startup_nodes=nodes, **said.options, **limits)


def _read(url: str, scheme: str) -> _Several:
    parts = urlsplit(url)
    user_info, _, hosts = parts.netloc.rpartition("@")
    user, _, password = user_info.partition(":")
    options: dict[str, Any] = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    if not options.keys() <= _TLS_OPTIONS:
        raise ValueError("an option that is none")
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() in ("true", "yes", "1")
    if scheme.startswith("rediss"):
        options["ssl"] = True
    elif options:
        raise ValueError("options of TLS without TLS")
    if password:
        options |= {"username": unquote(user) or None, "password": unquote(password)}
    return _Several(
        scheme,
        tuple(_host(each, _SEVERAL[scheme]) for each in hosts.split(",")),
        parts.path.strip("/"),
        options,
    )


def _host(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a host is missing")
    return parts.hostname, parts.port or default_port
