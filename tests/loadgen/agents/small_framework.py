"""A framework small enough to believe, as the program that ``--python`` names: asks, runs, ends.

It speaks the lines of ``loadgen.agents.crew.orders`` in place of the crew. A session whose name ends in
``liar`` says that it is done at once, ``quitter`` ends the whole process.
"""

import json
import os
import subprocess
import sys
import threading
import urllib.request


def say(**report: object) -> None:
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def ask(order: dict, messages: list) -> dict:
    tools = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]
    body = json.dumps({"model": order["model"], "messages": messages, "tools": tools}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {order['api_key']}"}
    request = urllib.request.Request(order["base_url"] + "/chat/completions", body, headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["choices"][0]["message"]


def play(order: dict) -> None:
    messages: list = [{"role": "user", "content": order["task"]}]
    while not order["session"].endswith("liar"):
        answer = ask(order, messages)
        call = answer["tool_calls"][0]
        command = json.loads(call["function"]["arguments"])["command"]
        shell = order["shell"] or "bash"
        done = subprocess.run([shell, "-c", command], cwd=order["workspace"], capture_output=True, text=True)
        messages += [answer, {"role": "tool", "tool_call_id": call["id"], "content": done.stdout}]
        if "COMPLETE_TASK" in command:
            break
    say(event="ended", session=order["session"], error=None)


def main() -> None:
    say(event="loaded", framework="small", version="1.0")
    for line in sys.stdin:
        order = json.loads(line)
        if order["session"].endswith("quitter"):
            os._exit(3)
        threading.Thread(target=play, args=(order,)).start()


if __name__ == "__main__":
    main()
