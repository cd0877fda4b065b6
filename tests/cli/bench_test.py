"""`cartesian bench exchange`: every flow over ranks and nodes, validated; what is printed and written; what is refused."""

import json
import re
import unittest

from harness import CliTest

SMALL = ("--tokens", "60", "--hidden", "33", "--experts", "12", "--top-k", "3", "--repeats", "2", "--validate")
VALID = "validated: outputs, gradients, and rows as the itineraries say"


def with_options(words, **changes):
    """`words` with options of `changes` in place of their own or behind them; one that is None is left out."""
    options = dict(zip(words[:-1:2], words[1::2]))
    options.update({f"--{name.replace('_', '-')}": value for name, value in changes.items()})
    pairs = [(name, value) for name, value in options.items() if value is not None]
    return [str(word) for pair in pairs for word in pair] + [words[-1]]


class Bench(CliTest):
    def bench(self, ranks, **changes):
        """The JSON of a validated run."""
        output = self.new_folder() / "result.json"
        result = self.run_program("bench", "exchange", *with_options(SMALL, **changes), "-o", output, ranks=ranks)
        self.assertIn(VALID, result.out)
        self.assertIn(f"written: {output}", result.out)
        return json.loads(output.read_text())

    def test_alone(self):
        result = self.run_program("bench", "exchange", *SMALL).out
        self.assertIn("1 rank (1) over local", result)
        self.assertIn("not compared with MPI_Alltoallv: mpirun or another launcher has not started this", result)
        self.assertIn(VALID, result)
        found = self.bench(1)
        self.assertNotIn("alltoallv", found)
        self.assertEqual(found["exchange"]["intra"], {"rows": 0, "bytes": 0})

    def test_flows_over_ranks_and_nodes(self):
        for ranks, nodes in ((2, None), (2, "1,1"), (4, "2,2"), (4, "1,3")):
            for flow in ("flat", "home", "pivot"):
                with self.subTest(ranks=ranks, nodes=nodes, flow=flow):
                    found = self.bench(ranks, node_sizes=nodes, flow=flow)
                    sent = found["exchange"]
                    if flow == "flat":
                        for scope in ("intra", "inter", "busiest_node"):
                            self.assertEqual(sent[scope]["rows"], found["alltoallv"][scope]["rows"])
                    elif nodes:
                        self.assertLess(sent["inter"]["rows"], found["alltoallv"]["inter"]["rows"])
                    for path in (sent, found["alltoallv"]):
                        # A row is 132 bytes, and something goes with it.
                        self.assertGreaterEqual(path["inter"]["bytes"], 132 * path["inter"]["rows"])
                        self.assertLessEqual(path["busiest_node"]["rows"], path["inter"]["rows"])
                    self.assertLessEqual(sent["busiest_node"]["bytes"], sent["busiest_link_bytes"])
                    self.assertLessEqual(sent["busiest_link_bytes"], sent["inter"]["bytes"])

    def test_what_a_result_holds(self):
        found = self.bench(2, seed=3, chunks=2)
        self.assertEqual([found[key] for key in ("transport", "ranks", "node_sizes", "tokens_per_rank", "hidden", "dtype",
                                                 "experts", "choices", "flow", "chunks", "repeats", "routing")],
                         ["mpi", 2, [2], 60, 33, "float32", 12, [3, 3], "pivot", 2, 2, "seed 3"])
        phases = ["dispatch_a", "collect_a", "dispatch_b", "return_b", "experts", "forward", "backward", "step"]
        for path in ("exchange", "alltoallv"):
            self.assertEqual(list(found[path]["phases"]), phases)
            for name, times in found[path]["phases"].items():
                self.assertGreaterEqual(times["median_s"], times["least_s"])
                self.assertEqual("algorithm_bytes_per_s" in times, name != "experts")
        self.assertEqual(list(found["ratio"]), phases)
        # The rows that tokens need are the same for both, so bandwidths are as times.
        step, plain = (found[path]["phases"]["step"] for path in ("exchange", "alltoallv"))
        self.assert_close(step["algorithm_bytes_per_s"] * step["median_s"],
                          plain["algorithm_bytes_per_s"] * plain["median_s"], 1e-9)

    def test_odd_loads(self):
        for changes in (dict(tokens=0), dict(tokens=1, chunks=3), dict(experts=1, top_k=1),
                        dict(experts=1, top_k=1, groups=1, flow="flat"), dict(dtype="bfloat16", chunks=3),
                        dict(placement="local", dtype="bfloat16", hidden=1), dict(groups=1, pivot="gate")):
            with self.subTest(**changes):
                found = self.bench(4, node_sizes="1,3", **changes)
                if changes.get("tokens") == 0 or changes.get("placement") == "local":
                    self.assertEqual(found["exchange"]["inter"]["rows"], 0)
                self.assertEqual(len(found["choices"]), changes.get("groups", 2))

    def test_by_a_trace_and_a_plan(self):
        folder = self.new_folder()
        trace, placement, cluster = folder / "trace.safetensors", folder / "placement.json", folder / "cluster.toml"
        cluster.write_text("nodes = 2\nranks_per_node = 2\n")
        self.run_program("trace", "-o", trace, "--experts", "16", "--choices", "4", "--cluster", "4", "--tokens", "300",
                         "--ragged", "--layers", "2")
        self.run_program("plan", "--topology", cluster, "--trace", trace, "-o", placement, "--time-budget", "0.2", "--slots",
                         "12")
        for pivot in ("speculative", "table", "gate"):
            with self.subTest(pivot=pivot):
                found = self.bench(4, node_sizes="2,2", trace=trace, layer=1, placement=placement, pivot=pivot, experts=None,
                                   top_k=None)
                self.assertEqual([found["experts"], found["choices"], found["pivot"]], [16, [4, 4], pivot])
                self.assertEqual(found["routing"], f"{trace}, layer 1")

    def test_the_same_rows_for_a_seed(self):
        one, same, other = (self.bench(2, seed=seed, node_sizes="1,1")["exchange"]["inter"] for seed in (1, 1, 2))
        self.assertEqual(one, same)
        self.assertNotEqual(one, other)

    def test_over_ucx(self):
        result = self.start("bench", "exchange", *with_options(SMALL, intra="ucx", inter="ucx", node_sizes="1,1"), ranks=2).wait()
        if "this build has no UCX" in result.err:
            return  # said in one sentence, which transports_test.py looks at
        self.assertEqual(result.code, 0, result)
        self.assertIn("2 ranks (1 + 1) over ucx", result.out)
        self.assertIn(VALID, result.out)

    def test_refused(self):
        words = ("bench", "exchange")
        self.assert_refused((*words, "--top-k", "5", "--experts", "4"), "--top-k 5: .* more than all --experts 4")
        self.assert_refused((*words, "--node-sizes", "2,1"), "--node-sizes 2,1 adds up to 3 ranks, but the job has 2", ranks=2)
        self.assert_refused((*words, "--intra", "mpi"), "was not started by mpirun")
        self.assert_refused((*words, "--trace", "nowhere"), "nowhere", "No such file")
        self.assert_refused((*words, "--placement", "nowhere"), "nowhere", "No such file", ranks=2)
        self.assert_refused((*words, *SMALL, "-o", self.folder / "none" / "r"), "none", "No such file", ranks=2)
        self.assert_refused((*words, "--tokens", "2147483647"), "at most 2147483647 in all", ranks=2)
        self.assert_refused((*words, "--tokens", "2147483647", "--hidden", "2147483647"), "GiB of memory", "--tokens or --hidden")
        empty = self.new_folder() / "empty.safetensors"
        self.run_program("trace", "-o", empty, "--tokens", "0", "--layers", "2")
        self.assert_refused((*words, "--trace", empty), "empty.safetensors has no tokens to route by")
        self.assert_refused((*words, "--trace", empty, "--tokens", "0", "--layer", "2"), "--layer 2: .* has 2 MoE layers")
        for options in (("--flow", "fast"), ("--tokens", "-1"), ("--hidden", "0"), ("--chunks", "0"), ("--node-sizes", "0,2"),
                        ("--dtype", "float16"), ("--inter", "pigeon"), ("--repeats", "0"), ("--layer", "1")):
            self.assertIn(options[0], self.run_program(*words, *options, code=2).err)
        self.assertIn("--trace", self.run_program(*words, "--trace", empty, "--experts", "8", code=2).err)
        self.assertIn("subcommand", self.run_program("bench", code=2).err)

    def test_help(self):
        printed = self.run_program("bench", "exchange", "--help").out
        self.assertIn("algorithm bandwidth", printed)
        self.assertRegex(printed, re.compile("^  mpirun -np 4 cartesian bench exchange", re.MULTILINE))


if __name__ == "__main__":
    unittest.main(verbosity=2)
