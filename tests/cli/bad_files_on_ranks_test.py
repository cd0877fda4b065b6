"""Bad tokens and checkpoints under mpirun: one clear sentence, exit code 1 on every rank, no hang, nothing lost."""

import os
import struct
import unittest

from harness import CheckpointTest, CliTest
from run import altered


class TokenFiles(CliTest):
    def refused(self, prefix, *patterns, ranks=1, **changes):
        config, _ = self.config(data__train=str(prefix), **changes)
        self.assert_refused(("train", config), *patterns, ranks=ranks)

    def test_missing(self):
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                self.refused(self.folder / "nothing", r"nothing\.bin", "No such file", ranks=ranks)

    def test_empty(self):
        prefix, bin_file, _ = self.copy_tokens()
        bin_file.write_bytes(b"")
        self.refused(prefix, r"copy\.idx", ranks=2)

    def test_too_short(self):
        self.refused(self.tokens, r"tokens\.bin has \d+ tokens", "train.sequence_length = 1000000", ranks=2,
                     train__sequence_length=1000000)

    def test_truncated(self):
        prefix, bin_file, _ = self.copy_tokens()
        os.truncate(bin_file, bin_file.stat().st_size - 10)
        self.refused(prefix, r"copy\.(bin|idx)", r"\d+ bytes", ranks=2)

    def test_tokens_outside_the_vocabulary(self):
        prefix, bin_file, _ = self.copy_tokens()
        altered(bin_file, 20, struct.pack("<H", 60000))
        self.refused(prefix, r"copy\.bin: token 60000 at position 10", "257", ranks=2)


class Checkpoints(CheckpointTest):
    """Damaged checkpoints, and runs that they do not belong to."""

    def refused_everywhere(self, config, run, *patterns):
        checkpoint = run.checkpoint(3)
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                self.assert_refused(("train", config, "--resume"), *patterns, ranks=ranks)
        self.assert_refused(("eval", checkpoint, "--data", f"{self.tokens}-valid"), *patterns)
        self.assert_refused(("generate", checkpoint, "--prompt", "a"), *patterns)

    def test_altered_weights(self):
        config, run = self.copy()
        altered(next(run.checkpoint(3).glob("model-*.safetensors")), -5, b"\x01")
        self.refused_everywhere(config, run, r"model-00001-of-00001\.safetensors: damaged")

    def test_altered_moments(self):
        config, run = self.copy()
        altered(next(run.checkpoint(3).glob("optimizer-*.safetensors")), -5, b"\x01")
        self.assert_refused(("train", config, "--resume"), r"optimizer-00001-of-00001\.safetensors: damaged", ranks=2)

    def test_truncated_weights(self):
        config, run = self.copy()
        path = next(run.checkpoint(3).glob("model-*.safetensors"))
        os.truncate(path, path.stat().st_size // 2)
        self.refused_everywhere(config, run, r"model-00001-of-00001\.safetensors")

    def test_not_a_checkpoint(self):
        data = ("--data", f"{self.tokens}-valid")
        self.assert_refused(("eval", self.folder, *data), "not a checkpoint", ranks=2)
        self.assert_refused(("eval", self.folder / "none", *data), "none", ranks=2)

    def test_another_order_of_the_data(self):
        config, _ = self.copy()
        self.assert_refused(("train", config, "--resume", "--set", "train.batch_sequences=12"),
                            "train.batch_sequences = 6", ranks=2)

    def test_directory_already_holds_a_run(self):
        config, run = self.copy()
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                self.assert_refused(("train", config), "already holds a run", "--resume", ranks=ranks)
        self.assertEqual(run.checkpoints(), [2, 3])
        self.assertEqual(run.losses(), self.good.losses())


if __name__ == "__main__":
    unittest.main(verbosity=2)
