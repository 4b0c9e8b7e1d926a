"""One seed for all replicas that share a state: digests of bodies mean the same in each of them.

It is a key of the group in the store, set by the first who asks. It has to be known before anything is
digested, so it is asked for once, at the start, and a replica that finds no store takes one of its own:
requests that are known by nothing but their whole body are new sessions on the other replicas then.
"""

import contextlib
import secrets

from redis.exceptions import RedisError

from marsproxy.config import Config
from marsproxy.store.log import seed_key
from marsproxy.store.opening import group_of, ttl_s
from marsproxy.store.redis_url import client_of

SEED_BITS = 63


async def group_seed(config: Config) -> int:
    """Of the replicas that share this one's state. Waits for the store's patience at most."""
    ours = secrets.randbits(SEED_BITS)
    client = client_of(config.store.url.reveal(), timeout_s=config.store.patience_s)
    try:
        key, ttl_ms = seed_key(group_of(config)), round(ttl_s(config) * 1000)
        with contextlib.suppress(RedisError, OSError, TimeoutError, ValueError):
            await client.set(key, ours, nx=True, px=ttl_ms)
            return int(await client.get(key) or ours)
    finally:
        with contextlib.suppress(RedisError, OSError):
            await client.aclose()
    return ours
