#!/usr/bin/env python3
"""How much of a MoE layer's communication chunks hide, on an emulated cluster (cluster/emulate.sh, as root).

  python3 bench/emulated_overlap.py build/release/runtime/cartesian RUN

Steps go on from the run's last checkpoint, in the pivot flow and planned, in one chunk and in several, in turn: first over
links so fast that they cost nothing, which leaves what is computed (and what the processors do for the messages); then over
links of a rate at which messages take about as long as that. Hidden is (time in one chunk - time in several) / min(what is
computed, what messages add to one chunk), of the MoE layers, forward and backward; medians of rank 0's steps.
"""
import argparse
import statistics
import tempfile

import emulated_cluster
from emulated_cluster import TrainedRun, moe_seconds

FAST = "10gbit"


def set_rate(args, rate):
    for node in range(args.nodes):
        emulated_cluster.emulate("throttle", node, rate)


def measure(run, args, placement, chunk_counts, rounds):
    """Seconds of the MoE layers by number of chunks."""
    seconds = {chunks: [] for chunks in chunk_counts}
    for _ in range(rounds):
        for chunks in chunk_counts:
            records = run.steps(args.steps, {"exchange.flow": "pivot", "parallel.placement": placement, "exchange.chunks": chunks})
            seconds[chunks] += map(moe_seconds, records)
    return {chunks: statistics.median(times) for chunks, times in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    emulated_cluster.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4, help="timed steps a run, after one")
    parser.add_argument("--chunks", type=int, nargs="+", default=[2, 4, 8])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, emulated_cluster.cluster(args):
        run = TrainedRun(args, folder)
        placement = run.plans()["planned"]
        added = measure(run, args, placement, [1], 1)[1]
        set_rate(args, FAST)
        fast = measure(run, args, placement, [1, *args.chunks], args.rounds)
        mbit = args.mbit * (added - fast[1]) / fast[1]
        set_rate(args, f"{mbit:.0f}mbit")
        slow = measure(run, args, placement, [1, *args.chunks], args.rounds)
        computed, messages = fast[1], slow[1] - fast[1]
        print(f"MoE layers in one chunk: {fast[1]:.3f} s over {FAST}, {slow[1]:.3f} s over {mbit:.0f} Mbit/s: "
              f"messages add {messages:.3f}")
        print(f"{'chunks':>6} {'s':>7} {'hidden':>7} {'over ' + FAST:>12}")
        for chunks in args.chunks:
            print(f"{chunks:6} {slow[chunks]:7.3f} {(slow[1] - slow[chunks]) / min(computed, messages):7.2f} {fast[chunks]:12.3f}")


if __name__ == "__main__":
    main()
