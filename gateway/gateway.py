"""One gateway: its parts, put together, and the order in which they start and stop."""

from dataclasses import dataclass

from gateway.execs import Execs
from gateway.hosts import Hosts
from gateway.leases import Leases
from gateway.limits import Limits
from gateway.metrics import Metrics
from gateway.sessions import Sessions
from gateway.submission import Submission
from gateway.tenants import Tenants


@dataclass(slots=True)
class Gateway:
    limits: Limits
    tenants: Tenants
    hosts: Hosts
    sessions: Sessions
    execs: Execs
    submission: Submission
    leases: Leases
    metrics: Metrics
    is_draining: bool = False

    def drain(self) -> None:
        """Take nothing new; what was started ends or goes on as ``on_stop`` says."""
        raise NotImplementedError
