"""Readings of a host: what is not there is unknown, what a container has less of counts."""

import os
from pathlib import Path

import pytest

from gateway.host_agent.observe import CPU_INTERVAL_S, Observer
from gateway.host_agent.own_cgroup import OwnCgroup
from gateway.host_agent.wire import Op
from tests.gateway.host_agent.asking import Asking, FakeExecs

MEMINFO = "MemTotal:        8000000 kB\nMemFree: 1 kB\nMemAvailable:    4000000 kB\n"
PRESSURE = "some avg10=12.50 avg60=1.00 avg300=0.10 total=1\nfull avg10=99.00 avg60=0 avg300=0 total=0\n"
MB = 1_000_000


class Host:
    """A /proc and cgroup trees of our own making."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.proc = directory / "proc"
        self.cgroup = directory / "cgroup"
        self.now = 0.0
        self.write("proc/meminfo", MEMINFO)

    def write(self, name: str, text: object) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text))

    def observer(self) -> Observer:
        return Observer(self.directory, FakeExecs().usage, lambda: self.now, self.proc)

    def cpu(self, busy: int, idle: int) -> None:
        self.write("proc/stat", f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3\n")

    def version_2(self, own: str, mount_root: str = "/") -> None:
        self.write("proc/self/cgroup", f"0::{own}\n")
        mount = f"30 1 0:2 {mount_root} {self.cgroup} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
        self.write("proc/self/mountinfo", "29 1 8:1 / / rw - ext4 /dev/vda rw\n" + mount)

    def version_1(self, own: str) -> None:
        rows = [f"{n}:{name}:{own}" for n, name in enumerate(("memory", "cpu,cpuacct"), 1)]
        self.write("proc/self/cgroup", "\n".join([*rows, "0::/\n"]))
        mounts = [
            f"3{n} 1 0:{n} / {self.cgroup}/{name} rw - cgroup cgroup rw,{name}"
            for n, name in enumerate(("memory", "cpu,cpuacct"))
        ]
        self.write(
            "proc/self/mountinfo", "\n".join([*mounts, f"40 1 0:9 / {self.cgroup}/v2 rw - cgroup2 c rw\n"])
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_what_the_kernel_says(host: Host) -> None:
    """MB are 10^6 bytes, pressure is a share."""
    host.write("proc/pressure/cpu", PRESSURE)
    host.write("proc/pressure/memory", PRESSURE.replace("12.5", "0.0"))
    host.write("proc/loadavg", "1.50 1.00 0.50 2/345 6789\n")
    for pid in ("1", "23"):
        host.write(f"proc/{pid}/stat", "")
    seen = host.observer().reading()
    assert (seen["memory_total_mb"], seen["memory_available_mb"]) == (8192, 4096)
    assert (seen["cpu_pressure"], seen["memory_pressure"], seen["load_1m"]) == (0.125, 0.0, 1.5)
    assert (seen["processes"], seen["cores"]) == (2, len(os.sched_getaffinity(0)))
    assert host.observer().capabilities() == {"has_pressure": True}


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    """All of it, and not 0."""
    observer = Observer(tmp_path / "none", FakeExecs().usage, lambda: 0.0, tmp_path / "none")
    reading = observer.reading()
    assert {name for name, value in reading.items() if value is not None} == {"cores"}
    assert observer.capabilities() == {"has_pressure": False}


@pytest.mark.parametrize("text", ["", "some", "full avg10=1.0", "some avg10=x", "some avg60=1.0"])
def test_pressure_that_is_not_understood_is_unknown(host: Host, text: str) -> None:
    host.write("proc/pressure/cpu", text)
    assert host.observer().reading()["cpu_pressure"] is None


def test_how_busy_the_cores_were_between_readings(host: Host) -> None:
    host.cpu(busy=100, idle=100)
    observer = host.observer()
    assert observer.reading()["cpu_busy"] is None
    for busy, idle, expected in ((130, 110, 0.75), (130, 210, 0.0), (130, 210, None)):
        host.now += 1
        host.cpu(busy, idle)
        assert observer.reading()["cpu_busy"] == expected


def test_readings_in_quick_succession_agree(host: Host) -> None:
    """Two gateways that ask at once both get the share of the interval before."""
    host.cpu(busy=0, idle=0)
    observer = host.observer()
    host.now = 1
    host.cpu(busy=50, idle=50)
    assert observer.reading()["cpu_busy"] == 0.5
    host.now += CPU_INTERVAL_S / 2
    host.cpu(busy=51, idle=50)
    assert observer.reading()["cpu_busy"] == 0.5


def test_limits_of_our_own_cgroup(host: Host) -> None:
    """Version 2: those above ours count too, and files that were read and are not in use count as free."""
    host.version_2("/a/b")
    host.write("cgroup/a/b/memory.max", "max\n")
    host.write("cgroup/a/b/memory.current", 500 * MB)
    host.write("cgroup/a/memory.max", 1000 * MB)
    host.write("cgroup/a/memory.current", 700 * MB)
    host.write("cgroup/a/memory.stat", f"anon 1\ninactive_file {100 * MB}\n")
    host.write("cgroup/a/b/cpu.max", "50000 100000\n")
    host.write("cgroup/a/cpu.max", "max 100000\n")
    seen = host.observer().reading()
    assert (seen["memory_total_mb"], seen["memory_available_mb"], seen["cores"]) == (1000, 400, 0.5)


def test_a_machine_smaller_than_its_limits(host: Host) -> None:
    host.version_2("/a")
    host.write("cgroup/a/memory.max", 100_000 * MB)
    host.write("cgroup/a/memory.current", 1 * MB)
    host.write("cgroup/a/cpu.max", "100000000 100000\n")
    seen = host.observer().reading()
    assert (seen["memory_total_mb"], seen["memory_available_mb"]) == (8192, 4096)
    assert seen["cores"] == len(os.sched_getaffinity(0))


def test_limits_of_version_1(host: Host) -> None:
    host.version_1("/job")
    host.write("cgroup/memory/job/memory.limit_in_bytes", 600 * MB)
    host.write("cgroup/memory/job/memory.usage_in_bytes", 200 * MB)
    host.write("cgroup/memory/memory.limit_in_bytes", 9223372036854771712)
    host.write("cgroup/memory/memory.usage_in_bytes", 300 * MB)
    host.write("cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", 25_000)
    host.write("cgroup/cpu,cpuacct/job/cpu.cfs_period_us", 100_000)
    host.write("cgroup/cpu,cpuacct/cpu.cfs_quota_us", -1)
    seen = host.observer().reading()
    assert (seen["memory_total_mb"], seen["memory_available_mb"], seen["cores"]) == (600, 400, 0.25)


def test_a_quota_that_is_used_up_is_a_busy_host(host: Host) -> None:
    """However idle the machine around us is."""
    host.version_2("/a")
    host.write("cgroup/a/cpu.max", "200000 100000\n")
    host.write("cgroup/a/cpu.stat", "usage_usec 1000000\n")
    host.cpu(busy=0, idle=0)
    observer = host.observer()
    host.now = 2
    host.cpu(busy=10, idle=90)
    host.write("cgroup/a/cpu.stat", "usage_usec 4000000\n")
    assert observer.reading()["cpu_busy"] == 0.75


def test_a_container_sees_a_part_of_the_tree(host: Host) -> None:
    """Mounted from our own cgroup on, or from one that we are not in."""
    for own, root in (("/docker/x", "/docker/x"), ("/../y", "/docker/x"), ("/elsewhere", "/docker/x")):
        host.version_2(own, root)
        host.write("cgroup/cpu.max", "150000 100000\n")
        assert OwnCgroup(host.proc).quota_cores() == 1.5


def test_without_cgroups(host: Host) -> None:
    host.write("proc/self/cgroup", "nonsense\n")
    host.write("proc/self/mountinfo", "nonsense\n")
    cgroup = OwnCgroup(host.proc)
    assert (cgroup.quota_cores(), cgroup.memory(), cgroup.cpu_s()) == (None, None, None)


async def test_this_host() -> None:
    """Whatever it is, it has memory, disk and processes; and the use of each command is told."""
    asking = Asking(Observer(Path("/tmp"), FakeExecs().usage).operations())
    seen = (await asking(Op.OBSERVE)).header
    for name in ("cores", "load_1m", "memory_total_mb", "memory_available_mb", "disk_free_mb", "processes"):
        assert seen[name] is not None, name
    assert 0 < seen["memory_available_mb"] <= seen["memory_total_mb"]
    assert seen["execs"] == {"e1": {"cpu_s": 1.5, "rss_mb": None}}
