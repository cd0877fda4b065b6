"""What the benchmarks on an emulated cluster (cluster/emulate.sh, as root) share: its links, and a trained run's plans."""
import contextlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
EMULATE = str(ROOT / "cluster" / "emulate.sh")
MIB = 2 ** 20
WARM_UP = 4  # steps: a product of a new size is compiled when it is first met
SEND = """
import socket, sys, time
for _ in range(100):
    try:
        connection = socket.create_connection(("node1", 5009))
        break
    except OSError:
        time.sleep(0.1)
start = time.monotonic()
connection.sendall(bytes(int(sys.argv[1])))
connection.shutdown(socket.SHUT_WR)
connection.recv(1)
print(int(sys.argv[1]) / (time.monotonic() - start))
"""
RECEIVE = """
import socket
with socket.create_server(("", 5009)) as server:
    connection = server.accept()[0]
    while connection.recv(1 << 16): pass
    connection.sendall(b"x")
"""


@contextlib.contextmanager
def cluster(args):
    """While it is up, yields how many bytes a second a link carries, through one connection."""
    emulate("up", args.nodes, "--rate", f"{args.mbit}mbit")
    try:
        rate = link_rate()
        print(f"{args.nodes} nodes x {args.ranks} ranks, links of {args.mbit} Mbit/s: {rate * 8e-6:.0f} through one connection")
        yield rate
    finally:
        emulate("down")


def emulate(*words, **more):
    return subprocess.run(["bash", EMULATE, *map(str, words)], check=True, capture_output=True, text=True, **more).stdout


def link_rate(size=32 * MIB):
    """Bytes a second from node 0 to node 1, through one connection."""
    with subprocess.Popen(["bash", EMULATE, "enter", "1", "--", "python3", "-c", RECEIVE]):
        return float(emulate("enter", 0, "--", "python3", "-c", SEND, size).split()[-1])


def random_placement(path, plan, seed=1):
    """The plan's shape, experts at random, as many on every rank."""
    placement = json.loads(plan.read_text())
    draw = random.Random(seed)
    ranks = placement["ranks"]
    for layer in placement["replicas"]:
        owners = [i % ranks for i in range(placement["groups"] * placement["experts"])]
        draw.shuffle(owners)
        for group in range(placement["groups"]):
            layer[group] = [[owners.pop()] for _ in range(placement["experts"])]
    for key in ("pivot_scores", "plan"):
        placement.pop(key, None)
    path.write_text(json.dumps(placement))


def add_arguments(parser):
    parser.add_argument("cartesian", help="the executable")
    parser.add_argument("run", help="a run directory with a checkpoint")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--ranks", type=int, default=2, help="of each node")
    parser.add_argument("--mbit", type=int, default=400, help="rate of each node's link")
    parser.add_argument("--sequences", type=int, default=40, help="of the training text, to plan on")
    parser.add_argument("--objective", default="step", help="of the plans")
    parser.add_argument("--inter", default="auto", choices=("auto", "mpi", "ucx"), help="what messages between nodes travel by")


class TrainedRun:
    """A run directory's last checkpoint, its plans, and steps that go on from it."""

    def __init__(self, args, folder):
        self.args = args
        self.folder = pathlib.Path(folder)
        self.run = pathlib.Path(args.run)
        with open(self.run / "config.toml", "rb") as file:
            self.config = tomllib.load(file)
        self.checkpoint = max((self.run / "checkpoints").glob("step-*"))
        self.step = int(self.checkpoint.name.split("-")[1])
        self.trace = self.folder / "trace.safetensors"

    def program(self, *words):
        subprocess.run([self.args.cartesian, *map(str, words)], check=True, stdout=subprocess.DEVNULL)

    def on_cluster(self, *words):
        return emulate("run", self.args.nodes, self.args.ranks, "--", os.path.abspath(self.args.cartesian), *words)

    def tokens(self):
        """Of a step."""
        return self.config["train"]["batch_sequences"] * self.config["train"]["sequence_length"]

    def plans(self):
        """Placement files by name, planned on a trace of the training text."""
        self.program("eval", self.checkpoint, "--data", self.config["data"]["train"], "--sequences", self.args.sequences,
                     "--trace", self.trace)
        topology = self.folder / "cluster.toml"
        topology.write_text(f"nodes = {self.args.nodes}\nranks_per_node = {self.args.ranks}\n[inter]\n"
                            f"bandwidth_gb_s = {self.args.mbit / 8000}\nlatency_us = 50\n")
        tokens = self.tokens()
        plans = {name: self.folder / f"{name}.json" for name in ("planned", "replicas", "random")}
        for name, options in (("planned", ()), ("replicas", ("--redundancy", "0.25", "--tokens-per-step", "1e9"))):
            self.program("plan", "--topology", topology, "--trace", self.trace, "-o", plans[name], "--flow", "pivot",
                         "--objective", self.args.objective, *(options or ("--tokens-per-step", tokens)))
        random_placement(plans["random"], plans["planned"])
        return plans

    def steps(self, count, settings):
        """Records of so many steps on the cluster, after WARM_UP."""
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.checkpoint, run / "checkpoints" / self.checkpoint.name)
        shutil.copy(self.run / "config.toml", run / "config.toml")
        settings = {"run.dir": run, "run.progress": "off", "train.steps": self.step + WARM_UP + count, "valid.every": 0,
                    "data.valid": "", "checkpoint.every": 0, "parallel.threads": 1, "comm.inter": self.args.inter, **settings}
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        self.on_cluster("train", os.path.abspath(self.run / "config.toml"), "--resume", *words)
        with open(run / "metrics.jsonl", encoding="utf-8") as file:
            records = [record for record in map(json.loads, file) if "step_s" in record and record["step"] > self.step]
        return records[WARM_UP:]

    def row_bytes(self):
        return self.config["model"]["hidden_size"] * (2 if self.config["train"]["dtype"] == "bfloat16" else 4)


def moe_seconds(record):
    return sum(record["phase_s"][phase] for phase in ("router", "experts", "exchange"))
