"""Bad input: one clear sentence on standard error, exit code 1 on every rank, no hang, nothing lost."""

import json
import os
import pathlib
import shutil
import struct
import tempfile
import unittest

from harness import PROGRAM, STOPPED, CliTest, mpirun_command


def altered(path, offset, value):
    """Overwrites bytes of a file; a negative offset counts from its end."""
    data = bytearray(path.read_bytes())
    start = offset % len(data)
    data[start:start + len(value)] = value
    path.write_bytes(data)


class Configuration(CliTest):
    """What a configuration may not say."""

    def refused(self, key, value, *patterns, ranks=1):
        config, run = self.config(**{key.replace(".", "__"): value})
        result = self.assert_refused(("train", config), *patterns, ranks=ranks)
        self.assertEqual(run.checkpoints(), [])
        return result

    def test_unknown_key(self):
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                self.refused("train.learning_rat", 1e-3, r"config\.toml:\d+: train\.learning_rat", "train.learning_rate",
                             ranks=ranks)
        self.refused("trian.steps", 3, "trian.steps", "did you mean.*train.steps")

    def test_unknown_key_in_an_override(self):
        config, _ = self.config()
        self.assert_refused(("train", config, "--set", "model.num_expert=3"), "--set", "model.num_experts")
        self.assert_refused(("train", config, "--set", "train.steps"), "section.key=value")

    def test_wrong_type(self):
        self.refused("train.steps", "many", r"config\.toml:\d+: train\.steps: must be an integer")
        self.refused("train.steps", 2.5, "must be an integer", ranks=2)
        self.refused("checkpoint.async", 1, "checkpoint.async: must be true or false")
        self.refused("parallel.node_sizes", 2, "list of integers")
        self.refused("train.dtype", "float16", "float32, bfloat16")

    def test_not_toml(self):
        config, _ = self.config()
        lines = config.read_text().splitlines()
        config.write_text("\n".join([*lines[:4], "steps = = 3", *lines[4:]]))
        self.assert_refused(("train", config), r"config\.toml:5: ")
        config.write_bytes(b"\xff\xfe\x00[train]\n")
        self.assert_refused(("train", config), r"config\.toml")

    def test_no_file(self):
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                self.assert_refused(("train", self.folder / "none.toml"), r"none\.toml", "No such file", ranks=ranks)
        self.assert_refused(("train", self.folder), "not a regular file")

    def test_impossible_sizes(self):
        self.refused("model.moe_top_k", 5, "moe_top_k = 5", "num_experts = 4", ranks=2)
        self.refused("model.num_attention_heads", 3, "hidden_size = 32", "num_attention_heads = 3")
        self.refused("model.num_attention_heads", 32, "even")
        self.refused("model.grain_level", 3, "intermediate_size = 64", "grain_level = 3")
        self.refused("model.hidden_size", 0, "model.hidden_size = 0: must be at least 1")
        self.refused("model.sub_layers", 3, "sub_layers = 3")
        self.refused("train.micro_batch_sequences", 4, "batch_sequences = 6", "micro_batch_sequences = 4")
        self.refused("train.learning_rate", -1.0, "learning_rate = -1: must be at least 0")

    def test_sizes_beyond_any_memory(self):
        for key in ("model.hidden_size", "model.intermediate_size", "model.num_experts", "model.num_hidden_layers",
                    "model.vocab_size", "train.batch_sequences", "train.sequence_length", "exchange.chunks",
                    "parallel.threads", "parallel.expert_ranks"):
            with self.subTest(key=key):
                self.refused(key, 2**62, rf"{key} = {2**62}: must be at most \d+$")
        large = 2**31 - 4  # heads of an even size divide it
        self.refused("model.hidden_size", large, r"a model of these sizes has \S+ parameters, more than", ranks=2)
        for key in ("model.intermediate_size", "model.vocab_size"):
            with self.subTest(key=key):
                self.refused(key, large, r"the model needs at least \S+ GiB on each rank, but this host has")
        config, _ = self.config(train__batch_sequences=large, train__micro_batch_sequences=large)
        self.assert_refused(("train", config), "a micro-batch needs at least", "train.micro_batch_sequences")

    def test_placement(self):
        self.refused("parallel.expert_ranks", 2, "parallel.expert_ranks = 2", ranks=3)
        self.refused("parallel.expert_ranks", 4, "parallel.expert_ranks = 4")
        self.refused("parallel.node_sizes", [1, 2], r"parallel.node_sizes = \[1, 2\] adds up to 3 ranks", ranks=2)
        self.refused("parallel.node_sizes", [0, 1], "parallel.node_sizes")
        self.refused("parallel.placement", "no-such-file.json", "no-such-file.json", "No such file", ranks=2)

    def test_placement_file(self):
        path = self.folder / "placement.json"
        good = {"version": 1, "layers": 1, "groups": 2, "experts": 4, "ranks": 2,
                "replicas": [[[[0], [1], [0, 1], [1]], [[1], [0], [1], [0]]]]}
        path.write_text(json.dumps(good))
        config, _ = self.config(parallel__placement=str(path), train__steps=1)
        self.run_program("train", config, ranks=2)
        bad = {
            r"rank 7": dict(good, replicas=[[[[0], [7], [0], [1]], [[1], [0], [1], [0]]]]),
            r"on no rank": dict(good, replicas=[[[[0], [], [0], [1]], [[1], [0], [1], [0]]]]),
            r"3 entries instead of 4": dict(good, replicas=[[[[0], [1], [0]], [[1], [0], [1], [0]]]]),
            r"5 experts": dict(good, experts=5),
            r"version 9": dict(good, version=9),
            r"replicas": {key: value for key, value in good.items() if key != "replicas"},
        }
        for pattern, contents in bad.items():
            with self.subTest(pattern):
                path.write_text(json.dumps(contents))
                self.refused("parallel.placement", str(path), r"placement", pattern, ranks=2)
        path.write_text(json.dumps(good)[:-5])
        self.refused("parallel.placement", str(path), r"placement\.json")

    def test_one_rank_has_another_configuration(self):
        one, _ = self.config()
        for key, value in (("train__seed", 8), ("model__hidden_size", 64), ("data__valid", "")):
            with self.subTest(key=key):
                other, _ = self.config(**{key: value, "run__dir": str(one.parent / "run")})
                command = mpirun_command([(1, [PROGRAM, "train", one]), (1, [PROGRAM, "train", other])])
                result = self.start_command(command).wait()
                self.assertEqual(result.rank_codes, {0: 1, 1: 1}, result)
                self.assert_one_sentence(result, "rank 1 was given another configuration", key.split("__")[1])

    def test_one_rank_has_a_broken_configuration(self):
        one, _ = self.config()
        other, _ = self.config(train__step=3)
        command = mpirun_command([(1, [PROGRAM, "train", one]), (1, [PROGRAM, "train", other])])
        result = self.start_command(command).wait()
        self.assertEqual(result.rank_codes, {0: 1, 1: 1}, result)
        self.assert_one_sentence(result, "rank 1: ", "train.step: unknown key")


