"""What cluster/emulate.sh needs of this machine, asked of the kernel without that script."""

import functools
import os
import shutil
import subprocess

# In a network namespace that ends with the shell.
PROBE = ("ip link add one type veth peer name other && ip link add switch type bridge && "
         "tc qdisc add dev one root tbf rate 1mbit burst 10kb latency 10ms && mount -t tmpfs none /mnt")


@functools.cache
def missing():
    """What this machine lacks for an emulated cluster, in a few words; empty if nothing."""
    if os.geteuid() != 0:
        return "not root"
    for program in ("ip", "tc", "unshare"):
        if not shutil.which(program):
            return f"no `{program}`"
    probe = subprocess.run(["unshare", "--net", "--uts", "--ipc", "--mount", "sh", "-c", PROBE],
                           capture_output=True, text=True, check=False)
    return "" if probe.returncode == 0 else f"no network namespaces with shaped links: {probe.stderr.strip()}"
