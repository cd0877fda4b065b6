"""`cartesian homes`: tables from texts with topics, what they save there and on other text; what is refused."""

import json
import re
import struct
import unittest

from harness import CliTest

TEXT = ("--experts", "16", "--cluster", "4", "--tokens", "6400", "--vocab-size", "64", "--sequence-length", "32")


class Homes(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.topology = cls.folder / "cluster.toml"
        cls.topology.write_text("nodes = 4\nranks_per_node = 2\n")
        cls.trace = cls.make_trace(*TEXT)
        cls.other = cls.make_trace(*TEXT, "--seed", "2")
        cls.placement = cls.folder / "placement.json"
        cls.run_program("plan", "--topology", cls.topology, "--trace", cls.trace, "-o", cls.placement, "--time-budget", "0.2")

    @classmethod
    def make_trace(cls, *options):
        path = cls.new_folder() / "trace.safetensors"
        cls.run_program("trace", "-o", path, *options)
        return path

    def words(self, trace=None, placement=None):
        return ("homes", "--topology", self.topology, "--trace", trace or self.trace, "--placement",
                placement or self.placement)

    def homes(self, *options, **inputs):
        """What is printed, the rows of numbers by text, the table's file."""
        output = self.new_folder() / "homes.safetensors"
        printed = self.run_program(*self.words(**inputs), "-o", output, *options).out
        self.assertIn(f"written: {output}", printed)
        rows = {name: [float(value.rstrip("%")) for value in values.split()]
                for name, values in re.findall(r"^  (trace|check) +(\d.*)$", printed, re.MULTILINE)}
        return printed, rows, output

    def test_topics_save_copies_on_other_text_too(self):
        printed, rows, output = self.homes("--check", self.other, "--batch-sequences", "32")
        self.assertIn("6400 tokens in sequences of 32, a vocabulary of 64; 2 MoE layers, 2 x 16 experts; 8 ranks on 4 nodes; "
                      "pivot flow, pivots by speculative", printed)
        self.assertIn("in batches of 32 sequences", printed)
        self.assertEqual(list(rows), ["trace", "check"])
        for come, table, fewer, best, most in rows.values():
            self.assertTrue(best <= table < 0.95 * come, printed)
            self.assertAlmostEqual(fewer, 100 * (1 - table / come), delta=0.1)
            self.assertAlmostEqual(most, 100 * (1 - best / come), delta=0.1)
        data = output.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:8 + size])
        self.assertEqual((header["scores"]["dtype"], header["scores"]["shape"]), ("F32", [64, 4]))
        metadata = header["__metadata__"]
        self.assertEqual((metadata["nodes"], metadata["flow"], metadata["trace"], metadata["placement"]),
                         ("4", "pivot", str(self.trace), str(self.placement)))
        self.assertRegex(metadata["trace_xxh3"], "^[0-9a-f]{16}$")
        self.assertRegex(metadata["placement_xxh3"], "^[0-9a-f]{16}$")
        scores = struct.unpack(f"<{64 * 4}f", data[8 + size:])
        for row in range(64):
            self.assertAlmostEqual(sum(scores[4 * row:4 * row + 4]), 0, delta=1e-4)  # against the mean of the nodes

    def test_the_same_again_on_any_threads(self):
        one, three = (self.homes("--threads", threads)[2].read_bytes() for threads in ("1", "3"))
        self.assertEqual(one, three)

    def test_other_flows_and_placements(self):
        for flow in ("flat", "home"):
            self.assertIn(f"{flow} flow\n", self.homes("--flow", flow)[0])
        _, rows, _ = self.homes(placement="local")
        self.assertEqual(rows["trace"], [0] * 5)
        trace = self.make_trace(*TEXT, "--groups", "1")
        self.assertIn("home flow\n", self.homes(trace=trace, placement="linear")[0])

    def test_refused(self):
        textless = self.make_trace("--experts", "16", "--tokens", "640")
        self.assert_refused(self.words(trace=textless), "trace.safetensors has no token ids: record it again with "
                                                        "'cartesian eval CHECKPOINT --data PREFIX --trace FILE'")
        self.assert_refused((*self.words(), "--check", textless), "has no token ids")
        self.assert_refused(self.words(trace=self.make_trace("--tokens", "0", "--vocab-size", "64")), "has no tokens")
        more = self.make_trace("--experts", "32", "--tokens", "640", "--vocab-size", "64")
        self.assert_refused(self.words(trace=more), "placement.json", "experts")
        self.assert_refused((*self.words(), "--check", more), "is not of the model that .* is of")
        wider = self.make_trace(*TEXT[:-3], "65", *TEXT[-2:])
        self.assert_refused((*self.words(), "--check", wider), "the vocabulary differ")
        self.assert_refused(self.words(placement=self.folder / "none.json"), "none.json", "No such file")
        self.assert_refused((*self.words(), "-o", self.folder / "none" / "homes"), "none", "No such file")
        for option in (("--batch-sequences", "0"), ("--flow", "fast"), ("--pivot", "guess")):
            self.assertIn(option[0], self.run_program(*self.words(), *option, code=2).err)
        self.assertIn("--placement", self.run_program(*self.words()[:-2], code=2).err)
        self.assert_refused(("trace", "-o", self.folder / "t", "--vocab-size", "4"), "vocabulary of 4", "cannot be")


if __name__ == "__main__":
    unittest.main(verbosity=2)
