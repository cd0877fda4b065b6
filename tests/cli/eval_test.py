"""`cartesian eval` and `cartesian info`: losses by source, experts left out, loads, routing traces, sizes."""

import json
import pathlib
import re
import struct
import unittest

from harness import CliTest, number_after
from run import SYSTEMS, corpus


def trace_of(path):
    """name -> (dtype, shape, bytes) of a routing trace, and its metadata."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__")
    begin = 8 + size
    return {name: (entry["dtype"], entry["shape"], data[begin + entry["data_offsets"][0]:begin + entry["data_offsets"][1]])
            for name, entry in header.items()}, metadata


class Evaluation(CliTest):
    """A CartesianMoE of 4 + 4 experts in blocks 0 and 2, and text of two kinds."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.mixed = cls.folder / "mixed"
        digits = cls.folder / "digits.txt"
        digits.write_text("".join(f"{i * i}\n" for i in range(1500)))
        text = cls.folder / "prose.txt"
        text.write_text(corpus(seed=5, words=2500))
        cls.run_program("tokenize", text, digits, "-o", cls.mixed, "--document-bytes", "512")
        _, run = cls.stopped_run(12, train__steps=20, model__num_hidden_layers=3, data__train=str(cls.mixed))
        cls.checkpoint = run.checkpoint(12)

    def evaluate(self, *options, ranks=1):
        return self.run_program("eval", self.checkpoint, "--data", self.mixed, "--sequences", "40", *options,
                                ranks=ranks).out

    def by_source(self, out):
        found = re.findall(r"^  (\S+\.txt) +loss (\S+) +perplexity +(\S+) +tokens (\d+)$", out, re.MULTILINE)
        return {name: (float(loss), int(tokens)) for name, loss, _, tokens in found}

    def test_by_source(self):
        for ranks in (1, 3):
            with self.subTest(ranks=ranks):
                out = self.evaluate(ranks=ranks)
                sources = self.by_source(out)
                self.assertEqual(set(sources), {"prose.txt", "digits.txt"})
                tokens = sum(count for _, count in sources.values())
                self.assertEqual(tokens, number_after("tokens", out))
                mean = sum(loss * count for loss, count in sources.values()) / tokens
                self.assert_close(mean, number_after("loss", out), 1e-4)

    def test_one_source_is_not_listed(self):
        out = self.run_program("eval", self.checkpoint, "--data", self.tokens, "--sequences", "4").out
        self.assertNotIn("by source", out)

    def test_loads(self):
        out = self.evaluate("--loads")
        self.assertEqual(re.findall(r"^  block (\d+) +([AB]) ", out, re.MULTILINE),
                         [("0", "A"), ("0", "B"), ("2", "A"), ("2", "B")])
        shares = [float(share) for share in re.findall(r"^    expert \d+ +(\S+)$", out, re.MULTILINE)]
        self.assertEqual(len(shares), 16)
        for begin in range(0, 16, 4):
            self.assertAlmostEqual(sum(shares[begin:begin + 4]), 1, delta=1e-3)

    def test_disable_top(self):
        plain = number_after("loss", self.evaluate())
        self.assertEqual(number_after("loss", self.evaluate("--disable-top", "0")), plain)
        masked = number_after("loss", self.evaluate("--disable-top", "1"))
        self.assertNotEqual(masked, plain)
        self.assert_close(number_after("loss", self.evaluate("--disable-top", "1", ranks=2)), masked, 1e-5)
        spared = number_after("loss", self.evaluate("--disable-top", "1", "--disable-from", "1"))
        self.assertNotIn(spared, (plain, masked))
        self.assert_refused(("eval", self.checkpoint, "--data", self.mixed, "--disable-top", "1", "--disable-from", "2"),
                            "--disable-from 2: the model has 2 MoE layers", ranks=2)
        alone = self.run_program("eval", self.checkpoint, "--data", self.mixed, "--disable-from", "1", code=2)
        self.assertIn("--disable-top", alone.err)
        self.assert_refused(("eval", self.checkpoint, "--data", self.mixed, "--disable-top", "3"),
                            "leaves fewer than 2 of 4 experts", ranks=2)

    def test_trace(self):
        traces = []
        for ranks in (1, 2):
            path = self.new_folder() / "trace.safetensors"
            self.evaluate("--trace", path, ranks=ranks)
            tensors, metadata = trace_of(path)
            self.assertEqual({key: metadata[key] for key in ("experts", "hidden", "expert_width", "dtype")},
                             {"experts": "4", "hidden": "32", "expert_width": "32", "dtype": "float32"})
            for block in (0, 2):
                for group in "AB":
                    name = f"layers.{block}.{group}."
                    self.assertEqual(tensors[name + "ids"][:2], ("I16", [40 * 32, 2]))
                    self.assertEqual(tensors[name + "gates"][:2], ("F32", [40 * 32, 2]))
                    self.assertEqual(name + "speculative_ids" in tensors, group == "B")
            self.assertEqual((metadata["vocab_size"], metadata["sequence_length"]), ("257", "32"))
            traces.append({name: value for name, value in tensors.items() if name.endswith("ids")})
        self.assertEqual(*traces)
        text = pathlib.Path(f"{self.mixed}.bin").read_bytes()  # uint16
        windows = (len(text) // 2 - 1) // 32
        first = [window * windows // 40 * 32 for window in range(40)]
        self.assertEqual(struct.unpack(f"<{40 * 32}i", traces[0]["token_ids"][2]),
                         tuple(token for at in first for token in struct.unpack_from("<32H", text, 2 * at)))

    def test_unwritable_trace(self):
        self.assert_refused(("eval", self.checkpoint, "--data", self.mixed, "--sequences", "4", "--trace",
                             self.folder / "absent" / "trace.safetensors"), "absent", "No such file", ranks=2)


class Systems(CliTest):
    """Every row of the paper's table trains, is saved, read and evaluated, on two ranks and on one."""

    def test_train_save_read_evaluate(self):
        for name, keys in SYSTEMS.items():
            with self.subTest(name):
                changes = {f"model__{key}": value for key, value in keys.items()}
                config, run = self.stopped_run(4, ranks=2, **changes)
                self.run_program("train", config, "--resume", ranks=1)
                out = self.run_program("eval", run.checkpoint(8), "--data", f"{self.tokens}-valid", "--sequences",
                                       "8").out
                self.assert_close(number_after("loss", out), run.valid_losses()[8], 1e-5)


class Info(CliTest):
    def test_configuration_and_checkpoint(self):
        config, run = self.stopped_run(1)
        printed = self.run_program("info", config, "--ranks", "4", "--nodes", "2").out
        self.assertRegex(printed, r"CartesianMoE, 2 blocks of width 32, 1 of them MoE: 2 x 4 experts of width 32")
        self.assertRegex(printed, r"on each of 4 ranks")
        # 2 + 2 copies there and back, of which each other node, or rank, gets its share.
        self.assertRegex(printed, r"between ranks 6\.00, between nodes 4\.00")
        groups = self.run_program("info", config, "--ranks", "4", "--nodes", "2", "--set", "parallel.expert_ranks=2").out
        self.assertRegex(groups, r"between ranks 4\.00, between nodes 0\.00")
        def between_ranks(*words):
            return float(re.search(r"KiB between ranks (\S+),", self.run_program("info", config, "--ranks", "2", *words).out)[1])
        self.assertAlmostEqual(between_ranks("--set", "train.recompute=block") / between_ranks(), 1.5, delta=0.02)
        parameters = re.search(r"matrices only.*\n.*all .*", printed)[0]
        self.assertIn(parameters, self.run_program("info", run.checkpoint(1)).out)

    def test_overrides(self):
        config, _ = self.config()
        self.assertIn("dense, 2 blocks", self.run_program("info", config, "--set", "model.sub_layers=0").out)

    def test_refused(self):
        config, _ = self.config()
        self.assert_refused(("info", config, "--set", "model.moe_top_k=9"), "model.moe_top_k = 9")
        self.assert_refused(("info", config, "--nodes", "2"), "--nodes 2 is more than --ranks 1")
        self.assert_refused(("info", config, "--set", "parallel.expert_ranks=2"), "more than --ranks 1")
        self.assert_refused(("info", self.folder / "absent"), "absent")


if __name__ == "__main__":
    unittest.main(verbosity=2)
