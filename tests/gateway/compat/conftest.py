"""A SWE-ReX runtime behind a gateway in this process."""

from collections.abc import AsyncIterator

import pytest

from tests.gateway.compat.swerex_calls import Swerex
from tests.gateway.conftest import OpenRig


@pytest.fixture
async def swerex(open_rig: OpenRig) -> AsyncIterator[Swerex]:
    async with open_rig() as rig:
        yield Swerex(rig)
