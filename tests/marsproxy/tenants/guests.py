"""Tenants for tests: their keys, and the file that names them."""

from dataclasses import dataclass, field
from pathlib import Path

from marsproxy.tenants.keys import KeyRecord, new_key


@dataclass
class Guests:
    """``write(red="weight = 2")`` writes a file with a tenant ``red``, and keeps a key of each."""

    path: Path
    keys: dict[str, str] = field(default_factory=dict)
    records: dict[str, KeyRecord] = field(default_factory=dict)

    def write(self, **tenants: str) -> Path:
        for name in tenants:
            if name not in self.keys:
                self.keys[name], self.records[name] = new_key()
        self.path.write_text(
            "\n".join(
                f'[tenants.{name}]\nkeys = ["{self.records[name]}"]\n{text}' for name, text in tenants.items()
            )
        )
        return self.path

    def rotate(self, name: str) -> str:
        """Another key for the tenant; returns the one before."""
        before = self.keys[name]
        self.keys[name], self.records[name] = new_key()
        return before

    def bearer(self, name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[name]}"}
