"""Servers for the driver's tests, each on a port of its own and gone with the test."""

from collections.abc import Iterator

import pytest

from tests.loadgen.upstream import FakeGateway, FakeModel, serving


@pytest.fixture
def model() -> Iterator[FakeModel]:
    with serving(FakeModel()) as fake:
        yield fake


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with serving(FakeGateway()) as fake:
        yield fake
