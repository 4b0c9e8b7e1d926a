"""The table of policies."""

import pytest

from marsproxy.core.policies import POLICIES, policy_kind
from marsproxy.core.settings import ConfigError, PolicySettings


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_is_made_with_its_backends(name: str) -> None:
    policy = policy_kind(name).make(PolicySettings(), ["a", "b"])
    assert list(policy.backends) == ["a", "b"]
    assert policy.open_turns == 0


def test_an_unknown_policy_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'fastest' is not known; allowed: .*mars"):
        policy_kind("fastest")
