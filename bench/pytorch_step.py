#!/usr/bin/env python3
"""Whole training steps of configs/quickstart.toml on one rank against the same model in PyTorch, in paired rounds.

  bash tests/python_env.sh bench/pytorch_step.py build/release/runtime/cartesian [--rounds 5] [--steps 5] [--threads 1]
      [--dtypes float32 bfloat16] [--set section.key=value ...]

Both start from the same weights and train on the same batch in every step, so their losses must agree. The peer is timed
in every way it can be written (bench/pytorch_peer.py), and the fastest is compared. Prints the median over rounds of
the ratio of tokens/s, both losses of the first step, and what share of the peer's time is matrix products.
"""
import argparse
import glob
import os
import statistics
import tempfile
import time
import tomllib

import numpy
import torch
from safetensors.torch import load_file

from pytorch_peer import WAYS, Peer, Trainer
from training_run import CONFIG, add_run_options, make_batch, train

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")
WARMUP = 2  # steps
SLOW = 10  # a way so many times slower than another is not run again


def toml(path):
    with open(path, "rb") as file:
        return tomllib.load(file)


class Comparison:
    """The same batch and initial weights for both."""

    def __init__(self, args, dtype, folder):
        self.args = args
        self.settings = ["train.dtype=" + dtype] + args.settings
        sizes = toml(CONFIG)["train"]
        shape = sizes["batch_sequences"], sizes["sequence_length"]
        self.tokens = shape[0] * shape[1]
        self.data = make_batch(args.cartesian, folder, self.tokens)
        run = os.path.join(folder, "start-" + dtype)
        # A step at rate 0 leaves the initial weights in a checkpoint.
        train(args.cartesian, self.data, 1, self.settings + [
            "train.steps=1", "train.warmup_steps=0", "train.learning_rate=0", "train.min_learning_rate=0"], run=run)
        self.config = toml(os.path.join(run, "config.toml"))
        self.config["train"] |= {key: sizes[key] for key in ("learning_rate", "min_learning_rate", "warmup_steps")}
        self.weights = {}
        for path in glob.glob(os.path.join(run, "checkpoints", "*", "model*.safetensors")):
            self.weights |= load_file(path)
        stream = torch.from_numpy(numpy.fromfile(self.data + ".bin", dtype=numpy.uint16).astype(numpy.int64))
        self.ids, self.targets = stream[:-1].view(shape), stream[1:].view(shape)

    def trainer(self, way):
        model = Peer(self.config["model"], self.ids.shape[1])
        model.load(self.weights)
        return Trainer(model, self.config["train"], way)

    def ours(self):
        """The losses, and the median seconds of a step after warm-up."""
        records = train(self.args.cartesian, self.data, 1,
                        self.settings + ["train.steps=%d" % (WARMUP + self.args.steps)], self.args.threads)
        return [r["loss"] for r in records], statistics.median(r["step_s"] for r in records[WARMUP:])

    def peer(self, trainer, steps):
        losses, seconds = [], []
        for _ in range(steps):
            start = time.perf_counter()
            losses.append(trainer.step(self.ids, self.targets))
            seconds.append(time.perf_counter() - start)
        return losses, statistics.median(seconds)

    def product_share(self, trainer):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            trainer.step(self.ids, self.targets)
        events = profile.key_averages()
        return sum(e.self_cpu_time_total for e in events if e.key in PRODUCTS) / sum(
            e.self_cpu_time_total for e in events)


def compare(args, dtype, folder):
    comparison = Comparison(args, dtype, folder)
    trainers, first, seconds = {}, {}, {}
    for way in WAYS[dtype]:
        trainers[way] = comparison.trainer(way)
        losses, seconds[way] = comparison.peer(trainers[way], 1)
        if seconds[way] < SLOW * min(seconds.values()):
            _, seconds[way] = comparison.peer(trainers[way], 1)  # the first step was warm-up
        first[way] = losses[0]
        print("%s, PyTorch, %s: about %.0f tokens/s" % (dtype, way, comparison.tokens / seconds[way]), flush=True)
    way = min(seconds, key=seconds.get)
    trainer, rates = trainers[way], []
    for _ in range(args.rounds):
        our_losses, our_seconds = comparison.ours()
        _, peer_seconds = comparison.peer(trainer, args.steps)
        rates.append((comparison.tokens / our_seconds, comparison.tokens / peer_seconds))
        print("  ours %7.0f tokens/s   PyTorch %7.0f tokens/s   ratio %.2f" % (*rates[-1], rates[-1][0] / rates[-1][1]),
              flush=True)
    print("%s, %d thread(s): ours %.0f, PyTorch (%s) %.0f tokens/s; ratio %.2f, median of %d paired rounds" % (
        dtype, args.threads, statistics.median(r[0] for r in rates), way, statistics.median(r[1] for r in rates),
        statistics.median(r[0] / r[1] for r in rates), args.rounds))
    print("  losses of step 1: %.5f and %.5f" % (our_losses[0], first[way]))
    print("  matrix products are %.0f%% of the peer's time" % (100 * comparison.product_share(trainer)), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_options(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="timed steps a round, after %d of warm-up" % WARMUP)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    args = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        for dtype in args.dtypes:
            compare(args, dtype, folder)


if __name__ == "__main__":
    main()
