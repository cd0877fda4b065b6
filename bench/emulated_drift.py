#!/usr/bin/env python3
"""Re-planning on an emulated cluster (cluster/emulate.sh, as root), while the text that is trained on turns into another kind.

  python3 bench/emulated_drift.py build/release/runtime/cartesian --first 'data/corpora/*.txt' --second '/usr/include/**/*.h'

A model is trained for a while on both kinds of text, in turn, and a placement planned for the first kind. From there two runs go
on at a low learning rate, so that it is the text that changes what tokens choose, with the same tokens in the same order, of the
first kind for BEFORE windows and then of the second for AFTER: one keeps the placement (replan.when = "off"), one plans anew ("auto"). Prints what became of each window; for both runs rows between nodes and
seconds (rank 0's) of the exchange and of the step, before and after the text has changed; the longest step while experts moved, moving
included, over the median of its neighbours; and at the end, on tokens that no plan has seen, copies and imbalance of the placement
beside those of a plan from scratch.
"""
import argparse
import glob
import json
import pathlib
import random
import shutil
import statistics
import subprocess
import tempfile

import emulated_cluster
from emulated_cluster import ROOT, emulate

PIECE = 4096  # bytes of a kind of text, in turn
NEIGHBOURS = 10  # the nearest steps without moves
HIDDEN = 512  # of the model, as are
EXPERT_WIDTH = 128  # where quickstart.toml has grain_level = 2
CHOICES = 2


def read(pattern, size, seed=1):
    """So many bytes of the files of `pattern`, in pieces drawn from all of them: of one kind from beginning to end."""
    pieces = []
    for name in sorted(glob.glob(pattern, recursive=True)):
        if pathlib.Path(name).is_file():
            text = pathlib.Path(name).read_bytes().decode("utf-8", "ignore").encode("ascii", "ignore")
            pieces += [text[at:at + PIECE] for at in range(0, len(text) - PIECE + 1, PIECE)]
    if len(pieces) * PIECE < size:
        raise SystemExit(f"{pattern}: {len(pieces)} pieces of {PIECE} bytes, but {size} bytes are needed")
    random.Random(seed).shuffle(pieces)
    return b"".join(pieces)[:size]


