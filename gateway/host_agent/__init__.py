"""The program that a gateway puts on each host where commands run, its own included.

It needs nothing but Linux and Python 3.9: it is sent over as one file and imports only the standard library
and itself (``wire`` is shared with the gateway). It owns the processes, their output and their deadlines, so
that a gateway or a connection may come and go without a command noticing.
"""
