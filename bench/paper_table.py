#!/usr/bin/env python3
"""Trains the eight systems of the paper's table at a small scale and prints the table with ours beside it.

bench/paper_table.sh calls it, having built and tokenized. Runs have one thread each, several at a time; results are in
DIR/results.json and DIR/table.md.
"""
import argparse
import concurrent.futures
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from paper_systems import BATCH, BLOCKS, HIDDEN, LENGTH, SYSTEMS, WIDTH, settings

# Two-sided 95% quantiles of Student's t by degrees of freedom: seeds are few.
T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
CALIBRATION = (2, 8)  # steps of warm-up, steps timed
EVALUATION_SHARE = 0.12  # of the budget, for the three evaluations of each run
EVALUATIONS = {  # column: what `cartesian eval` is told
    "perplexity": [],
    "disabled": ["--disable-top", "1"],
    "disabled_from_second": ["--disable-top", "1", "--disable-from", "1"],
}


def call(command):
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nfailed with exit code {done.returncode}:\n{done.stderr}{done.stdout}")
    return done.stdout


def train(args, system, steps, seed, run_dir):
    command = [args.cartesian, "train", system.path, "--resume"]
    for setting in settings(system, args.data, steps, seed, run_dir):
        command += ["--set", setting]
    call(command)


def seconds_per_step(args, system):
    warm_up, timed = CALIBRATION
    with tempfile.TemporaryDirectory() as folder:
        run_dir = os.path.join(folder, "run")
        train(args, system, warm_up + timed, 1, run_dir)
        with open(os.path.join(run_dir, "metrics.jsonl"), encoding="utf-8") as file:
            steps = [record["step_s"] for record in map(json.loads, file) if "step_s" in record]
    return statistics.median(steps[warm_up:])


def choose_steps(args):
    """Steps of a run; asked of the machine once, then kept in DIR/plan.json."""
    path = os.path.join(args.dir, "plan.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            steps = json.load(file)["steps"]
        if args.steps not in (None, steps):
            sys.exit(f"{path}: the runs there have {steps} steps; --steps {args.steps} needs another --dir")
        return steps
    steps = args.steps
    if steps is None:
        print(f"timing a few steps of each system, {args.jobs} at a time", flush=True)
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            rates = list(pool.map(lambda system: seconds_per_step(args, system), SYSTEMS))
        budget = args.minutes * 60 * args.jobs * (1 - EVALUATION_SHARE)
        steps = max(20, int(budget / (args.seeds * sum(rates))))
    os.makedirs(args.dir, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"steps": steps, "minutes": args.minutes, "seeds": args.seeds}, file)
    return steps


def evaluate(args, system, checkpoint):
    row = {}
    for column, options in EVALUATIONS.items():
        if options and not system.routed:
            continue
        text = call([args.cartesian, "eval", checkpoint, "--data", args.data + "-valid",
                     "--sequences", str(args.sequences)] + options)
        row[column] = float(re.search(r"^perplexity ([0-9.e+]+|inf)$", text, re.MULTILINE).group(1))
    return row


