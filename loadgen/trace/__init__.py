"""Readers that turn any known trace into the one workload description, and the writer of our own form.

Knows file formats and nothing of servers. A reader yields ``Session`` objects one by one; what is
wrong in a file is said with file, line, field and the allowed values.
"""

from loadgen.trace.detect import TraceKind, read_sessions
from loadgen.trace.lines import BadLines
from loadgen.trace.own import write_sessions
from loadgen.trace.select import Select, parse_select

__all__ = ["BadLines", "Select", "TraceKind", "parse_select", "read_sessions", "write_sessions"]
