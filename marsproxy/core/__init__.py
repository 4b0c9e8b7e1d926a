"""The policy core: events in, commands out, time as an argument.

Nothing in here does input or output, reads a clock, draws a random number, logs or looks at the
environment; ``tests/test_architecture.py`` enforces that. So the same objects decide for the live
proxy and for the simulator, and an event log replays to the same commands.
"""
