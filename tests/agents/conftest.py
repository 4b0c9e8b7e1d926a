"""The servers that every framework's tests share, and the environments that the frameworks run in.

The model server starts once. Proxy, relay and gateway are each test's own, and so is the proxy's log.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.agents.environments import Environments
from tests.agents.model_server import ModelServer, model_server
from tests.agents.world import World, open_world

pytest.register_assert_rewrite("tests.agents.expectations")  # So that a failure says what was seen.


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with model_server(tmp_path_factory.mktemp("model")) as server:
        yield server


@pytest.fixture(scope="session")
def environments() -> Environments:
    return Environments()


@pytest.fixture
async def world(model: ModelServer, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(model, tmp_path) as opened:
        yield opened
