#!/usr/bin/env python3
"""Writes the dashboards in dashboards/*.json, which Grafana 9 or later imports: edit here, not there.

usage: make_dashboards.py [--check] [FOLDER]

--check writes nothing, and fails if a file is not what would be written.
"""

import json
import pathlib
import sys

from panels import SELECT, Dashboard, bars, heat_map, lines, stat, table

HERE = pathlib.Path(__file__).resolve().parent
RATE = "$__rate_interval"


def rate(metric, by="", select=""):
    """The sum of a counter's rate, by job, run and the labels `by`."""
    matchers = ", ".join(filter(None, (SELECT, select)))
    return f"sum by (job, run{', ' + by if by else ''}) (rate({metric}{{{matchers}}}[{RATE}]))"


def of(metric, select=""):
    return f"{metric}{{{', '.join(filter(None, (SELECT, select)))}}}"


def overview():
    board = Dashboard("overview", "Cartesian: overview", "Is the job well, how fast is it, and what does its time go into?", many=True)
    board.row("Now")
    board.add(4, stat("Step", "Steps done, of the rank that is furthest.", [(of("cartesian_step"), "{{run}}")], "none"))
    board.add(4, stat("Since the last step", "Time since a rank first reported that step. It grows without end where ranks hang.",
                      [(of("cartesian_step_age_seconds"), "{{run}}")], "s", warn=60, bad=300))
    board.add(4, stat("Tokens per second", "Tokens trained on by all ranks, over two minutes.",
                      [(of("cartesian:tokens_per_second"), "{{run}}")], "short"))
    board.add(4, stat("Ranks alive", "Ranks whose heartbeats come in time, of all ranks of the job.",
                      [(of("cartesian_ranks_by_health", 'health="alive"'), "{{run}} alive"), (of("cartesian_ranks"), "{{run}} of")], "none"))
    board.add(4, stat("Last checkpoint", "Step of the last checkpoint, -1 before the first: what a failure now goes back to.",
                      [(of("cartesian_last_checkpoint_step"), "{{run}}")], "none"))
    board.add(4, stat("Plan version", "Which placement of the experts is in force; 0 is the one that the job began with.",
                      [(of("cartesian_plan_version"), "{{run}}")], "none"))
    board.add(24, table("Alerts", "Alerts of rules/alerts.yml that fire now for these jobs; empty when all is well. "
                        "docs/monitoring.md says what to do.",
                        [('ALERTS{alertname=~"Cartesian.+", alertstate="firing", job=~"$job", run=~"$run"}', "")]), height=5)
    board.row("Learning")
    board.add(12, lines("Loss", "Loss of the last step, nats a token.", [(of("cartesian_loss"), "{{run}}")], "none"))
    board.add(6, lines("Gradient norm", "Before clipping. Leaps come before a loss that is not finite.",
                       [(of("cartesian_gradient_norm"), "{{run}}")], "none"))
    board.add(6, lines("Learning rate", "Learning rate of the last step.", [(of("cartesian_learning_rate"), "{{run}}")], "sci"))
    board.row("Speed")
    board.add(8, lines("Tokens per second", "Tokens trained on by all ranks, over two minutes.",
                       [(of("cartesian:tokens_per_second"), "{{run}}")], "short"))
    board.add(8, lines("Seconds a step", "Median and 99th percentile over ranks and steps of two minutes; they lie apart where some steps or "
                       "ranks are slow.", [(of("cartesian:step_seconds:p50"), "{{run}} median"),
                                           (of("cartesian:step_seconds:p99"), "{{run}} 99%")], "s"))
    board.add(8, lines("Steps per second", "Steps of the whole job, over two minutes.", [(of("cartesian:steps_per_second"), "{{run}}")], "none"))
    board.add(16, lines("Time by phase", "Share of all ranks' computing threads in each phase of the step.",
                        [(of("cartesian:phase_share"), "{{run}} {{phase}}")], "percentunit", stacked=True))
    board.add(8, lines("Exposed communication", "Share of their time that ranks wait for messages: what overlapping or a better "
                       "placement could save at most.", [(of("cartesian:exposed_share"), "{{run}}")], "percentunit"))
    board.row("Control")
    board.add(8, lines("Ranks by health", "Late and lost ranks are silent, dead ones have been so for scheduler.dead_s.",
                       [(of("cartesian_ranks_by_health"), "{{run}} {{health}}")], "none", stacked=True))
    board.add(8, lines("Plans", "Placements that were planned while training, by what became of them, and the version in force.",
                       [(of("cartesian_plans_total"), "{{run}} {{outcome}}"), (of("cartesian_plan_version"), "{{run}} version")], "none"))
    board.add(8, lines("Control messages", "Step reports, commands, those that came late, and connections that broke.",
                       [(rate(f"cartesian_{name}_total"), f"{{{{run}}}} {text}") for name, text in
                        (("reports", "reports"), ("commands", "commands"), ("commands_late", "late commands"),
                         ("control_troubles", "troubles"))], "cps"))
    return board


