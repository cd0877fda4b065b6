"""Short training runs for benchmarks: made-up text, a temporary run directory, the records of metrics.jsonl."""
import contextlib
import json
import os
import random
import subprocess
import tempfile

CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "configs", "quickstart.toml")


def add_run_options(parser):
    parser.add_argument("cartesian", help="the executable")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE",
                        help="override a key of configs/quickstart.toml")


@contextlib.contextmanager
def make_data(cartesian):
    """A tokenized text of words with Zipf's frequencies; yields its prefix."""
    draw = random.Random(1)
    words = ["".join(draw.choice("etaoinshrdlu") for _ in range(draw.randint(1, 9))) for _ in range(2000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    with tempfile.TemporaryDirectory() as folder:
        text = os.path.join(folder, "words.txt")
        with open(text, "w", encoding="ascii") as file:
            for _ in range(20000):
                file.write(" ".join(draw.choices(words, weights, k=12)) + ".\n")
        prefix = os.path.join(folder, "words")
        subprocess.run([cartesian, "tokenize", text, "-o", prefix], check=True, stdout=subprocess.DEVNULL)
        yield prefix


def make_batch(cartesian, folder, tokens):
    """A text of exactly one global batch, so that every step sees the same tokens whatever their order; its prefix."""
    draw = random.Random(1)
    words = ["".join(draw.choice("etaoinshrdlu") for _ in range(draw.randint(1, 9))) for _ in range(200)]
    text = os.path.join(folder, "batch.txt")
    with open(text, "w", encoding="ascii") as file:  # each byte is a token, and the end of the document is the last
        file.write(" ".join(draw.choices(words, k=tokens))[:tokens])
    prefix = os.path.join(folder, "batch")
    subprocess.run([cartesian, "tokenize", text, "-o", prefix], check=True, stdout=subprocess.DEVNULL)
    return prefix


def train(cartesian, data, ranks, settings, threads=1, run=None):
    """Trains configs/quickstart.toml with `settings`, so many threads a rank; returns the step records. `run` keeps the
    run directory there."""
    with tempfile.TemporaryDirectory() as folder:
        run = run or os.path.join(folder, "run")
        command = [cartesian, "train", CONFIG]
        for setting in ["data.train=" + data, "data.valid=", "run.dir=" + run, "run.progress=off",
                        "parallel.threads=%d" % threads, "checkpoint.every=0"] + settings:
            command += ["--set", setting]
        if ranks > 1:
            command = ["mpirun", "-np", str(ranks), "--oversubscribe", "--bind-to", "none", "--mca",
                       "mpi_yield_when_idle", "1"] + command
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), OMPI_ALLOW_RUN_AS_ROOT="1",
                           OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        subprocess.run(command, check=True, env=environment)
        with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as file:
            return [record for record in map(json.loads, file) if "step_s" in record]
