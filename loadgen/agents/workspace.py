"""The directory that an agent works in: one program, which the task's commands run, and what they leave.

Every step that ran to its end leaves its number; so it can be told afterwards whether the work was done, each
step once and in order, whatever the framework says. The program needs ``python3`` and nothing else.
"""

from pathlib import Path

DONE_FILE = "steps.done"
PROGRAM = '''\
"""One step of the task: works for so long, says what it found, and leaves its number."""
import sys, time
number, options = sys.argv[1], dict(option.lstrip("-").split("=") for option in sys.argv[2:])
seconds, cpu, chars = float(options["seconds"]), float(options["cpu"]), int(options["chars"])
start = time.perf_counter()
while True:
    passed, spent = time.perf_counter() - start, time.process_time()
    if passed >= seconds and spent >= cpu:
        break
    if spent < cpu:
        sum(range(20000))
    else:
        time.sleep(0.005)
words = "test file line value return import class error expect result index def self key path list".split()
draw, line, written = int(options["seed"]), [], 0
while written < chars:
    draw = (draw * 1103515245 + 12345) % 2**31
    line.append(words[draw >> 16 & 15])
    written += len(line[-1]) + 1
    if len(line) == 12 or written >= chars:
        print(*line)
        line.clear()
with open("steps.done", "a") as done:
    done.write(number + "\\n")
'''
"""It ends when its time is over and its CPU seconds are spent: on a crowded host it takes longer, as a real
command would."""


def prepare(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "step.py").write_text(PROGRAM, encoding="utf-8")


def missing(folder: Path, steps: int) -> str | None:
    """What is wrong with the work; None if every step was done once, in order."""
    try:
        done = (folder / DONE_FILE).read_text(encoding="utf-8").split()
    except FileNotFoundError:
        done = []
    wanted = [str(step) for step in range(1, steps + 1)]
    if done == wanted:
        return None
    return f"the workspace shows {len(done)} steps, {len(set(done))} of them different; planned were {steps}"
