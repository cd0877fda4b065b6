"""Ranks that fail under mpirun: every other rank ends in time, with an error that names the culprit,
and no process is left behind.

usage: mpi_failure_test.py MPIEXEC WORKER TRANSPORT
"""

import os
import re
import subprocess
import sys
import time
import uuid

MPIEXEC, WORKER, TRANSPORT = sys.argv[1:4]
FLAGS = ["--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
RECOVER = ["--enable-recovery"]  # mpirun does not end the survivors itself

failures = []


def processes_with(token):
    """Ids of the processes that have `token` among their arguments."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                if token.encode() in file.read():
                    found.append(entry)
        except OSError:
            pass  # it has just ended
    return found


def check(name, ranks, how, expected, flags=(), fails=True):
    """Runs `how` and looks for each regular expression of `expected` in what the ranks print."""
    token = f"token-{uuid.uuid4()}"
    command = [MPIEXEC, "-np", str(ranks), *FLAGS, *flags, WORKER, TRANSPORT, how, token]
    try:
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired as error:
        failures.append(f"{name}: hangs\n{error.stderr}")
        return
    for pattern in expected:
        if not re.search(pattern, done.stderr):
            failures.append(f"{name}: nothing like {pattern!r} in\n{done.stderr}")
    if fails and done.returncode == 0:
        failures.append(f"{name}: mpirun returned 0")
    for _ in range(100):
        if not processes_with(token):
            break
        time.sleep(0.1)
    else:
        failures.append(f"{name}: left behind {processes_with(token)}")
    print("ok" if not failures else "--", name)


HOST = r"\([^)]+\)"
PEER_HOST = rf"( {HOST})?"  # said once nodes are known
# A rank can be gone before the slowest has left the barrier that they all begin with.
PHASE = "(combine of layer 3|barrier)"
# In that barrier a rank may wait for another than the one that fails.
WAITING = r"(; this rank was waiting for ranks? \d[^\n]*)?"
# What a rank says of rank R that is killed: MPI keeps silent about it, UCX does not.
LOST = rf"rank RANK{PEER_HOST} failed in {PHASE}: its connection broke: [^\n;]*{WAITING}"
if TRANSPORT == "mpi":
    LOST = rf"no answer from rank RANK{PEER_HOST} within 2 s in {PHASE}"


def lost(rank):
    return LOST.replace("RANK", str(rank))


check("a silent peer", 2, "silent",
      [rf"rank 0 caught: rank 0 {HOST}: no answer from rank 1{PEER_HOST} within 2 s in {PHASE}\n"])
check("news of a deadline reaches the silent rank", 2, "silent", flags=RECOVER, fails=False,
      expected=[rf"rank 1 caught: rank 1 {HOST}: rank 0{PEER_HOST} failed in {PHASE}: "
                rf"rank 0 {HOST}: no answer from rank 1{PEER_HOST} within 2 s in {PHASE}\n"])
check("abort reaches everyone", 4, "abort",
      [rf"rank {r} caught: rank {r} {HOST}: rank 3{PEER_HOST} failed in {PHASE}: no space left on device{WAITING}\n"
       for r in range(3)])
check("abort with a message in flight", 3, "idle",
      [rf"rank {r} caught: rank {r} {HOST}: rank 2{PEER_HOST} failed in {PHASE}: left with a message in flight{WAITING}\n"
       for r in range(2)])
check("a killed rank, all ended by mpirun", 4, "killed", [])
check("a killed rank, survivors on their own", 3, "killed", flags=RECOVER, fails=False,
      expected=[rf"caught: rank \d {HOST}: {lost(2)}\n"])
if TRANSPORT == "split":  # who shared the node with it, and so had no connection, is told by others
    check("a killed rank is named by every other", 4, "killed", flags=RECOVER, fails=False,
          expected=[rf"rank {r} caught: [^\n]*{lost(3)}\n" for r in range(3)])
if TRANSPORT == "ucx":
    check("a killed rank is named by every other", 4, "killed", flags=RECOVER, fails=False,
          expected=[rf"rank {r} caught: rank {r} {HOST}: {lost(3)}\n" for r in range(3)])
check("a rank that exits early", 2, "unfinished", [])
check("a message too short", 2, "short",
      [rf"rank 0 caught: rank 0 {HOST}: rank 1{PEER_HOST} sent 4 bytes where 8 were expected in {PHASE}\n"])
check("a message too long", 2, "long",
      [rf"rank 0 caught: rank 0 {HOST}: rank 1{PEER_HOST} sent more bytes where 8 were expected in {PHASE}\n"])

if failures:
    sys.exit("\n\n".join(failures))