class Data(CliTest):
    """Missing and damaged tokens, and texts."""

    def copy(self):
        prefix = pathlib.Path(tempfile.mkdtemp(dir=self.folder)) / "copy"
        for suffix in (".bin", ".idx"):
            shutil.copy(f"{self.tokens}{suffix}", f"{prefix}{suffix}")
        return prefix, pathlib.Path(f"{prefix}.bin"), pathlib.Path(f"{prefix}.idx")

    def refused(self, prefix, *patterns, ranks=1, **changes):
        config, _ = self.config(data__train=str(prefix), **changes)
        self.assert_refused(("train", config), *patterns, ranks=ranks)

    def test_missing(self):
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                self.refused(self.folder / "nothing", r"nothing\.bin", "No such file", ranks=ranks)
        prefix, _, idx = self.copy()
        idx.unlink()
        self.refused(prefix, r"copy\.idx", "No such file")
        self.refused("", "data.train is empty")
        config, _ = self.config(data__valid=str(self.folder / "nothing"))
        self.assert_refused(("train", config), r"nothing\.bin")

    def test_empty(self):
        prefix, bin_file, idx = self.copy()
        bin_file.write_bytes(b"")
        self.refused(prefix, r"copy\.idx", ranks=2)
        idx.write_bytes(b"")
        self.refused(prefix, r"copy\.idx", "too few")

    def test_too_short(self):
        self.refused(self.tokens, r"tokens\.bin has \d+ tokens", "train.sequence_length = 1000000", ranks=2,
                     train__sequence_length=1000000)

    def test_truncated_and_altered(self):
        prefix, bin_file, idx = self.copy()
        os.truncate(bin_file, bin_file.stat().st_size - 10)
        self.refused(prefix, r"copy\.(bin|idx)", r"\d+ bytes", ranks=2)
        prefix, bin_file, idx = self.copy()
        os.truncate(idx, idx.stat().st_size - 3)
        self.refused(prefix, r"copy\.idx")
        for offset, value, pattern in ((0, b"NOTMEGA", "MMIDIDX"), (9, struct.pack("<Q", 77), "version 77"),
                                       (17, b"\x63", "token type 99"), (18, struct.pack("<Q", 2**63), "sequences"),
                                       (34, struct.pack("<i", -5), "-5")):
            with self.subTest(pattern):
                prefix, _, idx = self.copy()
                altered(idx, offset, value)
                self.refused(prefix, r"copy\.idx", pattern)

    def test_tokens_outside_the_vocabulary(self):
        prefix, bin_file, _ = self.copy()
        altered(bin_file, 20, struct.pack("<H", 60000))
        self.refused(prefix, r"copy\.bin: token 60000 at position 10", "257", ranks=2)

    def test_not_utf8(self):
        text = self.folder / "latin.txt"
        text.write_bytes(b"ascii first, then caf\xe9 in latin-1\n" * 200)
        words = ("tokenize", text, "-o", self.folder / "latin")
        self.assert_refused(words, r"latin\.txt: byte 21 \(0xE9\)", "--encoding bytes")
        self.assertFalse((self.folder / "latin.bin").exists())
        self.run_program(*words, "--encoding", "bytes")
        self.assertTrue((self.folder / "latin.bin").exists())

    def test_texts(self):
        output = ("-o", self.folder / "out")
        self.assert_refused(("tokenize", self.folder / "none.txt", *output), r"none\.txt", "No such file")
        empty = self.folder / "empty.txt"
        empty.write_bytes(b"")
        self.assert_refused(("tokenize", empty, *output), r"empty\.txt is empty")
        self.assert_refused(("tokenize", self.folder, *output), "not a regular file")
        self.assert_refused(("tokenize", self.text, "-o", self.text / "out"), "Not a directory")
        self.assert_refused(("tokenize", self.text, *output, "--encoding", "utf16"), "utf16")
        self.assertEqual(list(self.folder.glob("out*")), [])

    def test_disk_full_while_tokenizing(self):
        result = self.run_program("tokenize", self.text, "-o", self.folder / "full", code=1, file_limit=16 << 10)
        self.assert_one_sentence(result, r"full", "File too large")
        self.assertEqual(list(self.folder.glob("full*")), [])


