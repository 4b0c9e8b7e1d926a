"""One gateway with its host for all tests that break nothing, and one of its own for each other test."""

from collections.abc import Iterator

import pytest

from tests.gateway_live.world import PLACES, World, open_world


@pytest.fixture(scope="session", params=PLACES)
def shared(request: pytest.FixtureRequest) -> Iterator[World]:
    """For tests that use sessions of their own and leave gateway and host as they found them."""
    with open_world(request.param, slots=8) as world:
        yield world
        assert world.orphans() == []


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    """For tests that set up, or break, a world of their own."""
    name = request.param
    assert isinstance(name, str)
    return name


@pytest.fixture
def world(place: str) -> Iterator[World]:
    with open_world(place, slots=8) as opened:
        yield opened
