"""Which build this is, for ``--version`` and the build-info metric."""

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "marsproxy"


def build_version() -> str:
    """Of the installed distribution; a source tree that was never installed says so."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0+source"
