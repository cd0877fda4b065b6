"""Runs the `cartesian` program as a person does, on one rank or under mpirun, and looks at what comes back.

ctest gives the program's path in CARTESIAN_PROGRAM and, where the build has MPI, mpirun's in CARTESIAN_MPIRUN.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

PROGRAM = os.environ.get("CARTESIAN_PROGRAM", "")
MPIRUN = os.environ.get("CARTESIAN_MPIRUN", "")
LAUNCHER = pathlib.Path(__file__).resolve().parents[2] / "cluster" / "mpirun.sh"
TIMEOUT_S = 120 * int(os.environ.get("CARTESIAN_TIMEOUT_SCALE", "1"))
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_STOPPED = 75

# The smallest model that has everything: a CartesianMoE block and a dense one, shared experts, experts that two, three
# and four ranks cannot all share evenly.
CONFIG = """
[model]
vocab_size = 257
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
sub_layers = 2
num_experts = 6
moe_top_k = 2
grain_level = 2
use_residual = true

[data]
train = "{tokens}"
valid = "{tokens}-valid"

[train]
steps = 20
batch_sequences = 6
micro_batch_sequences = 3
sequence_length = 32
learning_rate = 3e-3
warmup_steps = 4

[valid]
every = 10
sequences = 8

[checkpoint]
every = 5
keep_last = 2

[run]
dir = "{run}"
progress = "plain"
log_every_s = 0.0

[parallel]
threads = 1

[comm]
timeout_s = 60.0
"""

WORDS = "the whale and the sea were one in the morning of the captain's long white silence".split()


def make_text(seed, words):
    """Prose of sorts: the same for the same seed."""
    generator = random.Random(seed)
    return " ".join(generator.choice(WORDS) + ("\n" if i % 11 == 10 else "") for i in range(words))


class Result:
    """What a finished command left."""

    def __init__(self, command, code, stdout, stderr):
        self.command = " ".join(map(str, command))
        self.code = code
        self.stdout = stdout
        self.stderr = stderr

    @property
    def output(self):
        return self.stdout + self.stderr

    def __str__(self):
        return f"{self.command}\nexit code {self.code}\n{self.output}"


class CliTest(unittest.TestCase):
    """A temporary directory, self.directory, for each case, and ways to run the program in it."""

    maxDiff = None

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="cartesian-cli-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.run_directory = self.directory / "run"
        self.tokens = self.directory / "tokens"

    def command(self, arguments, ranks):
        if ranks == 1:
            return [PROGRAM, *map(str, arguments)]
        if not MPIRUN:
            self.skipTest("this build has no MPI")
        return [MPIRUN, "-np", str(ranks), "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1",
                PROGRAM, *map(str, arguments)]

    def environment(self):
        root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        return {**os.environ, **root, "OMP_NUM_THREADS": "1"}

    def start(self, arguments, ranks=1, command=None, **options):
        """A running command in a process group of its own, ended with the test whatever happens."""
        command = command or self.command(arguments, ranks)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                   text=True, errors="replace", cwd=self.directory, env=self.environment(),
                                   start_new_session=True, **options)
        self.addCleanup(self.end, process)
        return process

    def end(self, process):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()

    def finish(self, process):
        """Waits for a started command; fails if it hangs."""
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            self.fail(f"{process.args} hangs\n{stdout}{stderr}")
        return Result(process.args, process.returncode, stdout, stderr)

    def cartesian(self, *arguments, ranks=1, **options):
        return self.finish(self.start(arguments, ranks, **options))

    def succeed(self, *arguments, ranks=1, **options):
        result = self.cartesian(*arguments, ranks=ranks, **options)
        self.assertEqual(result.code, 0, result)
        return result

    def refuse(self, sentence, *arguments, ranks=1, code=EXIT_ERROR, **options):
        """The command must end with `code` and say `sentence`, a regular expression, on one line."""
        result = self.cartesian(*arguments, ranks=ranks, **options)
        self.assertEqual(result.code, code, result)
        self.assertRegex(result.stderr, sentence, result)
        self.assertNotIn("terminate called", result.output, result)
        return result

    def write(self, name, contents):
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(contents, str):
            contents = contents.encode()
        path.write_bytes(contents)
        return path

    def make_tokens(self, words=4000):
        """self.tokens and its held-out part."""
        texts = [self.write(f"text{i}.txt", make_text(i, words // 2)) for i in range(2)]
        self.succeed("tokenize", *texts, "-o", self.tokens, "--held-out", "0.25", "--document-bytes", "2000")

    def make_config(self):
        """The configuration above over self.tokens, which are made if need be."""
        if not self.tokens.with_suffix(".idx").exists():
            self.make_tokens()
        return self.write("config.toml", CONFIG.format(tokens=self.tokens, run=self.run_directory))

    def settings(self, **values):
        """--set options: train_steps=3 is train.steps=3, the first underscore being the dot."""
        return [word for key, value in values.items() for word in ("--set", f"{key.replace('_', '.', 1)}={value}")]

    def checkpoints(self, run_directory=None):
        folder = (run_directory or self.run_directory) / "checkpoints"
        return sorted(path for path in folder.glob("step-*")) if folder.exists() else []

    def records(self, run_directory=None):
        """metrics.jsonl, a dictionary a line; a last line cut short by a kill is left out."""
        text = ((run_directory or self.run_directory) / "metrics.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def losses(self, run_directory=None):
        """Training loss by step."""
        return {record["step"]: record["loss"] for record in self.records(run_directory) if "loss" in record}

    def wait_for_step(self, process, step, run_directory=None):
        """Returns once the run has done `step` steps."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                self.fail(f"ended before step {step}:\n{self.finish(process)}")
            metrics = (run_directory or self.run_directory) / "metrics.jsonl"
            if metrics.exists() and max(self.losses(run_directory), default=0) >= step:
                return
            time.sleep(0.02)
        self.fail(f"no step {step} within {TIMEOUT_S} s")

    def children(self, process):
        """Process ids of the ranks that a running mpirun has started."""
        lists = pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")
        return sorted(int(pid) for path in lists for pid in path.read_text(encoding="ascii").split())


def main():
    if not PROGRAM:
        raise SystemExit("CARTESIAN_PROGRAM must name the cartesian executable")
    unittest.main(verbosity=2)
