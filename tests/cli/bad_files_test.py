"""Files that are missing, damaged, of another model, or do not fit on the disk: one process refuses them by name."""

import json
import os
import re
import struct
import unittest

from harness import CheckpointTest, CliTest
from run import altered


class TokenFiles(CliTest):
    def refused(self, prefix, *patterns):
        config, _ = self.config(data__train=str(prefix))
        self.assert_refused(("train", config), *patterns)

    def test_missing(self):
        prefix, _, idx = self.copy_tokens()
        idx.unlink()
        self.refused(prefix, r"copy\.idx", "No such file")
        self.refused("", "data.train is empty")
        config, _ = self.config(data__valid=str(self.folder / "nothing"))
        self.assert_refused(("train", config), r"nothing\.bin")

    def test_empty(self):
        prefix, bin_file, idx = self.copy_tokens()
        bin_file.write_bytes(b"")
        idx.write_bytes(b"")
        self.refused(prefix, r"copy\.idx", "too few")

    def test_truncated_data(self):
        prefix, bin_file, _ = self.copy_tokens()
        os.truncate(bin_file, bin_file.stat().st_size // 2)
        self.refused(prefix, r"copy\.(bin|idx)", r"\d+ bytes")

    def test_truncated_index(self):
        prefix, _, idx = self.copy_tokens()
        whole = idx.read_bytes()
        for size in (0, len(whole) // 10, len(whole) // 2, len(whole) * 99 // 100, len(whole) - 3):
            with self.subTest(size=size):
                idx.write_bytes(whole[:size])
                self.refused(prefix, r"copy\.idx")

    def test_hostile_fields(self):
        """In the index's header, and in the first sequence's length."""
        for offset, layout, value, pattern in (
                (0, "<7s", b"NOTMEGA", "MMIDIDX"), (0, "<9s", b"MMIDIDX\1\0", "MMIDIDX"), (9, "<Q", 2, "version 2 "),
                (9, "<Q", 77, "version 77"), (17, "<B", 77, "token type 77"), (17, "<B", 99, "token type 99"),
                (18, "<Q", 2**63, f"{2**63} sequences"), (18, "<Q", 2**61, f"{2**61} sequences"),
                (26, "<Q", 0, "bytes follow"), (26, "<Q", 2**64 - 1, f"{2**64 - 1} document bounds"),
                (34, "<i", -5, "is -5")):
            with self.subTest(offset=offset, value=value):
                prefix, _, idx = self.copy_tokens()
                altered(idx, offset, struct.pack(layout, value))
                self.refused(prefix, r"copy\.idx", pattern)


class Checkpoints(CheckpointTest):
    def refused(self, config, *patterns, options=()):
        self.assert_refused(("train", config, "--resume", *options), *patterns)

    def evaluation(self, checkpoint):
        return ("eval", checkpoint, "--data", f"{self.tokens}-valid", "--sequences", "2")

    def test_the_copy_is_good(self):
        config, _ = self.copy()
        self.run_program("train", config, "--resume")

    def test_every_truncated_file_is_named(self):
        config, run = self.copy()
        for path in sorted(run.checkpoint(3).iterdir()):
            with self.subTest(file=path.name):
                whole = path.read_bytes()
                os.truncate(path, len(whole) * 6 // 10)
                self.refused(config, re.escape(path.name))
                path.write_bytes(whole)

    def test_every_altered_file_is_named(self):
        config, run = self.copy()
        for path in sorted(run.checkpoint(3).iterdir()):
            with self.subTest(file=path.name):
                whole = path.read_bytes()
                altered(path, -3, bytes([whole[-3] ^ 0x41]))
                self.refused(config, re.escape(path.name) + "|checksums")
                path.write_bytes(whole)

    def test_without_checksums_files_are_still_checked(self):
        """A directory made elsewhere has no checksums.json."""
        _, run = self.copy()
        checkpoint = run.checkpoint(3)
        (checkpoint / "checksums.json").unlink()
        words = self.evaluation(checkpoint)
        self.run_program(*words)
        path = next(checkpoint.glob("model-*.safetensors"))
        good = path.read_bytes()
        damages = {
            r"reach(es)? beyond|belong|bytes": good[:len(good) // 2],
            r"header": struct.pack("<Q", 2**60) + good[8:],
            r"safetensors": good[:8] + b"?" + good[9:],
            r"safetensors: .*": good[:5],
            r"too few": b"",
        }
        for pattern, data in damages.items():
            with self.subTest(pattern):
                path.write_bytes(data)
                self.assert_refused(words, r"model-00001-of-00001\.safetensors", pattern)
        path.unlink()
        self.assert_refused(words, r"model-00001-of-00001\.safetensors", "No such file")

    def test_small_files(self):
        for name in ("config.json", "model.safetensors.index.json", "trainer.json"):
            for contents in (b"", b"{", b"[]", b"{}", b"\xff" * 9, b'{"weight_map": {"x": "../../etc/passwd"}}'):
                with self.subTest(name=name, contents=contents):
                    config, run = self.copy()
                    (run.checkpoint(3) / name).write_bytes(contents)
                    result = self.run_program("train", config, "--resume", code=1)
                    self.assert_one_sentence(result, name.replace(".", r"\."))

    def test_missing_files(self):
        for name in ("config.json", "model.safetensors.index.json", "optimizer.safetensors.index.json"):
            with self.subTest(name):
                config, run = self.copy()
                (run.checkpoint(3) / name).unlink()
                self.assert_refused(("train", config, "--resume"), r"step-00000003", name.replace(".", r"\."))

    def test_missing_weights(self):
        _, run = self.copy()
        next(run.checkpoint(3).glob("model-*.safetensors")).unlink()
        self.assert_refused(self.evaluation(run.checkpoint(3)), r"model-00001-of-00001\.safetensors")

    def test_not_a_checkpoint(self):
        empty = self.new_folder("holiday")
        self.assert_refused(self.evaluation(empty), "holiday.*not a checkpoint")
        self.assert_refused(self.evaluation(self.text), r"corpus\.txt")
        self.assert_refused(("generate", self.folder / "nowhere", "--prompt", "x"), "nowhere")

    def test_another_model(self):
        for key, value in (("model.hidden_size", 64), ("model.num_experts", 8), ("model.moe_top_k", 1),
                           ("model.sub_layers", 1), ("model.num_hidden_layers", 3)):
            with self.subTest(key):
                config, run = self.copy()
                name = key.split(".")[1]
                self.assert_refused(("train", config, "--resume", "--set", f"{key}={value}"),
                                    "of another model", f"{name} = .* there, {value}")
                self.assertEqual(run.checkpoints(), [2, 3])

    def test_another_seed(self):
        config, _ = self.copy()
        self.refused(config, "train.seed = 7", options=("--set", "train.seed=8"))

    def test_model_that_is_not_ours(self):
        _, run = self.copy()
        (run.checkpoint(3) / "checksums.json").unlink()
        config = run.checkpoint(3) / "config.json"
        keys = json.loads(config.read_text())
        for key, value, pattern in (
                ("model_type", "mamba", "mamba"), ("num_key_value_heads", 1, "grouped-query attention"),
                ("rope_scaling", {"type": "linear", "factor": 2.0}, "rope scaling"),
                ("tie_word_embeddings", True, "tied"), ("attention_bias", True, "attention bias"),
                ("hidden_act", "gelu", "other than silu"), ("head_dim", 64, "hidden_size / num_attention_heads")):
            with self.subTest(key):
                config.write_text(json.dumps({**keys, key: value}))
                self.assert_refused(self.evaluation(run.checkpoint(3)), r"config\.json: key", key, pattern)

    def test_weights_that_are_not_the_models(self):
        _, run = self.copy()
        (run.checkpoint(3) / "checksums.json").unlink()
        index = run.checkpoint(3) / "model.safetensors.index.json"
        contents = json.loads(index.read_text())
        shard = "model-00001-of-00001.safetensors"
        for name, file, pattern in (("lm_head.bias", shard, f"{shard}: tensor 'lm_head.bias' is not one of the model"),
                                    ("lm_head.weight", "model-00002-of-00002.safetensors", "No such file")):
            with self.subTest(name):
                index.write_text(json.dumps({"weight_map": {**contents["weight_map"], name: file}}))
                self.assert_refused(self.evaluation(run.checkpoint(3)), file.replace(".", r"\."), pattern)

    def test_prompt_without_a_tokenizer(self):
        _, run = self.copy()
        for name in ("tokenizer.json", "checksums.json"):
            (run.checkpoint(3) / name).unlink()
        self.assert_refused(("generate", run.checkpoint(3), "--prompt", "x"), r"tokenizer\.json")

    def test_data_that_does_not_exist(self):
        self.assert_refused(("eval", self.good.checkpoint(3), "--data", self.folder / "nowhere"), "nowhere")


class FullDisk(CliTest):
    """A limit on the size of files stands for a full disk: writing fails in the middle of a file."""

    def test_while_saving(self):
        for asynchronous in (True, False):
            with self.subTest(asynchronous=asynchronous):
                config, run = self.stopped_run(2, train__steps=6, checkpoint__every=2, checkpoint__async=asynchronous)
                result = self.run_program("train", config, "--resume", code=1, file_limit=100 << 10)
                self.assert_one_sentence(result, r"\.tmp-step-00000004/.*\.safetensors", "File too large")
                self.assert_nothing_is_lost(config, run, 2, later=[4, 6])


if __name__ == "__main__":
    unittest.main(verbosity=2)
