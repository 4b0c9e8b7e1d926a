"""The clock of the machine may jump; durations, deadlines and expiries do not notice.

Setting the real clock would disturb everything else here, so gateway and agent get a Python whose
``time.time`` is off by what a file says (``world.JUMPING``). Nothing else of theirs is touched: code
that counts on the monotonic clock cannot tell the difference, which is the point.
"""

from tests.gateway_live.world import open_world

DAY_S = 86_400


def test_jump_forward_ends_nothing(place: str) -> None:
    with open_world(place, "--session-idle-ttl-s", "60", has_clock=True) as world:
        session, goon = world.session(), world.trace()
        exec_id = session.start(f"echo up; until [ -e {goon} ]; do sleep 0.02; done", timeout_s=60)
        world.caller.look(exec_id)
        world.set_clock(2 * DAY_S)
        assert session.stdout("sleep 0.2; echo beside") == "beside\n"
        assert world.caller.look(exec_id)["state"] == "running"
        goon.touch()
        answer = world.caller.ended(exec_id)
        assert (answer["state"], answer["exit_code"]) == ("exited", 0)
        assert 0 < answer["run_s"] < DAY_S
        assert world.caller.output(exec_id) == b"up\n"


def test_jump_back_does_not_stop_timeouts(place: str) -> None:
    with open_world(place, has_clock=True) as world:
        world.set_clock(0)
        exec_id = world.session().start("sleep 1000", timeout_s=1)
        world.set_clock(-2 * DAY_S)
        answer = world.caller.ended(exec_id)
        assert (answer["state"], answer["exit_code"]) == ("timed_out", 124)
        assert 0 < answer["run_s"] < DAY_S


def test_jump_while_the_gateway_is_down(place: str) -> None:
    """Deadlines that survive a restart are the host's; its clock for them did not jump."""
    with open_world(place, has_clock=True) as world:
        goon = world.trace()
        exec_id = world.session().start(f"until [ -e {goon} ]; do sleep 0.02; done; exit 3", timeout_s=60)
        world.kill_gateway()
        world.set_clock(2 * DAY_S)
        world.start_gateway()
        assert world.caller.look(exec_id)["state"] == "running"
        goon.touch()
        assert world.caller.ended(exec_id)["exit_code"] == 3
