#!/usr/bin/env python3
"""How much of a MoE layer's communication chunks hide, on an emulated cluster (cluster/emulate.sh, as root).

  python3 bench/emulated_overlap.py build/release/runtime/cartesian RUN

Steps go on from the run's last checkpoint, in the pivot flow and planned, in one chunk and in several, in turn: first over
links so fast that they cost nothing, which leaves what is computed (and what the processors do for the messages); then over
links of a rate at which messages take about as long as that. Hidden is (time in one chunk - time in several) / min(what is
computed, what messages add to one chunk), forward and backward, by the seconds that rank 0 spends in MoE layers, and by those
of its steps: where ranks share processors, a rank that is sooner through one part waits for the others in the next. Medians.
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
    """Seconds of the MoE layers and of the step, by number of chunks."""
    seconds = {chunks: [] for chunks in chunk_counts}
    for _ in range(rounds):
        for chunks in chunk_counts:
            records = run.steps(args.steps, {"exchange.flow": "pivot", "parallel.placement": placement, "exchange.chunks": chunks})
            seconds[chunks] += [(moe_seconds(record), record["step_s"]) for record in records]
    return {chunks: tuple(map(statistics.median, zip(*times))) for chunks, times in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    emulated_cluster.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4, help="timed steps a run")
    parser.add_argument("--chunks", type=int, nargs="+", default=[2, 4, 8])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, emulated_cluster.cluster(args):
        run = TrainedRun(args, folder)
        placement = run.plans()["planned"]
        first = measure(run, args, placement, [1], 1)[1][0]
        set_rate(args, FAST)
        fast = measure(run, args, placement, [1, *args.chunks], args.rounds)
        computed = fast[1][0]
        mbit = args.mbit * (first - computed) / computed
        set_rate(args, f"{mbit:.0f}mbit")
        slow = measure(run, args, placement, [1, *args.chunks], args.rounds)
        messages = slow[1][0] - computed
        most = min(computed, messages)
        print(f"MoE layers in one chunk: {computed:.3f} s over {FAST}, {messages:.3f} s more over {mbit:.0f} Mbit/s; "
              f"steps {fast[1][1]:.3f} and {slow[1][1]:.3f} s")
        print(f"{'chunks':>6} {'layers s':>9} {'hidden':>7} {'step s':>7} {'hidden':>7} {'over ' + FAST + ': layers s':>23} {'step s':>7}")
        for chunks in args.chunks:
            hidden = [(one - several) / most for one, several in zip(slow[1], slow[chunks])]
            print(f"{chunks:6} {slow[chunks][0]:9.3f} {hidden[0]:7.2f} {slow[chunks][1]:7.3f} {hidden[1]:7.2f} {fast[chunks][0]:23.3f} "
                  f"{fast[chunks][1]:7.3f}")


if __name__ == "__main__":
    main()
