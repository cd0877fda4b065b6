"""A private Slurm on this machine: its own munged, slurmctld and slurmd, on free ports, with all files in one folder."""

import functools
import os
import pathlib
import shutil
import socket
import subprocess
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "scancel", "squeue")
SEARCH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

CONFIGURATION = """
ClusterName=cartesian-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
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
NodeName={host} NodeAddr=127.0.0.1 Port={node_port} CPUs=4 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
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
    """Daemons that run until stop(), which the owner calls whatever happens. They and their jobs inherit `environment`."""

    def __init__(self, folder, environment):
        self.folder = pathlib.Path(folder)
        self.daemons = []
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        self.folder.chmod(0o755)  # munged wants it so, and its key so
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        host = socket.gethostname().split(".")[0]
        controller_port, node_port = free_ports(2)
        configuration = self.folder / "slurm.conf"
        configuration.write_text(CONFIGURATION.format(folder=self.folder, host=host, controller_port=controller_port,
                                                      node_port=node_port))
        self.environment = dict(environment, SLURM_CONF=str(configuration), PATH=SEARCH)
        self.host = host

    def start(self):
        folder = self.folder
        self._start("munged", "--force", "--foreground", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket",
                    f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed")
        self._wait(lambda: (folder / "munge.socket").exists())
        self._start("slurmctld", "-D", "-i")
        self._wait(lambda: "UP" in self.run("scontrol", "ping", check=False))
        self._start("slurmd", "-D", "-N", self.host)
        self._wait(lambda: "State=IDLE" in self.run("scontrol", "show", "node", self.host, check=False))

    def _start(self, program, *options):
        log = open(self.folder / f"{program}.out", "wb")
        self.daemons.append(subprocess.Popen([shutil.which(program, path=SEARCH), *options], stdin=subprocess.DEVNULL,
                                             stdout=log, stderr=log, env=self.environment, cwd=self.folder))
        log.close()

    def _wait(self, condition, limit=60):
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self.daemons):
                raise AssertionError(f"Slurm does not start\n{self.logs()}")
            time.sleep(0.1)

    def logs(self):
        return "\n".join(f"-- {path.name}\n{path.read_text(errors='replace')[-4000:]}"
                         for path in sorted(self.folder.glob("*.out")))

    def run(self, *words, check=True, **more):
        """Runs one of Slurm's commands, or a program that uses them; returns its standard output."""
        words = [str(word) for word in words]
        environment = dict(self.environment, **more)
        result = subprocess.run(words, env=environment, cwd=self.folder, capture_output=True, text=True, check=False)
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
