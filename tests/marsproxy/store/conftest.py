"""A Redis for a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.marsproxy.store.redis_process import RedisProcess


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    process = RedisProcess(tmp_path / "redis")
    yield process
    process.kill()


@pytest.fixture
def lasting_redis(tmp_path: Path) -> Iterator[RedisProcess]:
    """It has all that was in it when it is started again."""
    process = RedisProcess(tmp_path / "redis", keeps=True)
    yield process
    process.kill()
