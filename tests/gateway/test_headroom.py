"""Readings of /proc; what is not there is unknown."""

from pathlib import Path

import pytest

from gateway.headroom import LocalHost
from gateway.slots import SlotQueue

MEMINFO = "MemTotal:        8000000 kB\nMemFree: 1 kB\nMemAvailable:    4000000 kB\n"
PRESSURE = "some avg10=12.50 avg60=1.00 avg300=0.10 total=1\nfull avg10=99.00 avg60=0 avg300=0 total=0\n"


def host_of(proc: Path, files: dict[str, str]) -> LocalHost:
    for name, text in files.items():
        (proc / name).parent.mkdir(exist_ok=True)
        (proc / name).write_text(text)
    return LocalHost("local", SlotQueue(2, queue_limit=2), lambda: 0.0, proc)


def test_what_the_kernel_says(tmp_path: Path) -> None:
    """MB are 10^6 bytes, pressure is a share."""
    files = {"meminfo": MEMINFO, "pressure/cpu": PRESSURE, "pressure/memory": PRESSURE.replace("12.5", "0.0")}
    seen = host_of(tmp_path, files).observe()
    assert (seen.memory_total_mb, seen.memory_available_mb) == (8192, 4096)
    assert (seen.cpu_pressure, seen.memory_pressure) == (0.125, 0.0)
    assert (seen.cores, seen.running, seen.queued, seen.queue_wait_s) == (2, 0, 0, None)


@pytest.mark.parametrize("text", ["", "some", "full avg10=1.0", "some avg10=x", "some avg60=1.0"])
def test_pressure_that_is_not_understood_is_unknown(tmp_path: Path, text: str) -> None:
    """Neither is a file that is not there."""
    seen = host_of(tmp_path, {"pressure/cpu": text})
    assert (seen.observe().cpu_pressure, seen.observe().memory_pressure) == (None, None)
    assert (seen.status().cpu_pressure, seen.status().memory_total_mb) == (None, None)
