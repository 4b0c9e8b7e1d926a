"""Puts the engine together and serves it until it is told to stop."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
import uvloop

from backend_patch.script import Script, ScriptFile
from loadgen.engine.app import EngineApp
from loadgen.engine.config import ConfigError, EngineConfig
from loadgen.engine.frontend import Frontend
from loadgen.engine.metrics import EngineMetrics
from loadgen.engine.realtime import RealTimeEngine
from loadgen.engine.request_log import RequestLog
from loadgen.engine.scheduler import Scheduler

GRACE_S = 1
"""For clients to take the error that ends their stream when the server stops."""


class EngineServer:
    """The embedded engine behind one listening socket."""

    def __init__(self, config: EngineConfig) -> None:
        model = config.resolve()
        script = Script() if config.script is None else ScriptFile(config.script)
        metrics = EngineMetrics(model.served_name)
        self.engine = RealTimeEngine(
            Scheduler(model.limits),
            model.step_time.seconds,
            speed=config.speed,
            on_finish=lambda request: metrics.observe_finish(request, self.engine.now()),
        )
        metrics.watch(self.engine)
        self._request_log = None if config.request_log is None else RequestLog(config.request_log)
        frontend = Frontend(config, model, self.engine, script)
        self._app = EngineApp(frontend, self.engine, metrics, self._request_log)
        self._config = config

    async def serve(self, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
        """Serve until ``stop``; ``ready`` gets the URL once connections are taken."""
        with _listen(self._config.host, self._config.port) as listener:
            server = _Server(self._settings(), lambda: ready(_url(listener)))
            async with asyncio.TaskGroup() as group:
                engine = group.create_task(self.engine.run(), name="engine")
                stopper = group.create_task(self._stop_on(stop, server), name="stop")
                await server.serve(sockets=[listener])
                for task in (engine, stopper):
                    task.cancel()

    async def _stop_on(self, stop: asyncio.Event, server: uvicorn.Server) -> None:
        await stop.wait()
        server.should_exit = True
        self.engine.stop()

    def _settings(self) -> uvicorn.Config:
        return uvicorn.Config(
            self._app,
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="warning",
            timeout_keep_alive=self._config.keep_alive_s,  # type: ignore[arg-type]
            timeout_graceful_shutdown=GRACE_S,
        )


class _Server(uvicorn.Server):
    def __init__(self, settings: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(settings)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's: uvicorn would raise them again and spoil the exit status."""
        yield


def serve_engine(config: EngineConfig) -> None:
    """Run in the foreground: prints the ready line, returns after SIGTERM or SIGINT."""
    server = EngineServer(config)
    uvloop.run(_until_signal(server))


async def _until_signal(server: EngineServer) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.serve(stop, _print_ready)


def _print_ready(url: str) -> None:
    print(f"loadgen engine ready on {url}", flush=True)  # noqa: T201 - the command's one line of output


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {exc.strerror}") from exc
    with listener:
        yield listener
