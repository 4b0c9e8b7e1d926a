"""Admission without running: queued, held, and then released, expired or rejected."""

from gateway.protocol import LeaseEnding, LeaseRenewal, LeaseRequest, LeaseStatus


class Lease:
    id: str
    tenant: str


class Leases:
    def ask(self, tenant: str, request: LeaseRequest) -> Lease:
        """Held at once or queued. Raises Refusal: 429 ``queue_full``, 404 ``host_not_found``, 503 draining."""
        raise NotImplementedError

    def get(self, tenant: str, lease_id: str) -> Lease:
        """Raises Refusal 404 ``lease_not_found``."""
        raise NotImplementedError

    def status(self, lease: Lease) -> LeaseStatus:
        raise NotImplementedError

    async def wait_held(self, lease: Lease, timeout_s: float) -> None:
        """Returns when it is not queued any more, or after the timeout."""
        raise NotImplementedError

    def renew(self, lease: Lease, renewal: LeaseRenewal) -> None:
        """Raises Refusal 409 ``lease_over``."""
        raise NotImplementedError

    def release(self, lease: Lease, ending: LeaseEnding) -> None:
        """Of a queued one too; again is the same as once."""
        raise NotImplementedError
