"""The half of ``loadgen agents`` that runs in a framework's own environment.

Standard library and the framework only: that environment has none of this project's dependencies. Each
module beside ``orders`` knows one framework by its public API, and changes nothing of it.
"""
