"""Sessions of tenants, each on one host with a workspace of its own."""

from gateway.host import CommandHost
from gateway.protocol import SessionRequest, SessionStatus


class Session:
    tenant: str
    id: str
    host: str
    name: str
    """Of it on its host."""
    workspace: str
    settings: SessionRequest


class Sessions:
    async def put(self, tenant: str, session_id: str, settings: SessionRequest) -> tuple[Session, bool]:
        """Create the session or replace its settings; True if it is new. Checks the settings. Raises Refusal."""
        raise NotImplementedError

    def find(self, tenant: str, session_id: str) -> Session | None: ...

    def get(self, tenant: str, session_id: str) -> Session:
        """Raises Refusal 404, or 503 ``adopting`` while hosts are still asked what they have."""
        raise NotImplementedError

    def use(self, tenant: str, session_id: str) -> Session:
        """For a command, file or archive: it is not idle now. Raises Refusal."""
        raise NotImplementedError

    def client(self, session: Session) -> CommandHost:
        """Of its host, for files and archives under ``session.name``. Its HostLost is ``errors.host_lost``,
        its HostFault is the routes' own to explain."""
        raise NotImplementedError

    def status(self, session: Session) -> SessionStatus:
        raise NotImplementedError

    async def end(self, session: Session, reason: str) -> None:
        """End its commands, then remove its workspace. Goes on if the caller is cancelled."""
        raise NotImplementedError
