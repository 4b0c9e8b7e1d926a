"""The host agent as one file, to be sent to hosts.

Owns how the file is made: a Python zip application of ``gateway/host_agent`` and nothing else, the same
bytes for the same sources on every machine (stored, not compressed: builds of zlib differ). It must not
know how the file gets to a host.
"""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

_SOURCES = Path(__file__).parent / "host_agent"
_INTERPRETER = b"#!/usr/bin/env python3\n"
_PACKAGE = '"""Part of the gateway: its host agent alone."""\n'
_MAIN = "import sys\n\nfrom gateway.host_agent.__main__ import main\n\nsys.exit(main())\n"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can say."""


@dataclass(frozen=True, slots=True)
class AgentBundle:
    data: bytes
    digest: str
    """SHA-256 in hex: which program a host has."""

    @property
    def file_name(self) -> str:
        return f"agent-{self.digest}.pyz"


def build_agent(sources: Path = _SOURCES) -> AgentBundle:
    texts = {f"gateway/host_agent/{path.name}": path.read_bytes() for path in sources.glob("*.py")}
    texts["gateway/__init__.py"] = _PACKAGE.encode()
    texts["__main__.py"] = _MAIN.encode()
    file = io.BytesIO()
    file.write(_INTERPRETER)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        for name in sorted(texts):
            archive.writestr(_entry(name), texts[name])
    data = file.getvalue()
    return AgentBundle(data, hashlib.sha256(data).hexdigest())


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _LONG_AGO)
    entry.create_system = 3  # Unix, wherever this runs
    entry.external_attr = 0o644 << 16
    return entry
