"""Serves one gateway on one socket until it is told to stop.

Owns the socket, the signals and the line that says it is ready. On SIGTERM or SIGINT it first ends the
commands, or leaves them to the next gateway, which answers the requests that wait for them, and then the
server.
"""

import asyncio
import contextlib
import logging
import math
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping

import uvicorn
from fastapi import FastAPI

from gateway.app import make_app
from gateway.config import PROXY_TOKEN_ENV, TOKENS_ENV, Config
from gateway.fleet import open_hosts
from gateway.gateway import Gateway, open_gateway
from gateway.hosts_file import local_host, read_hosts
from gateway.isolation_settings import isolation_from
from gateway.limits import ConfigError, Limits
from gateway.spool_directory import spool_directory
from gateway.store import MemoryStore, Store
from gateway.tenants import Tenants, is_loopback, read_tokens

_BACKLOG = 1024
_KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that they close first and no request crosses the close."""

_NO_ERROR = "ASGI callable returned without completing handshake."
"""What uvicorn (0.54) logs as an error of ours when a WebSocket was denied with an answer."""


async def serve(config: Config, environ: Mapping[str, str]) -> None:
    tenants = _tenants(config, environ)
    isolation = isolation_from(config.session_uids, config.sandbox)
    settings = [local_host(isolation)] if config.hosts is None else read_hosts(config.hosts)

    @contextlib.asynccontextmanager
    async def gateway() -> AsyncIterator[Gateway]:
        async with (
            open_hosts(
                settings,
                config.limits,
                directory=directory,
                is_private=config.spool_dir is None,
                environ=environ,
                retires=config.on_stop == "end",
            ) as hosts,
            open_gateway(
                config.limits,
                tenants,
                hosts=hosts,
                store=open_store(config.store, config.limits),
                proxy_url=config.proxy,
                proxy_token=environ.get(PROXY_TOKEN_ENV),
                on_stop=config.on_stop,
            ) as opened,
        ):
            yield opened

    app = make_app(gateway)
    with _socket(config.host, config.port) as listening, spool_directory(config.spool_dir) as directory:
        server = _Server(app, _url(listening), config.limits.drain_grace_s + config.limits.drain_hosts_s)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.drain)
        await server.serve([listening])


class _Server(uvicorn.Server):
    def __init__(self, app: FastAPI, url: str, requests_s: float) -> None:
        """``requests_s``: for requests to be answered after it was told to stop. A transfer, or a reader that
        stalls, is cut then."""
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=math.ceil(requests_s),
            )
        )
        logging.getLogger("uvicorn.error").addFilter(_is_error)
        self._app = app
        self._url = url

    def drain(self) -> None:
        gateway: Gateway | None = getattr(self._app.state, "gateway", None)
        if gateway is not None:
            gateway.drain()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        sys.stdout.write(f"mars-gateway ready on {self._url}\n")
        sys.stdout.flush()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are ours; uvicorn would wait for the requests before it lets us end the commands."""
        yield


def _is_error(record: logging.LogRecord) -> bool:
    return record.getMessage() != _NO_ERROR


def open_store(store: str, limits: Limits) -> Store:
    if store == "memory":
        return MemoryStore(limits, time.monotonic)
    from gateway.store_redis import RedisStore  # A quarter of a second that most gateways need not pay.

    return RedisStore(store, limits)


def _tenants(config: Config, environ: Mapping[str, str]) -> Tenants:
    try:
        tenants = Tenants(read_tokens(environ.get(TOKENS_ENV), config.token_file))
    except OSError as error:
        raise ConfigError(f"token_file: {config.token_file}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if tenants.is_open and not is_loopback(config.host):
        raise ConfigError(
            f"host: {config.host} can be reached from elsewhere; set token_file or {TOKENS_ENV},"
            " or use 127.0.0.1"
        )
    return tenants


def _socket(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(f"host, port: cannot listen on {host}:{port}: {error.strerror}") from error


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