def run(args, system, steps, seed):
    """One run's figures; from its result.json if it is finished."""
    run_dir = os.path.join(args.dir, f"{system.config}-seed{seed}")
    path = os.path.join(run_dir, "result.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    train(args, system, steps, seed, run_dir)
    with open(os.path.join(run_dir, "summary.json"), encoding="utf-8") as file:
        summary = json.load(file)
    row = {"system": system.name, "seed": seed, "steps": steps, "dead_experts": summary["dead_experts"],
           "balancedness": summary["balancedness"], **evaluate(args, system, summary["checkpoint"])}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(row, file)
    return row


def parameters(args, system):
    """Parameters in all and activated, matrices only, as `cartesian info` prints them."""
    with tempfile.TemporaryDirectory() as folder:
        command = [args.cartesian, "info", system.path]
        for setting in settings(system, args.data, 1, 1, folder):
            command += ["--set", setting]
        text = call(command)
    return re.search(r"matrices only\D*([\d.]+\w?)\D+([\d.]+\w?)", text).groups()


def mean_and_spread(values):
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def table(args, steps, rows):
    sizes = {system.name: parameters(args, system) for system in SYSTEMS}
    tokens = steps * BATCH * LENGTH
    lines = [
        f"Perplexity, mean ± standard deviation over {args.seeds} seeds. Ours: d={HIDDEN}, D={WIDTH}, {BLOCKS} blocks, bytes, "
        f"{steps} steps of {BATCH} x {LENGTH} tokens ({tokens / 1e6:.1f} M).", "",
        "| system | parameters, millions: all / activated | ours | top-1 disabled | the same, first MoE layer left alone "
        "| paper, Base | paper, Large | paper, Large, top-1 disabled |",
        "|---|---|---|---|---|---|---|---|"]
    for system in SYSTEMS:
        ours = [row for row in rows if row["system"] == system.name]
        cells = [mean_and_spread([row[column] for row in ours if column in row]) for column in EVALUATIONS]
        paper = [f"{value:.2f}" if value else "-" for value in (system.base, system.large, system.disabled)]
        lines.append("| " + " | ".join([system.name, " / ".join(sizes[system.name])] + cells + paper) + " |")
    return "\n".join(lines + ["", verdict(rows)])


def verdict(rows):
    """Which differences to CartesianMoE are larger than the seeds' spread: Student's t over pairs of the same seed."""
    def values(name):
        return {row["seed"]: row["perplexity"] for row in rows if row["system"] == name}
    reference = values("CartesianMoE")
    sentences = []
    for system in SYSTEMS:
        other = values(system.name)
        seeds = sorted(set(other) & set(reference))
        if system.name == "CartesianMoE" or len(seeds) < 2:
            continue
        differences = [other[seed] - reference[seed] for seed in seeds]
        mean, error = statistics.mean(differences), statistics.stdev(differences) / len(seeds) ** 0.5
        quantile = T_95.get(len(seeds) - 1, 2.2)
        clear = "clear at 95%" if abs(mean) > quantile * error else "within the noise of the seeds"
        sentences.append(f"- {system.name} less CartesianMoE, seed by seed: {mean:+.3f} ± {error:.3f} ({clear})")
    return "\n".join(sentences)


def train_all(args, steps):
    jobs = [(system, seed) for seed in range(1, args.seeds + 1) for system in SYSTEMS]
    rows, start, trained = [], time.monotonic(), 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        pending = {}
        for system, seed in jobs:
            finished = os.path.exists(os.path.join(args.dir, f"{system.config}-seed{seed}", "result.json"))
            pending[pool.submit(run, args, system, steps, seed)] = finished
        total = sum(not finished for finished in pending.values())
        for future in concurrent.futures.as_completed(pending):
            row = future.result()
            rows.append(row)
            if pending[future]:
                continue
            trained += 1
            left = (time.monotonic() - start) / trained * (total - trained)
            print(f"{len(rows):3d} of {len(jobs)}  {row['system']:<24} seed {row['seed']}  perplexity {row['perplexity']:7.3f}  "
                  f"{left / 60:5.1f} min left", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cartesian", help="the executable")
    parser.add_argument("--data", required=True, help="prefix of the tokens; PREFIX-valid is held out")
    parser.add_argument("--dir", default="runs/paper-table")
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--steps", type=int, help="steps of a run, instead of a budget in minutes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--sequences", type=int, default=512, help="held-out windows that are evaluated")
    args = parser.parse_args()
    if args.minutes <= 0 or args.seeds < 1 or args.jobs < 1:
        parser.error("--minutes, --seeds and --jobs must be positive")
    if shutil.which(args.cartesian) is None:
        parser.error(f"{args.cartesian} is not a program")
    steps = choose_steps(args)
    print(f"{len(SYSTEMS)} systems, {args.seeds} seeds, {steps} steps each, {args.jobs} runs at a time", flush=True)
    rows = train_all(args, steps)
    text = table(args, steps, rows)
    with open(os.path.join(args.dir, "results.json"), "w", encoding="utf-8") as file:
        json.dump({"steps": steps, "runs": rows}, file, indent=1)
    with open(os.path.join(args.dir, "table.md"), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    print("\n" + text + f"\n\nwritten: {os.path.join(args.dir, 'table.md')}")


if __name__ == "__main__":
    main()
