"""When a shell holds a lease: input, CPU time and the gateway's answers in, what is passed on out."""

from dataclasses import dataclass, field

import pytest

from gateway.shims.bursts import ASKING, BUSY, MOST_WITHHELD_BYTES, RESTING, Bursts, Use
from gateway.shims.calls import Unreachable
from gateway.shims.lease import RENEWAL_S, NoRoom

QUEUE_S = 20.0


@dataclass
class FakeLease:
    """Answers as it was told to."""

    gateway: "FakeGateway"
    text: bytes | None
    is_held: bool = False
    is_back: bool = False
    renewals: list[float | None] = field(default_factory=list)

    def ask(self) -> None:
        self.look()

    def look(self, wait_s: float = 0.0) -> None:
        self.gateway.calls += 1
        if self.gateway.fault is not None:
            raise self.gateway.fault
        self.is_held = self.gateway.has_room

    def renew(self, rss_mb: float | None = None) -> None:
        self.renewals.append(rss_mb)

    def give_back(self) -> None:
        self.is_back = True


@dataclass
class FakeGateway:
    has_room: bool = True
    fault: Exception | None = None
    calls: int = 0
    leases: list[FakeLease] = field(default_factory=list)

    def make(self, text: bytes | None) -> FakeLease:
        self.leases.append(FakeLease(self, text))
        return self.leases[-1]


def idle(ticks: int = 0) -> Use:
    return Use(ticks, is_running=False, has_children=False)


def working(ticks: int) -> Use:
    return Use(ticks, is_running=True, has_children=True, rss_mb=ticks * 10)


def waiting(ticks: int) -> Use:
    return Use(ticks, is_running=False, has_children=True)


def shell(gateway: FakeGateway) -> Bursts:
    return Bursts(gateway.make, QUEUE_S)


def test_keys_pass_and_a_line_takes_a_lease() -> None:
    gateway = FakeGateway()
    bursts = shell(gateway)
    bursts.accept(b"make", 0.0)
    assert (bursts.passed(), bursts.state, gateway.leases) == (b"make", RESTING, [])
    bursts.accept(b" all\n", 0.1)
    assert (bursts.passed(), bursts.state) == (b" all\n", BUSY)
    assert [each.text for each in gateway.leases] == [b" all"]


def test_lease_goes_back_when_nothing_works_any_more() -> None:
    gateway = FakeGateway()
    bursts = shell(gateway)
    bursts.accept(b"make\n", 0.0)
    for at, use in enumerate([working(1), working(5), waiting(5), waiting(6), working(9)]):
        bursts.look(use, at * 0.5)
        assert bursts.state == BUSY
    bursts.look(idle(9), 2.04)
    assert bursts.state == BUSY
    bursts.look(idle(9), 2.09)
    assert (bursts.state, gateway.leases[0].is_back) == (RESTING, True)


def test_a_line_at_the_prompt_is_work_of_its_own_however_soon() -> None:
    gateway = FakeGateway()
    bursts = shell(gateway)
    bursts.accept(b"make\n", 0.0)
    bursts.look(working(1), 0.03)
    bursts.before_line(idle(9))
    assert (bursts.state, gateway.leases[0].is_back) == (RESTING, True)
    bursts.accept(b"make test\n", 0.04)
    assert [each.text for each in gateway.leases] == [b"make", b"make test"]


@pytest.mark.parametrize("use", [working(2), waiting(2), Use(2, is_running=True, has_children=False)])
def test_a_line_for_what_runs_is_no_work_of_its_own(use: Use) -> None:
    gateway = FakeGateway()
    bursts = shell(gateway)
    bursts.accept(b"python3\n", 0.0)
    bursts.before_line(use)
    bursts.accept(b"1 + 1\n", 0.04)
    assert (bursts.state, len(gateway.leases)) == (BUSY, 1)


def test_a_withheld_line_stays_withheld() -> None:
    gateway = FakeGateway(has_room=False)
    bursts = shell(gateway)
    bursts.accept(b"make\n", 0.0)
    bursts.before_line(idle(1))
    bursts.accept(b"make test\n", 0.04)
    assert (bursts.state, bursts.passed(), len(gateway.leases)) == (ASKING, b"", 1)


