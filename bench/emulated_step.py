#!/usr/bin/env python3
"""A trained model's steps on an emulated cluster (cluster/emulate.sh, as root): flows and plans in turn, over real links.

  cartesian train configs/quickstart.toml --set model.hidden_size=512 ... --set run.dir=runs/d512
  python3 bench/emulated_step.py build/release/runtime/cartesian runs/d512

Every way goes on from the run's last checkpoint for a few steps on NODES x RANKS ranks, in ROUNDS rounds. Ways:
  flat      every choice's row from home to its expert and back, experts in order, one chunk: as MPI_Alltoallv does
  random    home flow, experts at random
  pivot     pivot flow, planned, one chunk
  overlap   the same in several chunks
  replicas  the same with 25% more slots
Prints for each the rows and bytes between nodes of a step, the seconds of the MoE layers, of the step, and of waiting for
messages (rank 0's, medians of steps), and what is left of flat's; with the rate of a link, measured in the same run, how
long the exchange's rows take at least.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
EMULATE = str(ROOT / "cluster" / "emulate.sh")
MIB = 2 ** 20
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


class Bench:
    def __init__(self, args, folder):
        self.args = args
        self.folder = pathlib.Path(folder)
        self.run = pathlib.Path(args.run)
        with open(self.run / "config.toml", "rb") as file:
            self.config = tomllib.load(file)
        self.checkpoint = max((self.run / "checkpoints").glob("step-*"))
        self.step = int(self.checkpoint.name.split("-")[1])

    def program(self, *words):
        subprocess.run([self.args.cartesian, *map(str, words)], check=True, stdout=subprocess.DEVNULL)

    def plans(self):
        """Placement files by name, planned on a trace of the training text."""
        trace = self.folder / "trace.safetensors"
        self.program("eval", self.checkpoint, "--data", self.config["data"]["train"], "--sequences", self.args.sequences,
                     "--trace", trace)
        topology = self.folder / "cluster.toml"
        topology.write_text(f"nodes = {self.args.nodes}\nranks_per_node = {self.args.ranks}\n[inter]\n"
                            f"bandwidth_gb_s = {self.args.mbit / 8000}\nlatency_us = 50\n")
        tokens = self.config["train"]["batch_sequences"] * self.config["train"]["sequence_length"]
        plans = {name: self.folder / f"{name}.json" for name in ("planned", "replicas", "random")}
        for name, options in (("planned", ()), ("replicas", ("--redundancy", "0.25", "--tokens-per-step", "1e9"))):
            self.program("plan", "--topology", topology, "--trace", trace, "-o", plans[name], "--flow", "pivot",
                         "--objective", self.args.objective, *(options or ("--tokens-per-step", tokens)))
        random_placement(plans["random"], plans["planned"])
        return plans

    def steps(self, settings):
        """Records of the steps after the first, on the cluster."""
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.checkpoint, run / "checkpoints" / self.checkpoint.name)
        shutil.copy(self.run / "config.toml", run / "config.toml")
        settings = {"run.dir": run, "run.progress": "off", "train.steps": self.step + 1 + self.args.steps, "valid.every": 0,
                    "data.valid": "", "checkpoint.every": 0, "parallel.threads": 1, **settings}
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        emulate("run", self.args.nodes, self.args.ranks, "--", os.path.abspath(self.args.cartesian), "train",
                os.path.abspath(self.run / "config.toml"), "--resume", *words)
        with open(run / "metrics.jsonl", encoding="utf-8") as file:
            records = [record for record in map(json.loads, file) if "step_s" in record and record["step"] > self.step]
        return records[1:]

    def row_bytes(self):
        return self.config["model"]["hidden_size"] * (2 if self.config["train"]["dtype"] == "bfloat16" else 4)


def moe_seconds(record):
    return sum(record["phase_s"][phase] for phase in ("router", "experts", "exchange"))


def measure(bench, args):
    plans = bench.plans()
    pivot = {"exchange.flow": "pivot", "parallel.placement": plans["planned"]}
    ways = {"flat": {"exchange.flow": "flat", "parallel.placement": "linear"},
            "random": {"exchange.flow": "home", "parallel.placement": plans["random"]},
            "pivot": pivot,
            "overlap": {**pivot, "exchange.chunks": args.chunks},
            "replicas": {**pivot, "exchange.chunks": args.chunks, "parallel.placement": plans["replicas"]}}
    records = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, settings in ways.items():
            records[name] += bench.steps({"exchange.chunks": 1, **settings})
    return records


def report(records, row_bytes, rate, nodes):
    print(f"link: {rate * 8e-6:.0f} Mbit/s through one connection")
    print(f"{'way':9} {'rows':>9} {'MiB':>8} {'of flat':>8} {'all MiB':>8} {'MoE s':>7} {'faster':>7} {'step s':>7} {'faster':>7} "
          f"{'waits s':>8} {'rows at link rate s':>20}")
    middle = {name: {"rows": statistics.median(r["exchange_inter_rows"] for r in of_way),
                     "bytes": statistics.median(r["inter_bytes"] for r in of_way),
                     "moe": statistics.median(map(moe_seconds, of_way)),
                     "step": statistics.median(r["step_s"] for r in of_way),
                     "wait": statistics.median(r["wait_s"] for r in of_way)} for name, of_way in records.items()}
    flat = middle["flat"]
    for name, way in middle.items():
        print(f"{name:9} {way['rows']:9.0f} {way['rows'] * row_bytes / MIB:8.1f} {way['rows'] / flat['rows']:8.2f} "
              f"{way['bytes'] / MIB:8.1f} {way['moe']:7.2f} {flat['moe'] / way['moe']:7.2f} {way['step']:7.2f} "
              f"{flat['step'] / way['step']:7.2f} {way['wait']:8.2f} {way['rows'] * row_bytes / nodes / rate:20.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cartesian", help="the executable")
    parser.add_argument("run", help="a run directory with a checkpoint")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--ranks", type=int, default=2, help="of each node")
    parser.add_argument("--mbit", type=int, default=400, help="rate of each node's link")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4, help="timed steps a run, after one")
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--sequences", type=int, default=40, help="of the training text, to plan on")
    parser.add_argument("--objective", default="step", help="of the plans")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, folder)
        emulate("up", args.nodes, "--rate", f"{args.mbit}mbit")
        try:
            rate = link_rate()
            records = measure(bench, args)
        finally:
            emulate("down")
        report(records, bench.row_bytes(), rate, args.nodes)


if __name__ == "__main__":
    main()
