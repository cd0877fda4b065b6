"""`cartesian trace` and `cartesian simulate`: steps of made traces on several placements, timelines; what is refused."""

import json
import os
import re
import unittest

from harness import CliTest
from job import PROGRAM


class Simulate(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.topology = cls.folder / "cluster.toml"
        cls.topology.write_text("nodes = 4\nranks_per_node = 2\n")
        cls.trace = cls.make_trace("--experts", "16", "--cluster", "4", "--tokens", "2000", "--tokens-per-step", "100000",
                                   "--hidden", "512", "--expert-width", "2048", "--strength", "1")

    @classmethod
    def make_trace(cls, *options):
        path = cls.new_folder() / "trace.safetensors"
        cls.run_program("trace", "-o", path, *options)
        return path

    def simulate(self, *options, trace=None):
        """What is printed, the table's rows by chunks, and the row of all phases."""
        printed = self.run_program("simulate", "--topology", self.topology, "--trace", trace or self.trace, *options).out
        rows = {int(chunks): [float(value.rstrip("%")) for value in values.split()]
                for chunks, values in re.findall(r"^ +(\d+) +(\d.*)$", printed, re.MULTILINE)}
        phases = {name.strip(): [float(value) for value in values.split()]
                  for name, values in re.findall(r"^  ((?:[AB] )?[a-z]+) +(\d.*)$", printed, re.MULTILINE)}
        return printed, rows, phases

    def test_a_row_for_every_number_of_chunks(self):
        printed, rows, phases = self.simulate("--chunks", "1,2,8")
        self.assertIn("2000 tokens of 2 MoE layers, 2 x 16 experts; 8 ranks on 4 nodes; pivot flow, pivots by speculative", printed)
        self.assertIn("a step of 100000 tokens", printed)
        self.assertEqual(list(rows), [1, 2, 8])
        for step, compute, intra, inter, exposed, ranks, cards in rows.values():
            self.assertGreaterEqual(step, max(compute, intra, inter))
            self.assertAlmostEqual(exposed, step - compute, delta=0.002)
            self.assertTrue(0 < ranks <= 100 and 0 < cards <= 100, printed)
            self.assertEqual([compute, intra, inter], rows[1][1:4])  # chunks change when, not what
        self.assertLess(rows[2][0], rows[1][0])
        self.assertEqual(list(phases), ["A dispatch", "A experts", "A combine", "B router", "B dispatch", "B experts",
                                        "B combine", "all"])
        for column in (0, 2, 4, 6, 7):
            self.assertAlmostEqual(sum(row[column] for name, row in phases.items() if name != "all"), phases["all"][column],
                                   delta=0.5)

    def test_the_same_again_on_any_threads(self):
        self.assertEqual(self.simulate("--threads", "1")[0], self.simulate("--threads", "3")[0])

    def test_placements_and_flows_differ(self):
        output = self.new_folder() / "placement.json"
        self.run_program("plan", "--topology", self.topology, "--trace", self.trace, "-o", output, "--time-budget", "0.2")

        def inter(*options):
            return self.simulate("--chunks", "2", *options)[2]["all"][7]
        linear = inter()
        self.assertLess(inter("--placement", output), linear)
        self.assertLess(linear, inter("--flow", "home"))
        self.assertLessEqual(inter("--flow", "home"), inter("--flow", "flat"))
        _, _, phases = self.simulate("--placement", "local")
        self.assertEqual(phases["gradients"][7], phases["all"][7])  # nothing else goes between nodes
        _, _, phases = self.simulate("--expert-ranks", "4")
        self.assertGreater(phases["gradients"][7], 0)

    def test_sizes_can_be_given(self):
        _, plain, bytes_of = self.simulate("--chunks", "1")
        _, wide, _ = self.simulate("--chunks", "1", "--expert-width", "4096")
        self.assertGreater(wide[1][1], 1.9 * plain[1][1])
        self.assertEqual(wide[1][3], plain[1][3])
        _, _, narrow = self.simulate("--chunks", "1", "--dtype", "bfloat16", "--hidden", "256")
        self.assertAlmostEqual(narrow["all"][7], bytes_of["all"][7] / 4, delta=0.1)
        self.assertIn("a step of 7 tokens", self.simulate("--chunks", "1", "--tokens-per-step", "7")[0])
        _, shared, _ = self.simulate("--chunks", "1", "--shared-width", "2048")
        self.assertGreater(shared[1][1], plain[1][1])
        _, _, phases = self.simulate("--chunks", "1", "--attention-flops", "1e6")
        self.assertGreater(phases["attention"][0], 0)

    def test_timeline(self):
        path = self.new_folder() / "timeline.json"
        printed, rows, _ = self.simulate("--timeline", path, "--timeline-nodes", "2")
        self.assertIn(f"written: {path}, 2 of 4 nodes", printed)
        events = json.loads(path.read_text())["traceEvents"]
        processes = {event["args"]["name"] for event in events if event["name"] == "process_name"}
        threads = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
        self.assertEqual(len(processes), 2)
        self.assertEqual(len(threads), 2 * (2 + 2 * 3))
        self.assertEqual(sorted(set(threads) & {"card out", "card in"}), ["card in", "card out"])
        ends = [event["ts"] + event["dur"] for event in events if event["ph"] == "X"]
        self.assertLessEqual(max(ends), 1e3 * min(row[0] for row in rows.values()) + 1)
        self.assertEqual({event["cat"] for event in events if event["ph"] == "X"}, {"forward", "backward"})

    def test_conventional_layers_and_traces_without_predictions(self):
        trace = self.make_trace("--groups", "1", "--layers", "3", "--ragged", "--cluster", "0", "--tokens", "300")
        printed, rows, phases = self.simulate(trace=trace)
        self.assertIn("3 MoE layers, 1 x 64 experts; 8 ranks on 4 nodes; home flow\n", printed)
        self.assertEqual(list(rows), [1, 2, 4, 8])
        self.assertNotIn("B experts", phases)
        self.assertIn("pivots by table", self.simulate("--pivot", "table")[0])

    def test_traces_are_as_asked_for_and_the_same_for_a_seed(self):
        options = ("--tokens", "50", "--skew", "0.5", "--drift", "0.5", "--prediction", "0.5")
        one, same, other = (self.make_trace(*options, "--seed", seed).read_bytes() for seed in ("4", "4", "5"))
        self.assertEqual(one, same)
        self.assertNotEqual(one, other)

    def test_refused(self):
        words = ("simulate", "--topology", self.topology, "--trace", self.trace)
        self.assert_refused(("simulate", "--topology", self.topology, "--trace", self.make_trace("--tokens", "0")),
                            "trace.safetensors has no tokens to simulate")
        self.assert_refused((*words, "--placement", self.folder / "none.json"), "none.json", "No such file")
        self.assert_refused((*words, "--expert-ranks", "3"), "--expert-ranks 3 does not divide the cluster's 8 ranks")
        self.assert_refused((*words, "--expert-ranks", "4", "--placement", "local"), "--expert-ranks is of a linear placement")
        placement = self.new_folder() / "placement.json"
        wide = self.folder / "wide.toml"
        wide.write_text("nodes = 8\n")
        self.run_program("plan", "--topology", wide, "--trace", self.trace, "-o", placement, "--time-budget", "0.1")
        self.assert_refused((*words, "--placement", placement), "placement.json has pivot scores of 8 nodes, but the topology has 4")
        alone = self.folder / "alone.toml"
        alone.write_text("nodes = 1\n")
        self.assert_refused(("simulate", "--topology", alone, "--trace", self.trace, "--placement", placement),
                            "placement.json", "8 ranks")
        for option in (("--chunks", "0"), ("--chunks", "1,x"), ("--chunks", "5000"), ("--flow", "fast"), ("--pivot", "guess"),
                       ("--timeline-nodes", "0"), ("--tokens-per-step", "-1")):
            self.assertIn(option[0], self.run_program(*words, *option, code=2).err)
        self.assert_refused(("trace", "-o", self.folder / "t", "--experts", "4", "--choices", "5"), "4 experts", "cannot be")
        self.assert_refused(("trace", "-o", self.folder / "none" / "t"), "none", "No such file")
        self.assertIn("--skew", self.run_program("trace", "-o", self.folder / "t", "--skew", "2", code=2).err)
        self.assertIn("--output", self.run_program("trace", code=2).err)
        self.assertIn("--tokens-per-step", self.run_program(*words, "--tokens-per-step", "1e308", code=2).err)
        for tokens in ("1000000000000000", "9000000000000000000"):
            self.assert_refused(("trace", "-o", self.folder / "t", "--tokens", tokens),
                                f"{tokens} tokens with 8 choices each, in all layers, .* at most 268435455 tokens fit")

    def test_more_than_the_memory(self):
        if os.environ.get("CARTESIAN_SANITIZE"):
            return  # sanitizers need more addresses than any limit, and end the program by themselves
        limited = self.start_command(["bash", "-c", 'ulimit -v 2000000; exec "$@"', "bash", PROGRAM, "trace", "-o",
                                      self.folder / "t", "--tokens", "250000000"]).wait()
        self.assertEqual(limited.code, 1, limited)
        self.assert_one_sentence(limited, "needs more memory than there is")


if __name__ == "__main__":
    unittest.main(verbosity=2)
