"""What is said to a host over SSH before there is an agent that speaks frames.

Owns the words that we run there, and how their answers are told from whatever a login shell prints on its
own. It must not know SSH: it makes command lines and reads lines.

Theory of operation. sshd hands our command line to the user's login shell, which may be any shell and may
greet. So the command line is one that every shell understands (quoted words, no newline), hands over to
``/bin/sh``, and that to the host's Python, which answers with one line that begins with a *mark*: random, so
that nothing else can be taken for it. What comes before that line is not ours; what comes after "ready" is
frames.
"""

import base64
import secrets
import shlex
from dataclasses import dataclass

from gateway.agent_bundle import AgentBundle

READY = "ready"
NO_PROGRAM = "no_program"

_SHELL = (
    'command -v "$0" >/dev/null 2>&1 || { printf "\\n%s no_python\\n" "$2"; exit 0; };'
    ' exec "$0" -E -s -c "$1" "$2" "$3" "$4" "$5"'
)
"""Without -I, which Python 2 does not know: it is to say that it is too old."""

_PRELUDE = """
import os, sys
mark, directory, name, digest = sys.argv[1:5]
def answer(*words):
    sys.stdout.write("\\n" + " ".join((mark,) + words) + "\\n")
    sys.stdout.flush()
def give_up(*words):
    answer(*words)
    sys.exit(0)
if sys.version_info < (3, 9):
    give_up("old_python", "%d.%d" % sys.version_info[:2])
directory = os.path.expanduser(directory)
try:
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if os.stat(directory).st_uid != os.geteuid():
        give_up("not_ours")
    os.chmod(directory, 0o700 | os.stat(directory).st_mode & 0o011)
except OSError as error:
    give_up("no_directory", str(error.strerror))
path = os.path.join(directory, name)
"""

_CONNECT = (
    _PRELUDE
    + """
if not os.path.exists(path):
    give_up("no_program")
answer("ready")
os.execv(sys.executable, [sys.executable, "-I", path, "connect", directory])
"""
)

_INSTALL = (
    _PRELUDE
    + """
import hashlib
data = sys.stdin.buffer.read()
if hashlib.sha256(data).hexdigest() != digest:
    give_up("damaged")
new = "%s.%d" % (path, os.getpid())
try:
    with open(new, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
except OSError as error:
    try:
        os.unlink(new)
    except OSError:
        pass
    give_up("not_written", str(error.strerror))
answer("ready")
"""
)
"""The name is given only to a file that is whole and on the disk, so a file of that name is both."""


@dataclass(frozen=True, slots=True)
class Words:
    """A command line, and the mark that its answer has."""

    command: str
    mark: bytes

    def answer(self, line: bytes) -> list[str] | None:
        """None: this line is not the answer."""
        mark, *words = line.rstrip(b"\r\n").split(b" ")
        return [word.decode(errors="replace") for word in words] if mark == self.mark else None


def connect_words(python: str, directory: str, bundle: AgentBundle) -> Words:
    return _words(_CONNECT, python, directory, bundle)


def install_words(python: str, directory: str, bundle: AgentBundle) -> Words:
    """The program itself goes to its standard input, which then ends."""
    return _words(_INSTALL, python, directory, bundle)


def trouble(answer: list[str], python: str, directory: str) -> str:
    """For an administrator, of an answer that is not the one hoped for."""
    match answer:
        case ["no_python"]:
            return f"there is no {python!r} on its PATH; the setting python names another"
        case ["old_python", version]:
            return f"{python} is version {version} there; 3.9 or later is needed"
        case ["not_ours"]:
            return f"its directory {directory} belongs to another user"
        case ["no_directory", *reason]:
            return f"its directory {directory} cannot be made: {' '.join(reason)}"
        case ["not_written", *reason]:
            return f"the agent's program could not be written into {directory}: {' '.join(reason)}"
        case ["damaged"]:
            return "the agent's program arrived damaged"
    return "the answer of its Python makes no sense"


def _words(program: str, python: str, directory: str, bundle: AgentBundle) -> Words:
    mark = f"mars-{secrets.token_hex(16)}"
    encoded = base64.b64encode(program.encode()).decode()
    run = f'import base64; exec(base64.b64decode("{encoded}"))'
    arguments = [python, run, mark, directory, bundle.file_name, bundle.digest]
    return Words(f"exec /bin/sh -c {shlex.join([_SHELL, *arguments])}", mark.encode())
