"""Settings of the patch: defaults, and what is refused in which words."""

import pytest

from backend_patch.settings import PatchSettings, SettingsError


@pytest.mark.parametrize("config", [None, {}, {"other": 1}, {"mars": {}}])
def test_defaults(config: object) -> None:
    """Whatever else vLLM's additional config holds."""
    assert PatchSettings.from_additional_config(config) == PatchSettings()


def test_values_are_taken() -> None:
    """Whole numbers stand for fractions too."""
    settings = PatchSettings.from_additional_config(
        {"mars": {"max_ttl_s": 60, "leases": False, "max_sessions": 7, "max_leased_share": 0.5}}
    )
    assert settings == PatchSettings(max_ttl_s=60.0, leases=False, max_sessions=7, max_leased_share=0.5)
    assert isinstance(settings.max_ttl_s, float)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"max_ttl": 5}, r"mars\.max_ttl is not known; allowed: .*max_ttl_s"),
        ({"order": 1}, r"mars\.order must be true or false, not 1"),
        ({"aging_s": "soon"}, r"mars\.aging_s must be a number from 0 to 86400, not 'soon'"),
        ({"aging_s": True}, r"mars\.aging_s must be a number"),
        ({"max_leased_share": 1.1}, r"mars\.max_leased_share must be from 0 to 1, not 1\.1"),
        ({"max_sessions": 4.5}, r"mars\.max_sessions must be a whole number"),
        ({"max_sessions": 0}, r"mars\.max_sessions must be from 1 to"),
        ({"max_ttl_s": float("nan")}, r"mars\.max_ttl_s must be from"),
        (["leases"], r"mars must be an object"),
    ],
)
def test_what_is_refused(section: object, words: str) -> None:
    """With the key's name and what is allowed."""
    with pytest.raises(SettingsError, match=words):
        PatchSettings.from_additional_config({"mars": section})
