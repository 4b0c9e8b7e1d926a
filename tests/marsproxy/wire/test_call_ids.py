"""Only ids that no other session can have may name one."""

import uuid

import pytest

from marsproxy.wire.call_ids import is_unique_looking


@pytest.mark.parametrize(
    "call_id",
    [
        "chatcmpl-tool-9f86d081884c7d659a2feaa0c55ad015",
        "call_J8x2mQ4ZbT7yR1kV9sWp3LdN",
        "toolu_01A09q90qw90lq917835lq9",
        "fc_68a1f0c2d5e84b3f9a7b6c5d4e3f2a1b",
        "550e8400-e29b-41d4-a716-446655440000",
        "call_1795398591241615312",
    ],
)
def test_random_ids_are_unique_looking(call_id: str) -> None:
    assert is_unique_looking(call_id)


@pytest.mark.parametrize(
    "call_id",
    [
        "",
        "c1",
        "call_0",
        "call_12345",
        "functions.bash:0",
        "functions.python3_x86_64_v2a1b:11",
        "tool_call_00000001",
        "search2024docs_1",
        "call_1795398591",
        "read_file_3_of_12",
        "a1b2" * 100,
    ],
)
def test_counted_named_short_and_overlong_ids_are_not(call_id: str) -> None:
    assert not is_unique_looking(call_id)


def test_hardly_any_uuid_falls_short() -> None:
    # Seeded by the namespace: the same thousand on every run.
    ids = [f"call_{uuid.uuid5(uuid.NAMESPACE_URL, str(n)).hex}" for n in range(1000)]
    assert sum(map(is_unique_looking, ids)) == 1000
