"""Programs that stand where an agent framework starts a shell or docker, and go through the gateway instead.

A shim is started once per command of an agent, so its start is latency: nothing here imports more than the
standard library, and of that only what starts fast (no dataclasses, typing, http.client, argparse, asyncio).
The way of one command: ``gwsh`` reads its words (``shell_words``) and settings (``settings``), takes a lease
and runs the real shell (``leased_command``), or has the gateway run it (``remote_run``); a ``vigil`` stays
behind for the case that the shim is killed. ``gw_docker`` says the same things in docker's words.
"""
