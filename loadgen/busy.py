"""The command that stands for a traced tool call: so many seconds, so many of them on the CPU.

It needs ``python3`` on the tool host and nothing else. It ends when its time is over *and* its CPU
seconds are spent, so on a crowded host it takes longer, as the real command would.
"""

import math

from loadgen.workload import ToolCall

SCRIPT = """\
import os,sys,time
d,w,n,m=float(sys.argv[1]),float(sys.argv[2]),int(sys.argv[3]),int(sys.argv[4])
held=b"x"*(m<<20)
kids=[]
for _ in range(n-1):
    kid=os.fork()
    if not kid:
        kids=[];break
    kids.append(kid)
start=time.perf_counter()
while True:
    passed=time.perf_counter()-start;spent=time.process_time()
    if passed>=d and spent>=w:break
    if spent<w*min(1,passed/d if d else 1) or passed>=d:
        sum(range(20000))
    else:
        time.sleep(0.002)
for kid in kids:os.waitpid(kid,0)
"""


def busy_argv(call: ToolCall) -> list[str]:
    """A call that neither computes nor holds memory is a plain ``sleep``: thousands of them cost nothing."""
    if call.cores == 0 and call.memory_mb == 0:
        return ["sleep", f"{call.traced_s:.3f}"]
    processes = max(1, math.ceil(call.cores))
    cpu_s = call.traced_s * call.cores / processes
    numbers = [f"{call.traced_s:.3f}", f"{cpu_s:.4f}", str(processes), str(round(call.memory_mb))]
    return ["python3", "-ISc", SCRIPT, *numbers]
