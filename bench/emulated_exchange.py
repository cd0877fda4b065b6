#!/usr/bin/env python3
"""The exchange of a trained model's tokens on an emulated cluster (cluster/emulate.sh, as root), against its links.

  python3 bench/emulated_exchange.py build/release/runtime/cartesian RUN

Runs `cartesian bench exchange` with the routing of the run's last checkpoint on its training text, in the sizes of its steps,
there and back, in ROUNDS rounds of all ways. Prints for each the seconds of a step (medians of the rounds' medians; the
slowest rank's) beside what it waits for at least: the sum over its groups of messages of the busiest node's bytes, in or out,
at the rate of a link measured in the same run; and beside MPI_Alltoallv's step of a row for every choice.
"""
import argparse
import json
import statistics
import tempfile

import emulated_cluster
from emulated_cluster import MIB, TrainedRun


def measure(run, args, ways):
    results = {name: [] for name in ways}
    output = run.folder / "exchange.json"
    for _ in range(args.rounds):
        for name, (flow, placement) in ways.items():
            run.on_cluster("bench", "exchange", "--trace", run.trace, "--layer", args.layer, "--placement", placement, "--flow",
                           flow, "--tokens", args.tokens or run.tokens() // (args.nodes * args.ranks), "--hidden",
                           run.config["model"]["hidden_size"], "--dtype", run.config["train"]["dtype"], "--chunks", args.chunks,
                           "--threads", 1, "--repeats", args.repeats, "--inter", args.inter, "--validate", "-o", output)
            results[name].append(json.loads(output.read_text()))
    return results


def report(results, rate):
    print(f"{'way':9} {'link MiB':>9} {'at link rate s':>15} {'step s':>8} {'over it':>8} {'of alltoallv':>13} "
          f"{'forward s':>10} {'experts s':>10}")
    for name, found in results.items():
        def middle(phase):
            return statistics.median(one["exchange"]["phases"][phase]["median_s"] for one in found)
        link_bytes = found[0]["exchange"]["busiest_link_bytes"]
        least = link_bytes / rate
        print(f"{name:9} {link_bytes / MIB:9.1f} {least:15.3f} {middle('step'):8.3f} {middle('step') / least:8.2f} "
              f"{statistics.median(one['ratio']['step'] for one in found):13.2f} {middle('forward'):10.3f} {middle('experts'):10.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    emulated_cluster.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5, help="timed steps a round, after two")
    parser.add_argument("--chunks", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=0, help="of each rank; the run's own unless given")
    parser.add_argument("--layer", type=int, default=0, help="MoE layer of the model")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, emulated_cluster.cluster(args) as rate:
        run = TrainedRun(args, folder)
        plans = run.plans()
        report(measure(run, args, {"flat": ("flat", "linear"), "random": ("home", plans["random"]),
                                   "pivot": ("pivot", plans["planned"]), "replicas": ("pivot", plans["replicas"])}), rate)


if __name__ == "__main__":
    main()
