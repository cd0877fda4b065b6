"""What the tests of the command line share: starting the program alone or under mpirun, a tiny corpus, reading runs.

The program is named by CARTESIAN_PROGRAM, Open MPI's mpirun by CARTESIAN_MPIEXEC. Every process that a test starts
carries a mark of its own in its environment: what still runs with it afterwards is an orphan, and fails the test.
"""

import dataclasses
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest
import uuid

PROGRAM = os.environ.get("CARTESIAN_PROGRAM", "")
MPIEXEC = os.environ.get("CARTESIAN_MPIEXEC", "mpirun")
TIMEOUT = 120 * int(os.environ.get("CARTESIAN_TIMEOUT_SCALE", "1"))  # seconds: far above what a run takes
STOPPED = 75
MARK = "CARTESIAN_TEST_JOB"

# Writes the exit code of each rank to $EXIT_CODES.RANK. A shell that has a trap outlives the signals that mpirun sends
# to the whole process group, and its child gets them unchanged.
RECORD_EXIT = 'trap : INT TERM USR1; "$@"; code=$?; echo $code >"$EXIT_CODES.$OMPI_COMM_WORLD_RANK"; exit $code'

TINY = {
    "model.hidden_size": 32,
    "model.intermediate_size": 64,
    "model.num_hidden_layers": 2,
    "model.num_attention_heads": 2,
    "model.num_experts": 4,
    "model.moe_top_k": 2,
    "model.grain_level": 2,
    "train.steps": 8,
    "train.batch_sequences": 6,
    "train.micro_batch_sequences": 6,
    "train.sequence_length": 32,
    "train.seed": 7,
    "train.learning_rate": 1e-2,
    "train.min_learning_rate": 1e-3,
    "train.warmup_steps": 2,
    "valid.every": 4,
    "valid.sequences": 8,
    "checkpoint.every": 0,
    "run.progress": "plain",
    "comm.timeout_s": 60,
}


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
        return f"{' '.join(map(str, self.command))}\nexit code {self.code}, of ranks {self.rank_codes}\n{self.out}\n{self.err}"


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
        return Result(self.command, self.process.returncode, (self.files / "out").read_text(errors="replace"),
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


def corpus(seed=1, words=6000):
    """English-like text: words drawn from a small vocabulary, in sentences."""
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choice("aeioutrsnldhcm") for _ in range(draw.randint(2, 7))) for _ in range(120)]
    sentences = []
    while words > 0:
        length = draw.randint(4, 12)
        sentences.append(" ".join(draw.choice(vocabulary) for _ in range(length)).capitalize() + ".")
        words -= length
    return "\n".join(sentences) + "\n"


def toml(settings):
    sections = {}
    for key, value in settings.items():
        section, name = key.split(".", 1)
        sections.setdefault(section, []).append(f"{name} = {json.dumps(value)}\n")
    return "\n".join(f"[{section}]\n{''.join(lines)}" for section, lines in sections.items())


def read_tensors(checkpoint):
    """name -> (dtype, shape, bytes) of every tensor in a checkpoint, the optimizer's too."""
    tensors = {}
    for path in sorted(pathlib.Path(checkpoint).glob("*.safetensors")):
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8:8 + size]).items():
            if name == "__metadata__":
                continue
            if name in tensors:
                raise AssertionError(f"{checkpoint}: two files hold {name}")
            begin, end = entry["data_offsets"]
            tensors[name] = (entry["dtype"], entry["shape"], data[8 + size + begin:8 + size + end])
    return tensors


class Run:
    """A run directory."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def checkpoints(self):
        """Steps of the complete checkpoints."""
        names = self.path.glob("checkpoints/step-*/checksums.json")
        return sorted(int(name.parent.name[len("step-"):]) for name in names)

    def checkpoint(self, step):
        return self.path / "checkpoints" / f"step-{step:08}"

    def temporary(self):
        return sorted(path.name for path in self.path.rglob("*") if ".tmp" in path.name)

    def records(self):
        """Lines of metrics.jsonl; the last may be half-written while the run goes on."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def losses(self):
        return {record["step"]: record["loss"] for record in self.records() if "loss" in record}

    def valid_losses(self):
        return {record["step"]: record["valid_loss"] for record in self.records() if "valid_loss" in record}

    def steps(self):
        return [record["step"] for record in self.records() if "loss" in record]

    def lines(self):
        """Lines of metrics.jsonl so far, cheaply."""
        path = self.path / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0


