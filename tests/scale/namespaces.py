"""Each replica in a network namespace of its own, with two cables: one to clients and backends, one to the
store. Pulling one is a partition as the kernel knows it: packets go nowhere and nobody is told.

Needs the right to make namespaces (CAP_NET_ADMIN, as root has it) and iproute2; without them it fails.
"""

import os
import subprocess
from contextlib import suppress

from tests.scale.programs import Program

FRONT = "10.77.0"
STORE = "10.78.0"
"""First parts of the addresses on each of the two networks; this machine is number 1 on both."""


class Namespaces:
    """``Cabled`` to two bridges of this machine. ``close`` takes all of it away."""

    def __init__(self, count: int) -> None:
        self._tag = f"ms{os.getpid() % 100_000}"
        self._count = count
        try:
            for network, prefix in (("f", FRONT), ("s", STORE)):
                bridge = f"{self._tag}{network}"
                _ip("link", "add", bridge, "type", "bridge")
                _ip("addr", "add", f"{prefix}.1/24", "dev", bridge)
                _ip("link", "set", bridge, "up")
            for number in range(count):
                self._add(number)
        except BaseException:
            self.close()
            raise

    @property
    def backends_host(self) -> str:
        return f"{FRONT}.1"

    @property
    def store_host(self) -> str:
        return f"{STORE}.1"

    def host(self, number: int) -> str:
        """Where the replica in this namespace listens."""
        return f"{FRONT}.{10 + number}"

    def move_in(self, program: Program, number: int) -> None:
        program.inside = ("ip", "netns", "exec", self._name(number))

    def unplug_store(self, number: int) -> None:
        _ip("link", "set", f"{self._name(number)}s", "down")

    def plug_store(self, number: int) -> None:
        _ip("link", "set", f"{self._name(number)}s", "up")

    def close(self) -> None:
        """Links go with their namespace; what was never made is not missed."""
        with suppress(AssertionError):
            for number in range(self._count):
                _ip("netns", "del", self._name(number))
        for network in ("f", "s"):
            with suppress(AssertionError):
                _ip("link", "del", f"{self._tag}{network}")

    def _add(self, number: int) -> None:
        name = self._name(number)
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
        for network, prefix in (("f", FRONT), ("s", STORE)):
            cable = f"{name}{network}"
            _ip("link", "add", cable, "type", "veth", "peer", "name", f"eth{network}", "netns", name)
            _ip("link", "set", cable, "master", f"{self._tag}{network}", "up")
            _ip("-n", name, "addr", "add", f"{prefix}.{10 + number}/24", "dev", f"eth{network}")
            _ip("-n", name, "link", "set", f"eth{network}", "up")

    def _name(self, number: int) -> str:
        return f"{self._tag}n{number}"


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, (
        f"ip {' '.join(words)}: {done.stderr.strip()} (network namespaces need root or CAP_NET_ADMIN)"
    )
