"""What may go wrong in a world, each with its mending.

Owns the breaking. It must not know what has to hold meanwhile.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.scale.programs import Program
from tests.scale.world import World

ADDED_LATENCY_S = 0.5
"""Of a round trip to the store: half of it in each direction."""

Step = Callable[[World, int], Awaitable[None]]
"""Of a world, and of the replica or backend with this number."""


@dataclass(frozen=True)
class Fault:
    name: str
    strike: Step
    mend: Step
    breaks_store: bool = False
    """Replicas may be on their own while it lasts."""


async def _kill_replica(world: World, number: int) -> None:
    await world.kill(_nth(world.replicas, number))


async def _restart_replica(world: World, number: int) -> None:
    await world.restart(_nth(world.replicas, number))


async def _kill_backend(world: World, number: int) -> None:
    await world.kill(_nth(world.backends, number))


async def _restart_backend(world: World, number: int) -> None:
    await world.restart(_nth(world.backends, number))


async def _kill_store(world: World, number: int) -> None:
    assert world.store is not None
    await world.kill(world.store)


async def _restart_store(world: World, number: int) -> None:
    assert world.store is not None
    await world.restart(world.store)


async def _kill_gateway(world: World, number: int) -> None:
    assert world.gateway is not None
    await world.kill(world.gateway)


async def _nothing(world: World, number: int) -> None:
    """A gateway that comes back takes another port: the world goes on without."""


async def _cut_store(world: World, number: int) -> None:
    assert world.store is not None
    world.wire(_nth(world.replicas, number), world.store).cut()


async def _mend_store(world: World, number: int) -> None:
    assert world.store is not None
    world.wire(_nth(world.replicas, number), world.store).mend()


async def _unplug_store(world: World, number: int) -> None:
    assert world.namespaces is not None
    world.namespaces.unplug_store(number % len(world.replicas))


async def _plug_store(world: World, number: int) -> None:
    assert world.namespaces is not None
    world.namespaces.plug_store(number % len(world.replicas))


async def _cut_backend(world: World, number: int) -> None:
    world.wire(_nth(world.replicas, number), _nth(world.backends, number)).cut()


async def _mend_backend(world: World, number: int) -> None:
    world.wire(_nth(world.replicas, number), _nth(world.backends, number)).mend()


async def _slow_store(world: World, number: int) -> None:
    assert world.store is not None
    for replica in world.replicas:
        world.wire(replica, world.store).delay_s = ADDED_LATENCY_S / 2


async def _quick_store(world: World, number: int) -> None:
    assert world.store is not None
    for replica in world.replicas:
        world.wire(replica, world.store).delay_s = 0.0


async def _pause_replica(world: World, number: int) -> None:
    _nth(world.replicas, number).pause()


async def _resume_replica(world: World, number: int) -> None:
    _nth(world.replicas, number).resume()


def _nth(programs: list[Program], number: int) -> Program:
    return programs[number % len(programs)]


REPLICA_KILLED = Fault("replica killed", _kill_replica, _restart_replica)
REPLICA_PAUSED = Fault("replica paused", _pause_replica, _resume_replica)
BACKEND_KILLED = Fault("backend killed", _kill_backend, _restart_backend)
STORE_KILLED = Fault("store killed", _kill_store, _restart_store, breaks_store=True)
GATEWAY_KILLED = Fault("gateway killed", _kill_gateway, _nothing)
CUT_FROM_STORE = Fault("replica cut from store", _cut_store, _mend_store, breaks_store=True)
UNPLUGGED_FROM_STORE = Fault("replica unplugged from store", _unplug_store, _plug_store, breaks_store=True)
CUT_FROM_BACKEND = Fault("replica cut from backend", _cut_backend, _mend_backend)
STORE_SLOW = Fault("store half a second away", _slow_store, _quick_store)

NONE = Fault("nothing", _nothing, _nothing)
