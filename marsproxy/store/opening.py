"""Makes the journal of a replica that shares its state, as the configuration says."""

from marsproxy.config import Config
from marsproxy.journal import Replica
from marsproxy.store.fingerprint import fingerprint
from marsproxy.store.log import Log
from marsproxy.store.redis_journal import Patience, RedisJournal

MIN_TTL_S = 600.0
"""What is in the store outlives the last replica by this at least: a restart of them all."""


def group_of(config: Config) -> str:
    """Names those who may share a state with this configuration."""
    return f"{config.store.group}:{fingerprint(config.policy, config.policy_settings)}"


def ttl_s(config: Config) -> float:
    return max(config.sessions.idle_expiry_s, MIN_TTL_S)


def redis_journal(config: Config, replica: Replica, seed: int) -> RedisJournal:
    store, group = config.store, group_of(config)
    return RedisJournal(
        replica,
        lambda status, process: Log(
            store.url.reveal(),
            status,
            group=group,
            process=process,
            lease_s=store.lease_s,
            ttl_s=ttl_s(config),
            timeout_s=store.patience_s,
            seed=seed,
        ),
        Patience(store.patience_s, store.lease_s),
        expected_replicas=store.replicas,
    )