def experts():
    board = Dashboard("experts", "Cartesian: experts", "Do all experts work, and evenly?")
    board.choose("layer", "MoE layer", f"label_values({of('cartesian_dead_experts')}, layer)")
    board.choose("expert_layer", "Layer of experts", f"label_values({of('cartesian_expert_tokens_total')}, layer)")
    layered = 'layer=~"$layer"'
    board.row("All layers")
    board.add(8, lines("Balancedness", "Mean over maximum load of a sub-layer's experts: 1 is even, 1/N is one expert that gets everything.",
                       [(of("cartesian_expert_balancedness", layered), "layer {{layer}} {{group}}")], "none", top=1))
    board.add(8, lines("Imbalance", "Maximum over mean load: how many times an even share the busiest expert gets.",
                       [(of("cartesian_expert_imbalance", layered), "layer {{layer}} {{group}}")], "none"))
    board.add(8, lines("Dead experts", "Experts that no token chose in the window (metrics.window_steps).",
                       [(of("cartesian_dead_experts", layered), "layer {{layer}} {{group}}")], "none"))
    board.add(8, lines("Coefficient of variation", "Standard deviation over mean of the experts' loads: 0 is even.",
                       [(of("cartesian_expert_load_cv", layered), "layer {{layer}} {{group}}")], "none"))
    board.add(8, lines("Entropy", "Of the experts' loads over its maximum: 1 is even, 0 is one expert that gets everything.",
                       [(of("cartesian_expert_load_entropy", layered), "layer {{layer}} {{group}}")], "none", top=1))
    board.add(8, lines("Imbalance of ranks", "Maximum over mean of the rows that ranks' experts get: what a layer's slowest rank costs. A better "
                       "placement lowers it, with the same experts.", [(of("cartesian_rank_load_imbalance", layered), "layer {{layer}}")], "none"))
    board.row("Every expert of MoE layer $expert_layer", repeat="expert_layer")
    for group in "AB":
        one = f'layer=~"$expert_layer", group="{group}"'
        load = f"sum by (expert) (rate({of('cartesian_expert_tokens_total', one)}[{RATE}]))"
        board.add(12, heat_map(f"Experts of {group}, layer $expert_layer", f"Share of each expert of {group} against an even one: 1 is even, "
                               "dark is idle. Empty without metrics.experts.", f"{load} / scalar(avg({load}))", "expert"))
    return board


def traffic():
    board = Dashboard("traffic", "Cartesian: traffic", "What travels, how far, and how much of it placement and flow have saved.", many=True)
    board.row("Volume")
    board.add(12, lines("Bytes by scope", "What all ranks send a second, inside nodes and between them.",
                        [(rate("cartesian_transport_bytes_total", "scope"), "{{run}} {{scope}}")], "Bps", stacked=True))
    board.add(12, lines("Rows by scope", "Tokens' rows that the exchange sends a second, forward and backward.",
                        [(rate("cartesian_exchange_rows_total", "scope"), "{{run}} {{scope}}")], "suffix: rows/s", stacked=True))
    board.add(12, lines("Bytes between nodes, a token", "All that crosses between nodes, gradients too, over tokens trained on.",
                        [(rate("cartesian_transport_bytes_total", select='scope="inter"') + " / " + rate("cartesian_tokens_total"), "{{run}}")],
                        "bytes"))
    board.add(12, lines("Bytes between nodes", "A second, over two minutes: compare with what the network cards can do.",
                        [(of("cartesian:internode_bytes_per_second"), "{{run}}")], "Bps"))
    board.row("Savings")
    board.add(8, lines("Copies per token", "Rows between nodes a token and MoE layer, forward and backward together: what plans make small.",
                       [(of("cartesian_internode_copies_per_token"), "{{run}}"),
                        (of("cartesian:internode_copies_per_token"), "{{run}} over two minutes")], "none"))
    board.add(8, lines("Dedup factor", "Rows between nodes that a flat exchange of the same choices would send, over those sent.",
                       [(of("cartesian_dedup_factor"), "{{run}}")], "none"))
    board.add(8, lines("Pivot hit rate", "Share of tokens whose pivot's node hosts an expert of their B choices.",
                       [(of("cartesian:pivot_hit_rate"), "{{run}}")], "percentunit", top=1))
    board.add(12, lines("Co-location", "Share of tokens' pairs of A and B choices whose experts share a node, by layer. Empty above 262,144 pairs (docs/metrics.md).",
                        [(of("cartesian_colocation_rate"), "{{run}} layer {{layer}}")], "percentunit", top=1))
    board.add(12, lines("Migrated bytes", "Bytes of experts that were moved between ranks since the job began.",
                        [(of("cartesian_migrated_bytes_total"), "{{run}}")], "bytes"))
    return board


