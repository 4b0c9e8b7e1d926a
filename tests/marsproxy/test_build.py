"""The version that is shown."""

from marsproxy.build import build_version


def test_version_starts_with_a_number() -> None:
    """Installed or not, it reads as a version."""
    assert build_version()[0].isdigit()