class CliTest(unittest.TestCase):
    """A folder for the class, with tokens of a tiny corpus."""

    @classmethod
    def setUpClass(cls):
        if not PROGRAM or not os.access(PROGRAM, os.X_OK):
            raise AssertionError("CARTESIAN_PROGRAM must name the executable")
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="cartesian-cli-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.text = cls.folder / "corpus.txt"
        cls.text.write_text(corpus())
        cls.tokens = cls.folder / "tokens"
        cls.run_program("tokenize", cls.text, "-o", cls.tokens, "--held-out", "0.1", "--document-bytes", "1024")

    @classmethod
    def config(cls, name="config", **changes):
        """Writes a TOML file of TINY with `changes` (section__key) and a run directory of its own; returns both."""
        run = Run(pathlib.Path(tempfile.mkdtemp(dir=cls.folder, prefix="run-")) / "run")
        settings = dict(TINY, **{"data.train": str(cls.tokens), "data.valid": f"{cls.tokens}-valid",
                                 "run.dir": str(run.path)})
        settings.update({key.replace("__", ".", 1): value for key, value in changes.items()})
        path = run.path.parent / f"{name}.toml"
        path.write_text(toml({key: value for key, value in settings.items() if value is not None}))
        return path, run

    @classmethod
    def start(cls, *words, ranks=1, mpi=None, **limits):
        """Starts the program on `ranks` ranks; one rank is started without mpirun. `mpi`: for mpirun_command()."""
        command = [PROGRAM, *words]
        if ranks > 1:
            command = mpirun_command([(ranks, command)], **(mpi or {}))
        return cls.start_command(command, **limits)

    @classmethod
    def start_command(cls, command, **limits):
        job = Job(command, cls.folder, **limits)
        cls.addClassCleanup(job.kill_all)
        return job

    @classmethod
    def run_program(cls, *words, ranks=1, code=0, **more):
        """Runs to the end, and checks the exit code."""
        result = cls.start(*words, ranks=ranks, **more).wait()
        if result.code != code:
            raise AssertionError(f"exit code {code} was expected\n{result}")
        return result

    def wait_for_lines(self, job, run, lines):
        """Until the running `job` has written `lines` lines of metrics.jsonl, one a step and one a validation."""
        wait_until(lambda: not job.running() or run.lines() >= lines)
        if not job.running():
            self.fail(f"ended before it could be disturbed\n{job.wait()}")

    def assert_one_sentence(self, result, *patterns):
        """The program said one thing, once, and each of `patterns` is found in it."""
        self.assertEqual(len(result.errors()), 1, result)
        sentence = result.errors()[0]
        self.assertTrue(sentence.startswith("cartesian: "), result)
        for pattern in patterns:
            self.assertRegex(sentence, pattern)

    def assert_refused(self, words, *patterns, ranks=1):
        """The program ends by itself with code 1 on every rank, and says one sentence."""
        result = self.run_program(*words, ranks=ranks, code=1)
        if ranks > 1:
            self.assertEqual(result.rank_codes, dict.fromkeys(range(ranks), 1), result)
        self.assert_one_sentence(result, *patterns)
        return result

    def assert_same_tensors(self, one, other):
        """Both checkpoints hold the same bits."""
        one, other = read_tensors(one), read_tensors(other)
        self.assertEqual(sorted(one), sorted(other))
        self.assertEqual([name for name in one if one[name] != other[name]], [])

    def assert_close(self, actual, expected, relative):
        self.assertLessEqual(abs(actual - expected), relative * abs(expected), f"{actual} against {expected}")


def number_after(word, text):
    """The number that follows `word` at the start of a line."""
    return float(re.search(rf"^{re.escape(word)} (\S+)$", text, re.MULTILINE).group(1))
