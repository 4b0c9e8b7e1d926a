"""What bash reads before each command of a SWE-ReX session, so that a shell seems to stay and a machine to be
its own.

Owns two scripts, which lie in ``.mars`` of the workspace, and the variables by which they are told what to
do.

Theory of operation. A command runs as ``bash -c TEXT``, its text untouched. BASH_ENV names ``gate.sh``, which
bash reads first. That does, in this order:

1. *view*: with ``private``, bash is replaced by ``unshare`` and ``view.sh``, which make the workspace the
   root of a mount namespace, with everything of the host's own root but ``/root`` and ``/tmp`` bound into it;
   there the same ``bash -c TEXT`` begins again. So ``/root/tools``, ``/tmp/x`` and ``/repo`` are the
   session's own, and agents that all write there do not meet. With ``host``, absolute paths are the host's.
2. *check*: text that is no bash is told so by ``SYNTAX_MARK`` and never begun.
3. *state*: variables, functions, aliases, ``shopt`` options and the directory that the last command left are
   taken back, and an EXIT trap writes them down again.

A trap on EXIT of the command's own, or ``exec``, keeps the last from happening: then the old state stays. Not
kept are options of ``set``, traps, jobs and open descriptors.
"""

import hashlib

from gateway.host_agent.wire import MARKER, OWNER

DIRECTORY = ".mars"
GATE_PATH = f"{DIRECTORY}/gate.sh"
VIEW_PATH = f"{DIRECTORY}/view.sh"
SYNTAX_MARK = b"\x1emars: not bash\x1e"
"""Before what ``bash -n`` says, on stdout, of a command that was not begun."""
CWD_MARK = b"\x1emars: no such directory\x1e"
"""Before what ``cd`` says, likewise. Of a command that writes such a thing itself the same is believed."""
NOT_BEGUN = 2
"""Exit code with both; bash itself has it for a syntax error."""

_VIEW_VARIABLE = "__mars_view"
_STATE_VARIABLE = "__mars_state"
_CWD_VARIABLE = "__mars_cwd"

VIEW = r"""# The workspace becomes the root directory; $1 is its path, $2 the command, $3 its PATH.
set -e
mount --bind "$1" "$1"
for path in /*; do
  name=${path#/}
  case $name in root | tmp) continue ;; esac
  if [[ -L $path ]]; then
    [[ -e $1/$name || -L $1/$name ]] || cp -P "$path" "$1/$name"
  elif [[ -d $path ]]; then
    mkdir -p "$1/$name"
    mount --rbind "$path" "$1/$name"
  fi
done
mkdir -p "$1/root" "$1/tmp" "$1/.mars/host"
chmod 1777 "$1/tmp" || true
cd "$1"
pivot_root . .mars/host
umount -l /.mars/host
cd /
export HOME=/root
export PATH=$3 BASH_ENV=.mars/gate.sh
exec -a bash "$BASH" -c "$2"
"""

_GATE = r"""if [[ ${__mars_view-} == private ]]; then
  export __mars_view=inside
  unset BASH_ENV
  if ((EUID == 0)); then set -- --mount; else set -- --user --map-root-user --mount; fi
  PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin exec unshare "$@" \
    "$BASH" .mars/view.sh "$PWD" "$BASH_EXECUTION_STRING" "$PATH"
fi
unset BASH_ENV
__mars_file=${__mars_state:+${PWD%/}/.mars/$__mars_state} __mars_start=${__mars_cwd-}
unset __mars_view __mars_state __mars_cwd
[[ $PWD != / ]] || cd /
if ! __mars_said=$("$BASH" -n -c "$BASH_EXECUTION_STRING" 2>&1); then
  builtin printf '@MARK@%s' "$__mars_said"
  exit @EXIT@
fi
unset __mars_said
__mars_leave() {
  {
    set +exuf
    [[ $__mars_has_left ]] && return
    __mars_has_left=1 __mars_ifs=$IFS IFS=$' \t\n'
    for __mars_name in $(builtin compgen -v); do
      case $__mars_name in
        __mars_* | _ | @MARKER@ | @OWNER@ | BASH* | EUID | UID | PPID | SHELLOPTS | SHLVL) continue ;;
        LINENO | FUNCNAME | PIPESTATUS | RANDOM | SRANDOM | SECONDS | EPOCH* | DIRSTACK) continue ;;
        GROUPS | HISTCMD | COMP_* | OPT*) continue ;;
        IFS) builtin printf 'IFS=%q\n' "$__mars_ifs" ;;
        *) builtin declare -p "$__mars_name" ;;
      esac
    done
    for __mars_name in $(builtin compgen -A function); do
      case $__mars_name in __mars_*) ;; *) builtin declare -f "$__mars_name" ;; esac
    done
    builtin declare -Fx | while builtin read -r _ _ __mars_name; do
      builtin printf 'export -f %q\n' "$__mars_name"
    done
    builtin alias -p
    builtin shopt -p
    umask -p
    builtin printf 'builtin cd -- %q\n' "$PWD"
  } 2>/dev/null >|"$__mars_file.new"
  command -p mv -f "$__mars_file.new" "$__mars_file" 2>/dev/null
}
shopt -s expand_aliases
if [[ $__mars_file && -s $__mars_file ]]; then
  for __mars_name in $(compgen -e); do
    case $__mars_name in @MARKER@ | @OWNER@) ;; *) unset -v "$__mars_name" 2>/dev/null ;; esac
  done
  source "$__mars_file" 2>/dev/null
fi
if [[ $__mars_start ]] && ! __mars_said=$(cd -- "$__mars_start" 2>&1); then
  builtin printf '@CWD@%s' "$__mars_said"
  exit @EXIT@
fi
[[ ! $__mars_start ]] || cd -- "$__mars_start"
unset __mars_start __mars_name __mars_said
if [[ $__mars_file ]]; then trap __mars_leave EXIT; fi
"""


def _escaped(mark: bytes) -> str:
    return mark.decode().replace("\x1e", r"\x1e")


GATE = (
    _GATE.replace("@MARK@", _escaped(SYNTAX_MARK))
    .replace("@CWD@", _escaped(CWD_MARK))
    .replace("@EXIT@", str(NOT_BEGUN))
    .replace("@MARKER@", MARKER)
    .replace("@OWNER@", OWNER)
)


def state_path(shell: str) -> str:
    """In the workspace, of the state that a shell of that name left."""
    return f"{DIRECTORY}/{_state_name(shell)}"


def gate_env(*, is_private: bool, shell: str | None = None, cwd: str | None = None) -> dict[str, str]:
    """The environment of a command that passes the gate; with ``shell`` it goes on where that one was."""
    env = {"BASH_ENV": GATE_PATH, _VIEW_VARIABLE: "private" if is_private else "host"}
    if shell is not None:
        env[_STATE_VARIABLE] = _state_name(shell)
    if cwd is not None:
        env[_CWD_VARIABLE] = cwd
    return env


def _state_name(shell: str) -> str:
    return f"shell-{hashlib.sha256(shell.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
