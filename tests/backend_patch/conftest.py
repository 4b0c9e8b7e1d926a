"""Names that two test processes on one machine do not share."""

import secrets

import pytest


@pytest.fixture
def instance_id() -> str:
    return f"test-{secrets.token_hex(4)}"
