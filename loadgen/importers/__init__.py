"""Transcripts of agent frameworks, as they lie on their users' disks, turned into workloads.

One module per format reads a file into ``Transcript``: the model's calls with what was counted and timed
around them. ``sessions`` makes sessions of that, ``find`` walks directories and tells formats apart, and
``command`` is ``loadgen import``. What is not asked for is not kept: no prompt, no answer, no command, no
name of a file leaves these modules, only counts, times and the names of tools that a framework ships.
"""
