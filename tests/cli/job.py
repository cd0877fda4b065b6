"""Starting the program alone or under mpirun, and ending it: output, exit codes of ranks, processes left behind.

The program is named by CARTESIAN_PROGRAM, Open MPI's mpirun by CARTESIAN_MPIEXEC. Every process that a test starts
carries a mark of its own in its environment: what still runs with it afterwards is an orphan, and fails the test.
"""

import dataclasses
import os
import pathlib
import resource
import signal
import subprocess
import tempfile
import time
import uuid

PROGRAM = os.environ.get("CARTESIAN_PROGRAM", "")
MPIEXEC = os.environ.get("CARTESIAN_MPIEXEC", "mpirun")
TIMEOUT = 120 * int(os.environ.get("CARTESIAN_TIMEOUT_SCALE", "1"))  # seconds: far above what a run takes
STOPPED = 75
MARK = "CARTESIAN_TEST_JOB"

# Writes the exit code of each rank to $EXIT_CODES.RANK. A shell that has a trap outlives the signals that mpirun sends
# to the whole process group, and its child gets them unchanged.
RECORD_EXIT = 'trap : INT TERM USR1; "$@"; code=$?; echo $code >"$EXIT_CODES.$OMPI_COMM_WORLD_RANK"; exit $code'


@dataclasses.dataclass
class Result:
    command: list
    code: int
    out: str
    err: str
    rank_codes: dict

    def errors(self):
        """The program's own sentences on standard error."""
        return [line for line in self.err.splitlines() if line.startswith("cartesian")]

    def __str__(self):
        return (f"{' '.join(map(str, self.command))}\nexit code {self.code}, of ranks {self.rank_codes}\n"
                f"{self.out}\n{self.err}")


def marked_processes(mark):
    """Processes, other than zombies, that carry `mark`."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended, or belongs to somebody else
    return sorted(found)


def program_processes(mark):
    """Process ids by rank of the program itself, without the shells around it."""
    ranks = {}
    for pid in marked_processes(mark):
        try:
            if os.readlink(f"/proc/{pid}/exe") != os.path.realpath(PROGRAM):
                continue
            environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = [value for value in environment if value.startswith(b"OMPI_COMM_WORLD_RANK=")]
        ranks[int(rank[0].split(b"=")[1]) if rank else 0] = pid
    return ranks


class Job:
    """A started command. wait() ends it, however it goes, and leaves no process behind."""

    def __init__(self, command, workplace, file_limit=None):
        self.command = [str(word) for word in command]
        self.mark = uuid.uuid4().hex
        self.files = pathlib.Path(tempfile.mkdtemp(dir=workplace, prefix="job-"))
        self.out = open(self.files / "out", "wb")
        self.err = open(self.files / "err", "wb")
        environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1",
                           OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", EXIT_CODES=str(self.files / "exit"))
        environment[MARK] = self.mark

        def prepare():
            os.nice(5)  # ranks that wait by polling must not starve the test that watches them
            if file_limit:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err,
                                        env=environment, cwd=workplace, start_new_session=True, preexec_fn=prepare)

    def signal(self, number):
        self.process.send_signal(number)

    def kill_all(self):
        """SIGKILL to every process of the job at once."""
        for pid in marked_processes(self.mark):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def ranks(self, count):
        """Process ids of `count` ranks, once all of them run."""
        wait_until(lambda: len(program_processes(self.mark)) == count or self.process.poll() is not None)
        return program_processes(self.mark)

    def running(self):
        return self.process.poll() is None

    def output(self):
        """Standard output so far."""
        return (self.files / "out").read_text(errors="replace")

    def wait(self, timeout=TIMEOUT):
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill_all()
            self.process.wait()
            raise AssertionError(f"still running after {timeout} s\n{self._result()}") from None
        # What mpirun has killed may take a moment to be gone.
        orphans = wait_until(lambda: not marked_processes(self.mark), limit=15, required=False)
        result = self._result()
        if not orphans:
            self.kill_all()
            raise AssertionError(f"processes were left behind\n{result}")
        return result

    def _result(self):
        self.out.close()
        self.err.close()
        codes = {int(path.suffix[1:]): int(path.read_text() or -1) for path in self.files.glob("exit.*")}
        return Result(self.command, self.process.returncode, self.output(),
                      (self.files / "err").read_text(errors="replace"), dict(sorted(codes.items())))


def wait_until(condition, limit=TIMEOUT, required=True):
    """Polls until `condition` gives something true, and returns it."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    if required and not value:
        raise AssertionError(f"nothing happened within {limit} s")
    return value


def mpirun_command(parts, options=(), patience=2):
    """One mpirun of several programs: parts are (ranks, command). When one rank has failed, or mpirun is told to end,
    it sends TERM to the ranks, and `patience` seconds later KILL."""
    command = [MPIEXEC, "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1",
               "--mca", "odls_base_sigkill_timeout", patience, *options]
    for index, (ranks, words) in enumerate(parts):
        command += [":"] if index else []
        command += ["-np", ranks, "sh", "-c", RECORD_EXIT, "rank", *words]
    return command
