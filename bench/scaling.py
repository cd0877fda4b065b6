#!/usr/bin/env python3
"""Two ranks against one: tokens/s of the same training run, one thread a rank, in paired rounds.

  python3 bench/scaling.py build/release/runtime/cartesian [--rounds 3] [--steps 12] [--set section.key=value ...]

Prints the median over rounds of each, and of the ratio pair by pair. The text is made up, so no corpus is needed.
"""
import argparse
import statistics

from training_run import add_run_options, make_data, train


def tokens_per_s(args, data, ranks):
    """Median over the steps after warm-up."""
    records = train(args.cartesian, data, ranks, ["train.steps=%d" % (args.steps + 3)] + args.settings)
    return statistics.median(r["tokens_per_s"] for r in records[3:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_options(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="timed steps a run, after 3 of warm-up")
    args = parser.parse_args()
    with make_data(args.cartesian) as data:
        pairs = []
        for _ in range(args.rounds):
            pairs.append((tokens_per_s(args, data, 1), tokens_per_s(args, data, 2)))
            print("1 rank %8.0f tokens/s   2 ranks %8.0f tokens/s   ratio %.2f" % (*pairs[-1], pairs[-1][1] / pairs[-1][0]),
                  flush=True)
    print("median   %8.0f            %8.0f            ratio %.2f" % (
        statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs),
        statistics.median(p[1] / p[0] for p in pairs)))


if __name__ == "__main__":
    main()
