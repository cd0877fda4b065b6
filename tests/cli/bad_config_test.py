"""Bad configurations: one clear sentence on standard error, exit code 1 on every rank, no hang, nothing lost."""

import json
import pathlib
import unittest

from harness import CliTest
from job import PROGRAM, mpirun_command


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
                self.refused("train.learning_rat", 1e-3, r"config\.toml:\d+: train\.learning_rat",
                             "train.learning_rate", ranks=ranks)
        self.refused("trian.steps", 3, "trian.steps", "did you mean.*train.steps")

    def test_unknown_key_in_an_override(self):
        config, _ = self.config()
        self.assert_refused(("train", config, "--set", "model.num_expert=3"), "--set", "model.num_experts")
        self.assert_refused(("train", config, "--set", "train.steps"), "section.key=value")
        result = self.assert_refused(("train", config, "--set", "train.stepz=1"), r"train\.stepz", ranks=3)
        self.assertEqual(result.err.count("train.stepz"), 1, result)

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

    def refused_together(self, zero, one, *patterns):
        """Two ranks whose words after `train` differ."""
        command = mpirun_command([(1, [PROGRAM, "train", *words]) for words in (zero, one)])
        result = self.start_command(command).wait()
        self.assertEqual(result.rank_codes, {0: 1, 1: 1}, result)
        self.assert_one_sentence(result, *patterns)

    def test_one_rank_has_another_configuration(self):
        one, _ = self.config()
        for key, value, line in (("train__seed", 8, "seed = 8"), ("model__hidden_size", 64, "hidden_size = 64"),
                                 ("data__valid", "", "valid = ''")):
            with self.subTest(key=key):
                other, _ = self.config(**{key: value, "run__dir": str(one.parent / "run")})
                self.refused_together((one,), (other,), "rank 1 was given another configuration", f"'{line}' there")
        self.refused_together((one,), (one, "--set", "train.seed=2"), "rank 1 .*'seed = 2' there")

    def test_one_rank_has_a_broken_configuration(self):
        one, _ = self.config()
        other, _ = self.config(train__step=3)
        self.refused_together((one,), (other,), "rank 1: ", "train.step: unknown key")

    def test_unwritable_directory(self):
        for ranks in (1, 2):
            for place in (self.text / "run", pathlib.Path("/proc/no-such/run")):
                with self.subTest(ranks=ranks, place=place):
                    config, _ = self.config(run__dir=str(place))
                    self.assert_refused(("train", config), "create directory", str(place), ranks=ranks)


if __name__ == "__main__":
    unittest.main(verbosity=2)
