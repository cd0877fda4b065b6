#!/usr/bin/env python3
"""Peak memory of a training run beside the model's own bytes, for growing micro-batches.

  python3 bench/memory.py build/release/runtime/cartesian [--set section.key=value ...]

The model's own bytes are weights, gradients and two moments in float32. What comes on top should grow linearly with the
tokens of a micro-batch: the last column is its growth per token between neighbouring rows.
"""
import argparse

from training_run import add_run_options, make_data, train

MIB = 1 << 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_options(parser)
    parser.add_argument("--sequences", type=int, nargs="+", default=[4, 8, 16, 32])
    args = parser.parse_args()
    print("%10s %12s %12s %12s %16s" % ("tokens", "model MiB", "arenas MiB", "peak MiB", "arena KiB/token"))
    previous = None
    with make_data(args.cartesian) as data:
        for sequences in args.sequences:
            last = train(args.cartesian, data, 1, [
                "train.steps=4", "train.batch_sequences=%d" % sequences,
                "train.micro_batch_sequences=%d" % sequences] + args.settings)[-1]
            tokens = round(last["tokens_per_s"] * last["step_s"])
            slope = ""
            if previous:
                slope = "%.2f" % ((last["arena_bytes"] - previous[1]) / 1024 / (tokens - previous[0]))
            print("%10d %12.1f %12.1f %12.1f %16s" % (tokens, last["model_bytes"] / MIB, last["arena_bytes"] / MIB,
                                                     last["peak_rss_bytes"] / MIB, slope), flush=True)
            previous = (tokens, last["arena_bytes"])


if __name__ == "__main__":
    main()
