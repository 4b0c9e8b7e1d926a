"""Proxy and gateway in front of the model server, each a process as a user starts it, with a relay between.

Owns starting, restarting and stopping; what frameworks do in it, and what must hold, is the tests' affair.
"""

import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from marsproxy.children import Child
from tests.agents.environments import Environments
from tests.agents.library import Library
from tests.agents.model_server import ModelServer
from tests.agents.observed import Observed, read_observed
from tests.agents.relay import Relay, relaying


@dataclass
class World:
    model: ModelServer
    relay: Relay
    folder: Path
    proxy_port: int
    gateway_url: str = ""
    _proxy: Child | None = None

    @property
    def proxy_url(self) -> str:
        return f"http://127.0.0.1:{self.proxy_port}"

    @property
    def log(self) -> Path:
        return self.folder / "events"

    def library(
        self, environments: Environments, name: str, *, is_direct: bool = False, **settings: Any
    ) -> Library:
        """A framework of that name, its agents' model behind the proxy unless ``is_direct``, their commands
        with the gateway."""
        url = self.relay.url if is_direct else self.proxy_url
        python = environments.programs(name) / "python"
        runner = f"run_{name.replace('-', '_')}.py"
        return Library(runner, python, f"{url}/v1", self.gateway_url, self.folder / "home", settings)

    async def start_proxy(self) -> None:
        self._proxy = Child(
            *("marsproxy", "serve", "--backend", self.relay.url, "--port", str(self.proxy_port)),
            *("--event-log", str(self.log)),
        )
        await self._proxy.start()

    async def stop_proxy(self) -> None:
        if self._proxy is not None:
            await self._proxy.stop()

    async def observed(self) -> Observed:
        """All of the run. The proxy has ended then, and with it its log."""
        levels = await self._identity_levels()
        await self.stop_proxy()
        seen = read_observed(self.log)
        seen.levels = levels
        return seen

    async def _identity_levels(self) -> dict[str, int]:
        async with httpx.AsyncClient() as http:
            metrics = (await http.get(f"{self.proxy_url}/metrics")).text
        families = text_string_to_metric_families(metrics)
        samples = [sample for family in families for sample in family.samples]
        return {
            sample.labels["level"]: int(sample.value)
            for sample in samples
            if sample.name == "mars_identity_total" and sample.value
        }


@contextlib.asynccontextmanager
async def open_world(model: ModelServer, folder: Path, fail_every: int | None = None) -> AsyncIterator[World]:
    async with relaying(model.url, fail_every) as relay:
        world = World(model, relay, folder, _free_port())
        await world.start_proxy()
        gateway = Child(
            "gateway",
            "serve",
            "--port",
            "0",
            "--slots",
            "8",
            "--proxy",
            world.proxy_url,
            "--allow-absolute-cwd",
        )
        try:
            world.gateway_url = await gateway.start()
            yield world
        finally:
            await gateway.stop()
            await world.stop_proxy()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
