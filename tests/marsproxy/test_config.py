"""A tree that exists is valid, and what it refuses it names."""

from dataclasses import replace

import pytest

from marsproxy.config import (
    EMBEDDED,
    AdmissionSettings,
    Backend,
    Config,
    ConfigError,
    Gateway,
    Identity,
    Listen,
    Range,
    Secret,
    check_hints,
    check_live,
    settings,
)
from marsproxy.core.policies import PolicyKind
from marsproxy.core.policy import Policy
from marsproxy.core.settings import PolicySettings


def test_defaults_are_valid_and_loopback() -> None:
    """What nobody configured binds to nobody else's network."""
    assert Config().listen.host == "127.0.0.1"


def test_every_bound_accepts_its_own_ends() -> None:
    """Both ends are allowed, one step outside is not."""
    allowed = Range(1, 5)
    assert [value in allowed for value in (0.999, 1, 5, 5.001)] == [False, True, True, False]
    assert float("nan") not in allowed


@pytest.mark.parametrize(
    ("make", "key", "allowed"),
    [
        (lambda: Listen(port=65536), "listen.port", "0 to 65535"),
        (lambda: AdmissionSettings(kv_target=0), "admission.kv_target", "0.05 to 2"),
        (lambda: AdmissionSettings(peak_prior_tokens=0), "admission.peak_prior_tokens", "at least 1"),
        (
            lambda: Config(admission=AdmissionSettings(telemetry_stale_s=1.0)),
            "admission.telemetry_stale_s",
            "backend.telemetry_interval_s",
        ),
        (lambda: Config(policy="lottery"), "policy", "mars"),
        (
            lambda: check_live("queues", PolicyKind("", Policy, "priority", needs_reprioritise=True)),
            "policy: 'queues'",
            "continuum, ",
        ),
        (
            lambda: check_hints("continuum", {"http://gpu:8000": "stock: status 404"}),
            "policy: 'continuum'",
            "without it: http://gpu:8000 (stock: status 404); allowed without it: concur, fcfs, mars,",
        ),
        (lambda: Gateway(url="ftp://x"), "gateway.url", "http://HOST[:PORT]"),
        (lambda: Identity(extra_session_headers=("a b",)), "identity.extra_session_headers", "letters"),
        (lambda: Config(backends=("localhost:8000",)), "backends", EMBEDDED),
        (lambda: Config(backends=("http://h:99999",)), "backends", "http://HOST[:PORT]"),
        (lambda: Config(backends=(EMBEDDED, EMBEDDED)), "backends", "once"),
    ],
)
def test_refusal_names_key_and_allowed(make: object, key: str, allowed: str) -> None:
    """The message says which setting, and what it may be."""
    with pytest.raises(ConfigError) as caught:
        make()  # type: ignore[operator]
    assert key in str(caught.value)
    assert allowed in str(caught.value)


def test_a_refused_url_is_not_repeated() -> None:
    """It may carry a password."""
    with pytest.raises(ConfigError) as caught:
        Config(backends=("ftp://user:hunter2@host",))
    assert "hunter2" not in str(caught.value)


def test_policy_settings_are_the_trees_sections() -> None:
    """Whatever the policy can be told, the proxy can be told."""
    tree = Config(admission=AdmissionSettings(kv_target=0.8))
    assert tree.policy_settings == PolicySettings(AdmissionSettings(kv_target=0.8), tree.sessions)


def test_secret_shows_only_on_demand() -> None:
    """Neither repr nor str nor the repr of the tree around it gives it away."""
    tree = replace(Config(), backend=Backend(api_key=Secret("hunter2")))
    assert "hunter2" not in f"{tree!r} {tree.backend.api_key} {tree.backend.api_key!r}"
    assert tree.backend.api_key is not None
    assert tree.backend.api_key.reveal() == "hunter2"
    assert tree.backend.api_key == Secret("hunter2")


def test_settings_lists_every_leaf_once() -> None:
    """The list that flags, environment and file are checked against is the tree itself."""
    keys = [setting.key for setting in settings()]
    assert len(set(keys)) == len(keys)
    assert {"backends", "listen.port", "gateway.token"} <= set(keys)
    assert "listen" not in keys
