"""Fitted workloads that ship with the package: distributions in TOML, each figure with its source.

Knows nothing of servers. Session i of seed s is the same whatever the number of sessions.
"""

from loadgen.profiles.profile import Profile, load_profile, profile_names

__all__ = ["Profile", "load_profile", "profile_names"]