class Drift:
    def __init__(self, args, folder):
        self.args = args
        self.folder = pathlib.Path(folder)
        self.trained = args.pretrain
        self.changes = args.pretrain + args.before * args.window
        self.steps = self.changes + args.after * args.window
        self.pretrained = self.folder / "pretrained"
        self.topology = self.folder / "cluster.toml"

    def program(self, *words):
        return subprocess.run([self.args.cartesian, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout

    def tokenize(self):
        args = self.args
        tokens = args.batch * 256  # of a step, and bytes
        mixed, first, second, held_out = (count * tokens for count in (args.pretrain, args.before * args.window,
                                                                      args.after * args.window, 2 * args.sequences * 256 // tokens + 1))
        one = read(args.first, mixed // 2 + first + held_out)
        other = read(args.second, mixed // 2 + second + 2 * held_out)
        pieces = [text[at:at + PIECE] for at in range(0, mixed // 2, PIECE) for text in (one, other)]
        text = b"".join(pieces)[:mixed] + one[mixed // 2:mixed // 2 + first] + other[mixed // 2:mixed // 2 + second]
        for name, contents in (("drift", text), ("first", one[-held_out:]), ("second", other[-2 * held_out:-held_out]),
                               ("unseen", other[-held_out:])):
            (self.folder / f"{name}.txt").write_bytes(contents)
            self.program("tokenize", self.folder / f"{name}.txt", "-o", self.folder / name)

    def settings(self, run, **more):
        values = {"run.dir": run, "run.progress": "off", "data.train": self.folder / "drift", "data.valid": "", "data.order": "stored",
                  "valid.every": 0, "checkpoint.every": 0, "train.steps": self.steps, "train.batch_sequences": self.args.batch,
                  "train.micro_batch_sequences": self.args.batch, "train.sequence_length": 256, "train.learning_rate": 1e-3,
                  "train.min_learning_rate": 3e-4, "model.hidden_size": HIDDEN, "model.intermediate_size": 2 * EXPERT_WIDTH, "model.num_hidden_layers": 2,
                  "model.num_attention_heads": 8, "model.num_experts": 32, "model.moe_top_k": CHOICES, "model.expert_interval": 2,
                  "exchange.chunks": 1, "parallel.threads": 1, "comm.inter": self.args.inter, **more}
        return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]

    def pretrain(self):
        if self.pretrained.exists():
            return
        words = ["train", ROOT / "configs" / "quickstart.toml", "--stop-at", self.trained,
                 *self.settings(self.pretrained, **{"parallel.threads": 2})]
        stopped = 75
        if subprocess.run([self.args.cartesian, *map(str, words)], stdout=subprocess.DEVNULL, check=False).returncode != stopped:
            raise SystemExit("the model could not be trained")

    def describe_cluster(self):
        """To the planner: links as they are emulated; of the machine's arithmetic, by what experts took in pretraining, every rank its
        share."""
        args = self.args
        steps = [json.loads(line) for line in open(self.pretrained / "metrics.jsonl", encoding="utf-8")]
        experts_s = statistics.median(step["phase_s"]["experts"] for step in steps if "phase_s" in step)
        ffns = 2 * (CHOICES + 1)  # that a token visits, with the shared expert of each sub-layer
        products = 3 * 6 * HIDDEN * EXPERT_WIDTH * ffns * args.batch * 256  # forward, and backward twice as many
        flops = products / experts_s / (args.nodes * args.ranks)
        print(f"a rank's share of the machine: {flops / 1e9:.2f} GFLOP/s", flush=True)
        self.topology.write_text(f"nodes = {args.nodes}\nranks_per_node = {args.ranks}\ntflops = {flops / 1e12}\n[inter]\n"
                                 f"bandwidth_gb_s = {args.mbit / 8000}\nlatency_us = 50\n")

    def plan(self, checkpoint, text, output, *options):
        trace = self.folder / f"{text}.safetensors"
        self.program("eval", checkpoint, "--data", self.folder / text, "--sequences", self.args.sequences, "--trace", trace)
        self.program("plan", "--topology", self.topology, "--trace", trace, "-o", output, "--flow", "pivot", "--tokens-per-step",
                     self.args.batch * 256, *options)

    def run(self, name, settings):
        run = self.folder / name
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.pretrained, run)
        emulate("run", self.args.nodes, self.args.ranks, "--", pathlib.Path(self.args.cartesian).resolve(), "train",
                ROOT / "configs" / "quickstart.toml", "--resume",
                *self.settings(run, **{"exchange.flow": "pivot", "parallel.placement": self.folder / "start.json",
                                       "train.learning_rate": self.args.learning_rate, "train.min_learning_rate": self.args.learning_rate,
                                       **settings}))
        return [record for name in ("metrics.jsonl", "plans.jsonl") for record in map(json.loads, open(run / name, encoding="utf-8"))
                if record["step"] > self.trained]


def train(drift):
    """The records of both runs."""
    drift.tokenize()
    print(f"training on both kinds of text to step {drift.trained}", flush=True)
    drift.pretrain()
    drift.describe_cluster()
    drift.plan(last_checkpoint(drift.pretrained), "first", drift.folder / "start.json")
    args = drift.args
    replan = {"replan.every": args.window, "replan.topology": drift.topology, "replan.bytes_per_step": int(args.portion_mib * 2 ** 20)}
    records = {}
    for name in ("off", "auto"):
        print(f"steps {drift.trained + 1} to {drift.steps} with replan.when = \"{name}\"; the text changes after step {drift.changes}",
              flush=True)
        records[name] = drift.run(name, {"replan.when": name, **replan})
    return records


def last_checkpoint(run):
    return max((run / "checkpoints").glob("step-*"))


def report_windows(records):
    for record in records:
        if "plan" in record:
            told = ", ".join(f"{what} {record[f'plan_{what}_before']:.3f} to {record[f'plan_{what}_after']:.3f}"
                             for what in ("copies", "imbalance", "step_s") if f"plan_{what}_before" in record)
            print(f"step {record['step']}: {record['plan']}{': ' + told if told else ''}")


def report_runs(records, changes):
    print(f"{'run':5} {'text':7} {'rows between nodes':>19} {'exchange s':>11} {'step s':>7}   (sums over the steps, rows per step)")
    for kind, wanted in (("first", lambda step: step <= changes), ("second", lambda step: step > changes)):
        for name, found in records.items():
            steps = [record for record in found if "step_s" in record and wanted(record["step"])]
            moving = sum(record.get("migration_s", 0) for record in found if wanted(record["step"]))
            print(f"{name:5} {kind:7} {statistics.mean(r['exchange_inter_rows'] for r in steps):19.0f} "
                  f"{sum(r['phase_s']['exchange'] for r in steps):11.1f} {sum(r['step_s'] for r in steps) + moving:7.1f}")


def report_migration(records):
    seconds = {record["step"]: record["step_s"] for record in records if "step_s" in record}
    moved = {record["step"]: record for record in records if "migration_s" in record}
    ratios = []
    for step, record in moved.items():
        still = sorted((other for other in seconds if other not in moved), key=lambda other: abs(other - step))
        near = [seconds[other] for other in still[:NEIGHBOURS]]
        ratios.append(((seconds[step] + record["migration_s"]) / statistics.median(near), step))
    if ratios:
        worst, step = max(ratios)
        print(f"{len(moved)} steps moved experts, {sum(r['moved_bytes'] for r in moved.values()) / 2 ** 20:.1f} MiB in all, "
              f"{sum(r['migration_s'] for r in moved.values()):.2f} s; the longest, {step}, took {worst:.2f} times its neighbours' median")


def report_placements(drift):
    """Copies and imbalance on tokens that no plan has seen, by the model at the end."""
    checkpoint = last_checkpoint(drift.folder / "auto")
    fresh, unused = drift.folder / "fresh.json", drift.folder / "unused.json"
    drift.plan(checkpoint, "second", fresh)
    print(f"{'placement':10} {'copies':>7} {'imbalance':>10}   (at the end, on text of the second kind)")
    found = {}
    for name, placement in (("start", drift.folder / "start.json"), ("auto", drift.folder / "auto" / "placement.json"), ("fresh", fresh)):
        drift.plan(checkpoint, "unseen", unused, "--start", placement, "--horizon-steps", 1e-9)  # nothing pays: it stays
        plan = found[name] = json.loads(unused.read_text())["plan"]
        print(f"{name:10} {plan['copies_per_token']:7.3f} {plan['rank_imbalance']:10.3f}")
    print("auto over fresh: " + ", ".join(f"{what} {found['auto'][key] / found['fresh'][key]:.3f}" for what, key in (
        ("copies", "copies_per_token"), ("imbalance", "rank_imbalance"), ("predicted step", "step_s"))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cartesian", help="the executable")
    parser.add_argument("--first", required=True, help="pattern of text files")
    parser.add_argument("--second", required=True, help="likewise, of another kind")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--ranks", type=int, default=2, help="of each node")
    parser.add_argument("--mbit", type=int, default=400, help="rate of each node's link")
    parser.add_argument("--inter", default="auto", choices=("auto", "mpi", "ucx"), help="what messages between nodes travel by")
    parser.add_argument("--batch", type=int, default=16, help="sequences of 256 tokens in a step")
    parser.add_argument("--pretrain", type=int, default=200, help="steps on both kinds of text")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of the two runs")
    parser.add_argument("--window", type=int, default=15, help="steps")
    parser.add_argument("--before", type=int, default=2, help="windows of the first kind")
    parser.add_argument("--after", type=int, default=4, help="windows of the second")
    parser.add_argument("--portion-mib", type=float, default=24, help="replan.bytes_per_step")
    parser.add_argument("--sequences", type=int, default=64, help="of a trace, to plan on and to compare on")
    parser.add_argument("--keep", help="folder for runs and placements, else removed; a model that is there is not trained again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, emulated_cluster.cluster(args):
        if args.keep:
            pathlib.Path(args.keep).mkdir(parents=True, exist_ok=True)
        drift = Drift(args, pathlib.Path(args.keep or folder).resolve())
        records = train(drift)
        report_windows(records["auto"])
        report_runs(records, drift.changes)
        report_migration(records["auto"])
        report_placements(drift)


if __name__ == "__main__":
    main()
