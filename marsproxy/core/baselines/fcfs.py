"""Stock vLLM behind a router that keeps a session on its backend: nothing is held, nothing is tagged."""

from marsproxy.core.baselines.base import FollowedTurn, Follower


class Fcfs(Follower):
    """First come, first served."""

    def turn_arrived(self, turn: FollowedTurn, now: float) -> None:
        self.forward(turn, self.home_of(turn.session))
