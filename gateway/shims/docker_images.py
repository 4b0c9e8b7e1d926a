"""What stands for an image here: there are none, so its name may choose a host, files to begin with and
variables.

Owns the file that ``MARS_GW_DOCKER_IMAGES`` names: a JSON object from image name (or its beginning with a
``*`` behind it) to ``{"host", "selector", "seed", "root", "env"}``. Without an entry an image is an empty
workspace.
"""

from __future__ import annotations

import json

from gateway.shims.docker_words import UsageFault
from gateway.shims.settings import Environment, choice

FILE = "MARS_GW_DOCKER_IMAGES"
ROOT = "MARS_GW_DOCKER_ROOT"
_FIELDS = {"host": str, "selector": dict, "seed": str, "root": str, "env": dict}


class Image:
    def __init__(self, fields: dict[str, object], root: str) -> None:
        self.placement: dict[str, object] = {
            name: fields[name] for name in ("host", "selector") if name in fields
        }
        """For a session's settings."""
        self.seed = fields.get("seed")
        """A directory or a tar here, whose content the workspace begins with."""
        self.root = root
        """``workspace``: the container's / is the workspace; ``host``: it is the host's."""
        env = fields.get("env")
        self.env = {str(name): str(value) for name, value in env.items()} if isinstance(env, dict) else {}


def find(name: str, environ: Environment) -> Image:
    """Raises UsageFault, GatewayFault."""
    root = choice(environ, ROOT, "workspace", "host")
    path = environ.get(FILE)
    entry = _entry(_read(path), name) if path else {}
    for field, value in entry.items():
        kind = _FIELDS.get(field)
        if kind is None or not isinstance(value, kind):
            raise UsageFault(f"{FILE}: {name}: {field}: each entry may hold {', '.join(_FIELDS)}")
    found = entry.get("root", root)
    if found not in ("workspace", "host"):
        raise UsageFault(f"{FILE}: {name}: root must be workspace or host, not {found!r}")
    return Image(entry, str(found))


def _read(path: str) -> dict[str, object]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError) as error:
        raise UsageFault(f"{FILE}: {path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UsageFault(f"{FILE}: {path} must hold one JSON object")
    return found


def _entry(images: dict[str, object], name: str) -> dict[str, object]:
    """The name itself, else the longest beginning of it."""
    beginnings = [each for each in images if each.endswith("*") and name.startswith(each[:-1])]
    found = images.get(name, images[max(beginnings, key=len)] if beginnings else {})
    if not isinstance(found, dict):
        raise UsageFault(f"{FILE}: {name} must be an object")
    return found
