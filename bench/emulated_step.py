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
long the exchange's rows take at least; the share of pivots that host an expert of B, and rows over those of an oracle.
"""
import argparse
import statistics
import tempfile

import emulated_cluster
from emulated_cluster import MIB, TrainedRun, moe_seconds


def measure(run, args):
    plans = run.plans()
    pivot = {"exchange.flow": "pivot", "parallel.placement": plans["planned"]}
    ways = {"flat": {"exchange.flow": "flat", "parallel.placement": "linear"},
            "random": {"exchange.flow": "home", "parallel.placement": plans["random"]},
            "pivot": pivot,
            "overlap": {**pivot, "exchange.chunks": args.chunks},
            "replicas": {**pivot, "exchange.chunks": args.chunks, "parallel.placement": plans["replicas"]}}
    records = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, settings in ways.items():
            records[name] += run.steps(args.steps, {"exchange.chunks": 1, **settings})
    return records


def report(records, row_bytes, rate, nodes):
    print(f"{'way':9} {'rows':>9} {'MiB':>8} {'of flat':>8} {'all MiB':>8} {'MoE s':>7} {'faster':>7} {'step s':>7} {'faster':>7} "
          f"{'waits s':>8} {'rows at link rate s':>20} {'hits':>6} {'of oracle':>10}")
    middle = {name: {"rows": statistics.median(r["exchange_inter_rows"] for r in of_way),
                     "bytes": statistics.median(r["inter_bytes"] for r in of_way),
                     "moe": statistics.median(map(moe_seconds, of_way)),
                     "step": statistics.median(r["step_s"] for r in of_way),
                     "wait": statistics.median(r["wait_s"] for r in of_way)} for name, of_way in records.items()}
    flat = middle["flat"]
    for name, way in middle.items():
        pivots = "".join(f" {statistics.median(r[key] for r in records[name]):{width}.3f}" if key in records[name][0] else ""
                         for key, width in (("pivot_hit_rate", 6), ("rows_over_oracle", 10)))
        print(f"{name:9} {way['rows']:9.0f} {way['rows'] * row_bytes / MIB:8.1f} {way['rows'] / flat['rows']:8.2f} "
              f"{way['bytes'] / MIB:8.1f} {way['moe']:7.2f} {flat['moe'] / way['moe']:7.2f} {way['step']:7.2f} "
              f"{flat['step'] / way['step']:7.2f} {way['wait']:8.2f} {way['rows'] * row_bytes / nodes / rate:20.2f}{pivots}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    emulated_cluster.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4, help="timed steps a run")
    parser.add_argument("--chunks", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, emulated_cluster.cluster(args) as rate:
        run = TrainedRun(args, folder)
        report(measure(run, args), run.row_bytes(), rate, args.nodes)


if __name__ == "__main__":
    main()