class Checkpoints(CliTest):
    """Damaged checkpoints, those of other models, and places where none can be written."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.good_config, cls.good = cls.config(train__steps=4, checkpoint__every=2)
        cls.run_program("train", cls.good_config, "--stop-at", "3", code=STOPPED)

    def copy(self):
        """A run stopped at step 3, to be damaged, and its configuration."""
        config, run = self.config(train__steps=4, checkpoint__every=2)
        shutil.copytree(self.good.path, run.path)
        return config, run

    def refused_everywhere(self, config, run, *patterns):
        checkpoint = run.checkpoint(3)
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                self.assert_refused(("train", config, "--resume"), *patterns, ranks=ranks)
        self.assert_refused(("eval", checkpoint, "--data", f"{self.tokens}-valid"), *patterns)
        self.assert_refused(("generate", checkpoint, "--prompt", "a"), *patterns)

    def test_the_copy_is_good(self):
        config, _ = self.copy()
        self.run_program("train", config, "--resume")

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

    def test_without_checksums_files_are_still_checked(self):
        """A directory made elsewhere has no checksums.json."""
        _, run = self.copy()
        checkpoint = run.checkpoint(3)
        (checkpoint / "checksums.json").unlink()
        words = ("eval", checkpoint, "--data", f"{self.tokens}-valid", "--sequences", "2")
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

    def test_not_a_checkpoint(self):
        data = ("--data", f"{self.tokens}-valid")
        self.assert_refused(("eval", self.folder, *data), "not a checkpoint", ranks=2)
        self.assert_refused(("eval", self.folder / "none", *data), "none")
        self.assert_refused(("eval", self.text, *data), r"corpus\.txt")

    def test_another_model(self):
        for key, value in (("model.hidden_size", 64), ("model.num_experts", 8), ("model.moe_top_k", 1),
                           ("model.sub_layers", 1), ("model.num_hidden_layers", 3)):
            with self.subTest(key):
                config, run = self.copy()
                name = key.split(".")[1]
                self.assert_refused(("train", config, "--resume", "--set", f"{key}={value}"),
                                    "of another model", f"{name} = .* there, {value}")
                self.assertEqual(run.checkpoints(), [2, 3])

    def test_another_order_of_the_data(self):
        config, _ = self.copy()
        self.assert_refused(("train", config, "--resume", "--set", "train.seed=8"), "train.seed = 7")
        self.assert_refused(("train", config, "--resume", "--set", "train.batch_sequences=12"),
                            "train.batch_sequences = 6", ranks=2)

    def test_directory_already_holds_a_run(self):
        config, run = self.copy()
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                self.assert_refused(("train", config), "already holds a run", "--resume", ranks=ranks)
        self.assertEqual(run.checkpoints(), [2, 3])
        self.assertEqual(run.losses(), self.good.losses())

    def test_unwritable_directory(self):
        for ranks in (1, 2):
            for place in (self.text / "run", pathlib.Path("/proc/no-such/run")):
                with self.subTest(ranks=ranks, place=place):
                    config, _ = self.config(run__dir=str(place))
                    self.assert_refused(("train", config), "create directory", str(place), ranks=ranks)


class FullDisk(CliTest):
    """A limit on the size of files stands for a full disk: writing fails in the middle of a file."""

    def stopped_run(self, **changes):
        config, run = self.config(train__steps=6, checkpoint__every=2, **changes)
        self.run_program("train", config, "--stop-at", "2", code=STOPPED)
        return config, run

    def check_nothing_is_lost(self, config, run):
        self.assertEqual(run.checkpoints(), [2])
        self.run_program("eval", run.checkpoint(2), "--data", f"{self.tokens}-valid", "--sequences", "2")
        self.run_program("train", config, "--resume")
        self.assertEqual(run.checkpoints(), [4, 6])
        self.assertEqual(run.temporary(), [])

    def test_while_saving(self):
        for asynchronous in (True, False):
            with self.subTest(asynchronous=asynchronous):
                config, run = self.stopped_run(checkpoint__async=asynchronous)
                result = self.run_program("train", config, "--resume", code=1, file_limit=100 << 10)
                self.assert_one_sentence(result, r"\.tmp-step-00000004/.*\.safetensors", "File too large")
                self.check_nothing_is_lost(config, run)

    def test_while_saving_on_one_of_two_ranks(self):
        config, run = self.stopped_run()
        words = [PROGRAM, "train", config, "--resume"]
        limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 200; exec \"$@\"", "limited", *words]
        # Open MPI's shared memory is made of files as well.
        command = mpirun_command([(1, words), (1, limited)], ("--mca", "btl", "self,tcp"))
        result = self.start_command(command).wait()
        self.assertEqual(result.rank_codes, {0: 1, 1: 1}, result)
        self.assert_one_sentence(result, r"rank 1: .*-00002-of-00002\.safetensors", "File too large")
        self.check_nothing_is_lost(config, run)

    def test_while_logging(self):
        """Only rank 0 writes metrics: it must take the others along."""
        config, run = self.config(train__steps=1000, valid__every=0)
        words = [PROGRAM, "train", config]
        limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "limited", *words]
        command = mpirun_command([(1, limited), (1, words)], ("--mca", "btl", "self,tcp"))
        result = self.start_command(command).wait()
        self.assertEqual(result.rank_codes, {0: 1, 1: 1}, result)
        self.assertRegex(result.errors()[0] + result.errors()[-1], r"metrics\.jsonl: File too large")


class Divergence(CliTest):
    """A loss that is not finite stops the run and keeps the last good checkpoint."""

    def test_learning_rate(self):
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                config, run = self.config(train__steps=20)
                self.run_program("train", config, "--stop-at", "3", ranks=ranks, code=STOPPED)
                self.assert_refused(("train", config, "--resume", "--set", "train.learning_rate=1e30"),
                                    r"step [45]: the (loss|gradient) is not finite", ranks=ranks)
                self.assertEqual(run.checkpoints(), [3])
                self.run_program("train", config, "--resume", "--stop-at", "4", ranks=ranks, code=STOPPED)

    def test_broken_weights_do_not_replace_the_last_good_checkpoint(self):
        """A checkpoint of every step, one of them kept: that of the step that broke the weights must not be."""
        config, run = self.config(train__steps=20, checkpoint__every=1, checkpoint__keep_last=1)
        self.run_program("train", config, "--stop-at", "3", ranks=2, code=STOPPED)
        self.assert_refused(("train", config, "--resume", "--set", "train.learning_rate=1e30"),
                            r"step [45]: the (loss|gradient) is not finite", ranks=2)
        self.assertEqual(run.checkpoints(), [3])


if __name__ == "__main__":
    unittest.main(verbosity=2)
