"""Workloads in virtual time: the same policies, a model of the engine and of the tool hosts."""
