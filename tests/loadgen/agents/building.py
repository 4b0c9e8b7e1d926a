"""Workloads of a few short sessions, and the small framework as a program."""

import stat
import sys
from pathlib import Path

from loadgen.workload import Session, ToolCall, Turn

FRAMEWORK = Path(__file__).with_name("small_framework.py")


def session_of(name: str, steps: int = 2, tool_s: float = 0.01) -> Session:
    tool = ToolCall("bash", tool_s)
    turns = [Turn(new_tokens=40, output_tokens=60, tool=tool) for _ in range(steps)]
    return Session(id=name, turns=[*turns, Turn(new_tokens=30, output_tokens=60)])


def small_framework(folder: Path) -> Path:
    """For ``--python``: whatever it is given as arguments, it is the small framework."""
    program = folder / "small-framework"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {FRAMEWORK}\n", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program
