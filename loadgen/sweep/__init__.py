"""Runs a grid of simulations (policies, workloads, loads, seeds) and says what came out.

``grid`` and ``grid_file`` read what is asked for; ``cells`` gives every simulation a key that its inputs
decide; ``plan`` says, from what is measured already, which cells are next; ``runner`` runs them on all
cores and ``outcomes`` keeps what they gave; ``figures`` reduces it, ``bars`` judges it, and ``markdown`` and
``page`` write it down. Only ``simulated`` knows the simulator, so everything else is tried with a toy.
"""