def stragglers():
    board = Dashboard("stragglers", "Cartesian: stragglers", "Which rank do the others wait for, and why?")
    board.row("Now")
    board.add(4, stat("Stragglers", "Ranks and links that the job names as stragglers; its output says what it costs.",
                      [(of("cartesian_stragglers"), "{{kind}}")], "none", warn=1, bad=2))
    board.add(4, stat("Worst straggler ratio", "The slowest rank's seconds of computing over the median rank's.",
                      [(of("cartesian:straggler_ratio:max"), "{{run}}")], "none", warn=1.15, bad=1.3))
    board.add(4, stat("Exposed communication", "Share of their time that ranks wait for messages.",
                      [(of("cartesian:exposed_share"), "{{run}}")], "percentunit", warn=0.3, bad=0.5))
    board.add(12, bars("Ranks by health", "Late and lost ranks are silent, dead ones have been so for scheduler.dead_s.",
                       [(of("cartesian_ranks_by_health"), "{{health}}")], "none"))
    per_rank = "rank, host"
    board.add(24, table("Ranks", "Each rank's ratio to the median, last step, and seconds it computes, waits and is waited for, "
                        "a second of the clock.",
                        [(f"max by ({per_rank}) ({of('cartesian_rank_straggler_ratio')})", "Straggler ratio"),
                         (f"max by ({per_rank}) ({of('cartesian_rank_step_seconds')})", "Last step, s"),
                         *((f"sum by ({per_rank}) (rate({of(f'cartesian_rank_{name}_seconds_total')}[{RATE}]))", text) for name, text in
                           (("compute", "Computes"), ("wait", "Waits"), ("waited_for", "Is waited for")))]), height=9)
    board.row("Over time")
    board.add(12, lines("Straggler ratio", "A rank's seconds of computing over the median rank's, over the window, its experts included.",
                        [(of("cartesian_rank_straggler_ratio"), "{{rank}} {{host}}")], "none"))
    board.add(12, lines("Last step", "Seconds of each rank's last step; ranks wait for each other, so that these are nearly equal.",
                        [(of("cartesian_rank_step_seconds"), "{{rank}} {{host}}")], "s"))
    for name, title, text in (("compute", "Computing", "Share of the clock that a rank computes: the slow one has most."),
                              ("wait", "Waiting", "Share of the clock that a rank waits for others: the slow one has least."),
                              ("waited_for", "Waited for", "Seconds a second that others, together, wait for the rank: the slow one has most.")):
        board.add(8, lines(title, text, [(rate(f"cartesian_rank_{name}_seconds_total", per_rank), "{{rank}} {{host}}")],
                           "none" if name == "waited_for" else "percentunit"))
    board.add(24, lines("Who waits for whom", "Seconds a second that the ranks of a node, together, wait for those of another or of their own, over "
                        "two minutes. A slow link: all curves to and from its node are high, the others low. Of jobs of at most 16 nodes.",
                        [(of("cartesian:node_wait_rate"), "node {{node}} for {{awaited}}")], "none"))
    return board


def main(words):
    check = "--check" in words
    folder = pathlib.Path(next((word for word in words if word != "--check"), HERE / "dashboards"))
    stale = []
    for board in (overview(), experts(), traffic(), stragglers()):
        path = folder / f"{board.name}.json"
        text = json.dumps(board.json(), indent=2) + "\n"
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
    for path in stale:
        print(f"{path}: is not what {pathlib.Path(__file__).name} writes: run it")
    return 1 if stale else 0


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        sys.exit(0)
    sys.exit(main(sys.argv[1:]))
