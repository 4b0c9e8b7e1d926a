"""The REST API with real commands."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway.limits import Limits
from gateway.protocol import ExecStatus, HostList, SessionStatus
from tests_types import OpenRig, ProcessesOf, Rig
