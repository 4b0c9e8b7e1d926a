"""Doors for frameworks that speak another protocol than ours: SWE-ReX, MCP, and Codex' exec-server.

Each translates; whatever runs goes through the gateway's own sessions, submission and execs, so that
admission, containment and at-most-once hold as for the REST API. None has a way of its own to a host.
"""
