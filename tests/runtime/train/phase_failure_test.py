"""A rank that is killed in any phase of a training step: every other process ends within the deadline with an error that
names it, and no process is left. CARTESIAN_FULL=1 tries every group of messages.

usage: phase_failure_test.py MPIEXEC WORKER TRANSPORT
"""

import os
import re
import subprocess
import sys
import tempfile

MPIEXEC, WORKER, TRANSPORT = sys.argv[1:4]
COMMAND = [MPIEXEC, "-np", "4", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1",
           "--enable-recovery", WORKER, TRANSPORT]
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMP_NUM_THREADS": "1"}


def run(at):
    """What is printed if the last rank is killed at this group."""
    with tempfile.TemporaryDirectory() as folder:  # the killed one removes nothing
        return subprocess.run([*COMMAND, str(at)], env=dict(ENVIRONMENT, TMPDIR=folder), capture_output=True, text=True,
                              timeout=120)


def tried(phases):
    """Numbers of groups: all, or some of the first and last ones of every phase."""
    if os.environ.get("CARTESIAN_FULL") == "1":
        return range(len(phases))
    chosen = set()
    for phase in phases:
        chosen |= {phases.index(phase), len(phases) - 1 - phases[::-1].index(phase)}
    return sorted(chosen)[1::3]


quiet = run(-1)
match = re.search(r"^phases: (.*)$", quiet.stdout, re.MULTILINE)
if quiet.returncode != 0 or not match:
    sys.exit(f"without a failure: {quiet.stdout}\n{quiet.stderr}")
phases = match[1].split(", ")
failures = []
for at in tried(phases):
    done = run(at)
    for rank in range(3):
        if not re.search(rf"^rank {rank} caught: .*\b(rank|ranks [^:;]*\b) ?3\b", done.stderr, re.MULTILINE):
            failures.append(f"group {at}, {phases[at]}: rank {rank} does not name rank 3:\n{done.stderr}")
    print("--" if failures else "ok", at, phases[at], flush=True)
if failures:
    sys.exit("\n\n".join(failures))
