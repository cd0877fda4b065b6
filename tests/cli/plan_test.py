"""`cartesian plan`: a placement from a trace of this program, used in training; bad topologies, traces and slots."""

import json
import re
import shutil
import unittest

from harness import CliTest

FOUR_NODES = "nodes = 4\nranks_per_node = 1\n"


class Plan(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.settings = dict(train__steps=6, model__num_hidden_layers=3, model__num_experts=8)
        _, run = cls.stopped_run(5, **cls.settings)
        cls.trace = cls.folder / "trace.safetensors"
        cls.run_program("eval", run.checkpoint(5), "--data", cls.tokens, "--sequences", "60", "--trace", cls.trace)
        cls.topology = cls.folder / "cluster.toml"
        cls.topology.write_text(FOUR_NODES)

    def plan(self, *options, topology=None):
        output = self.new_folder() / "placement.json"
        if "--time-budget" not in options:
            options += ("--time-budget", "200ms")
        printed = self.run_program("plan", "--topology", topology or self.topology, "--trace", self.trace, "-o", output,
                                   *options).out
        return printed, output

    def rows(self, printed):
        copies = printed.split("the most loaded")[0]
        return {name: [float(value) for value in values.split()]
                for name, values in re.findall(r"^  (linear|balanced|planned) +(.*)$", copies, re.MULTILINE)}

    def test_fewer_copies_than_linear(self):
        printed, output = self.plan("--load-cap", "100")  # linear is badly balanced, and must not be out of reach
        rows = self.rows(printed)
        self.assertEqual(set(rows), {"linear", "balanced", "planned"})
        flat, home, pivot, _, gate, oracle = rows["planned"][:6]
        self.assertLessEqual(pivot, rows["linear"][2] + 1e-9)
        self.assertTrue(oracle <= pivot <= flat and oracle <= gate and home <= flat, printed)
        bound = float(re.search(r"fewer than (\S+) copies", printed)[1])
        self.assertLessEqual(bound, oracle + 1e-9)
        picture = output.with_suffix(".html").read_text()
        self.assertEqual(picture.count("<svg"), 2)
        self.assertNotIn("http", picture)
        placement = json.loads(output.read_text())
        self.assertEqual((placement["layers"], placement["groups"], placement["experts"], placement["ranks"]), (2, 2, 8, 4))
        self.assertEqual([len(row) for row in placement["pivot_scores"][0]], [4] * 8)
        self.assertAlmostEqual(placement["plan"]["copies_per_token"], pivot, delta=1e-3)
        for layer in placement["replicas"]:
            held = [rank for group in layer for ranks in group for rank in ranks]
            self.assertEqual([held.count(rank) for rank in range(4)], [4] * 4)

    def test_objectives(self):
        def plan(objective):
            printed, output = self.plan("--objective", objective, "--load-cap", "100")
            steps = {name: float(step) for name, step in
                     re.findall(r"^  (linear|balanced|planned) .* (\S+) = ", printed, re.MULTILINE)}
            self.assertEqual(json.loads(output.read_text())["plan"]["objective"], objective)
            return self.rows(printed)["planned"][2], steps
        copies, _ = plan("copies")
        few_in_time, steps_in_time = plan("auto")
        more, steps = plan("step")
        self.assertLessEqual(copies, min(few_in_time, more) * 1.02)  # a search is no proof
        for of_objective in (steps_in_time, steps):
            self.assertLessEqual(of_objective["planned"], min(of_objective["linear"], of_objective["balanced"]) + 2e-3)
        self.assertIn("--objective", self.run_program("plan", "--topology", self.topology, "--trace", self.trace,
                                                      "--objective", "speed", code=2).err)

    def test_training_with_it_is_the_same_run(self):
        _, output = self.plan()
        config, one = self.config(**self.settings)
        self.run_program("train", config)
        config, placed = self.config(parallel__placement=str(output), **self.settings)
        self.run_program("train", config, ranks=4)
        self.assert_close_losses(placed.losses(), one.losses(), 1e-5)

    def test_same_for_a_seed_on_any_threads(self):
        def texts(*options):
            return self.plan(*options)[1].read_text()
        self.assertEqual(texts("--threads", "1"), texts("--threads", "3"))

    def test_home_flow_and_several_ranks_a_node(self):
        topology = self.folder / "pairs.toml"
        topology.write_text("node_sizes = [2, 1, 2]\nmemory_gib = 80\n[inter]\nbandwidth_gb_s = 10\nlatency_us = 20\n")
        printed, output = self.plan("--flow", "home", "--slots", "4", topology=topology)
        self.assertIn("planned for the home flow", printed)
        self.assertIn("5 ranks on 3 nodes, 4 slots a rank", printed)
        placement = json.loads(output.read_text())
        self.assertNotIn("pivot_scores", placement)
        for layer in placement["replicas"]:
            held = [rank for group in layer for ranks in group for rank in ranks]
            self.assertLessEqual(max(held.count(rank) for rank in range(5)), 4)

    def test_replicas_where_they_pay(self):
        def replicas(*options):
            printed, output = self.plan("--redundancy", "1", "--load-cap", "4", *options)
            self.assertIn("8 slots a rank", printed)
            return self.rows(printed)["planned"][2], sum(len(ranks) for layer in json.loads(output.read_text())["replicas"]
                                                         for group in layer for ranks in group)
        alone, few = replicas("--tokens-per-step", "1")
        together, many = replicas("--tokens-per-step", "1e12")
        self.assertEqual(few, 2 * 16)
        self.assertGreater(many, few)
        self.assertLess(together, alone)

    def test_from_a_running_placement(self):
        _, running = self.plan("--seed", "3", "--time-budget", "100ms")
        printed, output = self.plan("--start", running, "--horizon-steps", "1e-6", "--time-budget", "100ms")
        self.assertIn("nothing moves", printed)
        self.assertIn("  running ", printed)
        self.assertEqual(json.loads(output.read_text())["replicas"], json.loads(running.read_text())["replicas"])
        linear = self.new_folder() / "linear.json"
        placement = json.loads(running.read_text())
        placement.pop("pivot_scores", None)
        placement["replicas"] = [[[[expert // 2] for expert in range(8)] for _ in range(2)] for _ in range(2)]
        linear.write_text(json.dumps(placement))
        printed, output = self.plan("--start", linear, "--horizon-steps", "1e9", "--time-budget", "100ms",
                                    "--tokens-per-step", "1e7", "--load-cap", "4")
        self.assertRegex(printed, r"to move: \d+ replicas, \S+ MiB between nodes .* pays back in \d+ step")
        self.assertNotEqual(json.loads(output.read_text())["replicas"], placement["replicas"])
        other = self.folder / "two.toml"
        other.write_text("nodes = 2\n")
        self.assert_refused(("plan", "--topology", other, "--trace", self.trace, "--start", running), str(running.name))
        self.assertIn("--start", self.run_program("plan", "--topology", self.topology, "--trace", self.trace,
                                                  "--horizon-steps", "5", code=2).err)

    def test_replicas_that_have_no_slots_are_dropped(self):
        running = self.new_folder() / "local.json"
        running.write_text(json.dumps({"version": 1, "layers": 2, "groups": 2, "experts": 8, "ranks": 4,
                                       "replicas": [[[[0, 1, 2, 3]] * 8] * 2] * 2}))
        printed, output = self.plan("--start", running)
        self.assertIn("the running placement has more experts on a rank than its slots\n"
                      "to drop: 96 replicas; nothing moves, 0 bytes\n", printed)
        placement = json.loads(output.read_text())
        self.assertEqual(placement["plan"]["slots"], 4)
        for layer in placement["replicas"]:
            held = [rank for group in layer for ranks in group for rank in ranks]
            self.assertEqual([held.count(rank) for rank in range(4)], [4] * 4)

    def test_homes_have_no_bound(self):
        data = self.trace.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header, tensors = json.loads(data[8:8 + size]), data[8 + size:]
        tokens = header["layers.1.A.ids" if "layers.1.A.ids" in header else "layers.0.A.ids"]["shape"][0]
        homes = b"".join((token % 4).to_bytes(4, "little") for token in range(tokens))
        header["home"] = {"dtype": "I32", "shape": [tokens], "data_offsets": [len(tensors), len(tensors) + len(homes)]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        trace = self.new_folder() / "trace.safetensors"
        trace.write_bytes(len(text).to_bytes(8, "little") + text + tensors + homes)
        output = trace.with_name("placement.json")
        printed = self.run_program("plan", "--topology", self.topology, "--trace", trace, "-o", output, "--time-budget",
                                   "50ms").out
        self.assertIn("copies have no bound where the trace says which homes tokens have", printed)
        self.assertNotIn("fewer than", printed)
        self.assertNotIn("bound", json.loads(output.read_text())["plan"])
        self.assertIn("bound", json.loads(self.plan()[1].read_text())["plan"])

    def test_numbers_out_of_range(self):
        for option, value in (("--tokens-per-step", "1e308"), ("--tokens-per-step", "0"), ("--time-budget", "1e13"),
                              ("--time-budget", "0"), ("--horizon-steps", "0"), ("--slots", "0"), ("--redundancy", "2000")):
            words = ("plan", "--topology", self.topology, "--trace", self.trace, "--start", "none", option, value)
            self.assertIn(option, self.run_program(*words, code=2).err)
        self.assert_refused(("plan", "--topology", self.topology, "--trace", self.trace, "--tokens-per-step", "nan"),
                            "tokens_per_step of a plan is nan")
        for slots in ("300000000", "1000000000"):
            printed, output = self.plan("--slots", slots, "--time-budget", "20ms")
            self.assertIn(" 16 slots a rank", printed)
            self.assertEqual(json.loads(output.read_text())["plan"]["slots"], 16)

    def test_refused(self):
        def refused(text, *patterns):
            path = self.folder / "bad.toml"
            path.write_text(text)
            self.assert_refused(("plan", "--topology", path, "--trace", self.trace), r"bad\.toml", *patterns)
        refused("ranks_per_node = 2\n", "nodes is missing")
        refused("nodes = 0\n", r"nodes must be an integer within \[1")
        refused("nodes = 2.5\n", "nodes must be an integer")
        refused("node = 2\n", "unknown key node; did you mean 'nodes'")
        refused("nodes = 1000000\nranks_per_node = 1000000\n", "more than")
        refused("node_sizes = [2, 0]\n", "node_sizes must be an integer")
        refused("node_sizes = [2]\nnodes = 1\n", "one or the other")
        refused("nodes = 2\n[inter]\nbandwidth_gb_s = 0\n", "bandwidth_gb_s must be a number above 0")
        refused("nodes = 2\n[inter]\nspeed = 3\n", "unknown key inter.speed")
        refused("nodes = 2\ninter = 3\n", "inter must be a table")
        refused("nodes = 2\nrank_speeds = [1]\n", "rank_speeds must be an array of 2 numbers, one for each rank")
        refused("nodes = 2\nranks_per_node = 2\ncard_speeds = [1, 0]\n", "card_speeds must be an array of 2 numbers", "above 0")
        refused("nodes = 2\ncard_speeds = [1, 2]\n", "card_speeds must be", "at most 1")
        refused("nodes = \n", r"bad\.toml:1")
        small = self.folder / "small.toml"
        small.write_text(FOUR_NODES + "memory_gib = 0.0002\n")
        self.assert_refused(("plan", "--topology", small, "--trace", self.trace),
                            r"4 slots of 2 MoE layers need \S+ GiB on each rank, \S+ GiB more .* slots? fit, which takes \d+ ranks")
        self.assert_refused(("plan", "--topology", self.topology, "--trace", self.trace, "--slots", "3"),
                            "3 slots on each of 4 ranks hold 12 experts, but a layer has 16: at least 4 are needed")
        self.assert_refused(("plan", "--topology", self.topology, "--trace", self.folder / "none"), "none", "No such file")
        self.assertIn("--slots", self.run_program("plan", "--topology", self.topology, "--trace", self.trace, "--slots", "8",
                                                  "--redundancy", "1", code=2).err)
        many = self.folder / "many.toml"
        many.write_text("nodes = 65\n")
        self.assert_refused(("plan", "--topology", many, "--trace", self.trace, "--redundancy", "1"),
                            "replicas are planned for up to 64 nodes; the cluster has 65")
        broken = self.folder / "broken.safetensors"
        shutil.copy(self.trace, broken)
        with open(broken, "r+b") as file:
            file.truncate(1000)
        self.assert_refused(("plan", "--topology", self.topology, "--trace", broken), r"broken\.safetensors")


if __name__ == "__main__":
    unittest.main(verbosity=2)
