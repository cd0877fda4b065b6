"""A private Slurm: its own munged, slurmctld and slurmds, on ports of its own, with all files in one folder; on this machine,
or on the nodes of an emulated cluster (cluster/emulate.sh)."""

import functools
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "scancel", "squeue")
SEARCH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

CONFIGURATION = """
ClusterName=cartesian-test
SlurmctldHost={hosts[0]}({addresses[0]})
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
TmpFS={folder}/tmp-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=pmix
SwitchType=switch/none
KillWait=30
MinJobAge=600
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={host} NodeAddr={address} Port={port} CPUs=4 State=UNKNOWN\n"

# Enters node $1 of cluster $0. Unlike `emulate.sh enter` it leaves /sys as it is, where slurmd looks for control groups.
ENTER = """
exec nsenter --net=/run/netns/$0-$1 unshare --uts --ipc --mount sh -c '
  hostname "$1"; mount --bind "/run/$0-emulated/hosts" /etc/hosts; shift; exec "$@"' "$0" "$@"
"""


@functools.cache
def missing():
    """What this machine lacks for a Slurm of its own, in a few words; empty if nothing."""
    if os.geteuid() != 0:
        return "not root"
    for program in PROGRAMS:
        if not shutil.which(program, path=SEARCH):
            return f"no `{program}`"
    return ""


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cluster:
    """Daemons that run until stop(), which the owner calls whatever happens. They and their jobs inherit `environment`.

    `emulated`: the name of an emulated cluster that is up, and how many nodes it has; slurmctld runs on the first."""

    def __init__(self, folder, environment, emulated=None):
        self.folder = pathlib.Path(folder)
        self.daemons = []
        self.emulated = emulated and emulated[0]
        if emulated:
            self.hosts = [f"node{index}" for index in range(emulated[1])]
            lines = pathlib.Path(f"/run/{self.emulated}-emulated/hosts").read_text().splitlines()
            listed = dict(reversed(line.split()) for line in lines)
            addresses = [listed[host] for host in self.hosts]
        else:
            self.hosts, addresses = [socket.gethostname().split(".")[0]], ["127.0.0.1"]
        for host in self.hosts:
            (self.folder / f"spool-{host}").mkdir()
            (self.folder / f"tmp-{host}").mkdir()
        (self.folder / "state").mkdir()
        self.folder.chmod(0o755)  # munged refuses to work in one that all may write to
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        controller_port, node_port = free_ports(2)
        configuration = self.folder / "slurm.conf"
        nodes = [NODE.format(host=host, address=address, port=node_port) for host, address in zip(self.hosts, addresses)]
        configuration.write_text("".join(nodes) + CONFIGURATION.format(
            folder=self.folder, hosts=self.hosts, addresses=addresses, controller_port=controller_port))
        self.environment = dict(environment, SLURM_CONF=str(configuration), PATH=SEARCH)

    def start(self):
        folder = self.folder
        self._start(0, "munged", "--force", "--foreground", f"--key-file={folder}/munge.key",
                    f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
                    f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed")
        self._wait(lambda: (folder / "munge.socket").exists())
        self._start(0, "slurmctld", "-D", "-i")
        self._wait(lambda: "UP" in self.run("scontrol", "ping", check=False))
        for index, host in enumerate(self.hosts):
            self._start(index, "slurmd", "-D", "-N", host)
        self._wait(self.idle)

    def idle(self):
        """No node runs a job or still clears one away."""
        states = re.findall(r"State=(\S+)", self.run("scontrol", "show", "node", check=False))
        return states == ["IDLE"] * len(self.hosts)

    def _on(self, index, words):
        """The command that runs `words` on a node."""
        return ["sh", "-c", ENTER, self.emulated, self.hosts[index], *words] if self.emulated else words

    def _start(self, index, program, *options):
        command = self._on(index, [shutil.which(program, path=SEARCH), *options])
        with open(self.folder / f"{program}-{index}.out", "wb") as log:
            self.daemons.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                 env=self.environment, cwd=self.folder))

    def _wait(self, condition, limit=60):
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self.daemons):
                raise AssertionError(f"Slurm does not start\n{self.logs()}")
            time.sleep(0.1)

    def logs(self):
        return "\n".join(f"-- {path.name}\n{path.read_text(errors='replace')[-4000:]}"
                         for path in sorted(self.folder.glob("*.out")))

    def run(self, *words, check=True):
        """Runs one of Slurm's commands; returns its standard output."""
        words = self._on(0, [str(word) for word in words])
        result = subprocess.run(words, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False)
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(words)}: {result.stderr}\n{self.logs()}")
        return result.stdout

    def job(self, number):
        """What `scontrol show job` says, by key."""
        words = self.run("scontrol", "show", "job", "-o", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def stop(self):
        """Ends jobs, then daemons, the last started first."""
        self.run("scancel", "--user=root", check=False)
        self.run("scancel", "--user=root", "--signal=KILL", "--full", check=False)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