def test_what_waits_long_holds_nothing_and_its_next_line_asks_again() -> None:
    gateway = FakeGateway()
    bursts = shell(gateway)
    bursts.accept(b"python3\n", 0.0)
    bursts.look(waiting(3), 0.1)
    bursts.look(waiting(3), 0.9)
    assert bursts.state == BUSY
    bursts.look(waiting(3), 1.1)
    assert bursts.state == RESTING
    bursts.accept(b"1 + 1\n", 5.0)
    assert len(gateway.leases) == 2


def test_line_is_withheld_until_there_is_room() -> None:
    gateway = FakeGateway(has_room=False)
    bursts = shell(gateway)
    bursts.accept(b"make\n", 0.0)
    bursts.look(idle(), 0.03)
    bursts.accept(b"more", 0.04)
    assert (bursts.passed(), bursts.state) == (b"", ASKING)
    gateway.has_room = True
    bursts.look(idle(), 0.06)
    assert (bursts.passed(), bursts.state) == (b"make\nmore", BUSY)


def test_line_is_passed_on_when_there_was_no_room_in_time() -> None:
    gateway = FakeGateway(has_room=False)
    bursts = shell(gateway)
    bursts.accept(b"make\n", 0.0)
    bursts.look(idle(), QUEUE_S - 0.1)
    assert bursts.passed() == b""
    bursts.look(idle(), QUEUE_S)
    assert (bursts.passed(), bursts.state) == (b"make\n", BUSY)
    assert not gateway.leases[0].is_back


def test_refused_line_is_passed_on() -> None:
    gateway = FakeGateway(has_room=False)
    bursts = shell(gateway)
    bursts.accept(b"make\n", 0.0)
    gateway.fault = NoRoom("full")
    bursts.look(idle(), 0.1)
    assert (bursts.passed(), bursts.state) == (b"make\n", BUSY)
    bursts.look(idle(), 0.2)
    gateway.fault = None
    bursts.accept(b"make\n", 0.3)
    assert len(gateway.leases) == 2


def test_interrupt_never_waits() -> None:
    bursts = shell(FakeGateway(has_room=False))
    bursts.accept(b"make\n", 0.0)
    bursts.accept(b"\x03", 1.0)
    assert bursts.passed() == b"make\n\x03"


def test_gateway_that_fails_is_left_alone_for_a_while() -> None:
    gateway = FakeGateway(fault=Unreachable("down"))
    bursts = shell(gateway)
    for at in (0.0, 1.0, 2.0, 3.0):
        bursts.accept(b"ls\n", at)
        assert bursts.passed() == b"ls\n"
        bursts.look(idle(), at + 0.5)
        assert bursts.state == RESTING
    assert gateway.calls == 1
    gateway.fault = None
    bursts.accept(b"ls\n", 6.0)
    assert (gateway.calls, gateway.leases[-1].is_held) == (2, True)


def test_input_of_a_program_that_works_is_not_withheld() -> None:
    gateway = FakeGateway()
    bursts = shell(gateway)
    bursts.accept(b"make\n", 0.0)
    gateway.has_room = False
    bursts.look(working(4), 0.1)
    bursts.accept(b"yes\n", 0.2)
    assert bursts.passed() == b"make\nyes\n"
    assert len(gateway.leases) == 1


def test_background_work_is_accounted_for() -> None:
    gateway = FakeGateway()
    bursts = shell(gateway)
    bursts.look(waiting(0), 0.0)
    bursts.look(working(9), 0.25)
    assert gateway.leases == []
    bursts.look(working(30), 0.5)
    assert ([each.text for each in gateway.leases], bursts.state) == ([None], BUSY)


def test_long_work_renews() -> None:
    gateway = FakeGateway()
    bursts = shell(gateway)
    bursts.accept(b"make\n", 0.0)
    for look in range(1, 10):
        bursts.look(working(look), look * RENEWAL_S / 2)
    assert gateway.leases[0].renewals == [20, 40, 60, 80]


def test_what_is_withheld_is_bounded() -> None:
    bursts = shell(FakeGateway(has_room=False))
    bursts.accept(b"\n", 0.0)
    assert bursts.takes_more
    bursts.accept(b"x" * MOST_WITHHELD_BYTES, 0.0)
    assert not bursts.takes_more
