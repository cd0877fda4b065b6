"""Tokenize, train, eval, generate from end to end, on one rank and on several."""

import json
import tomllib
import unittest

from harness import CliTest, number_after

STEP_KEYS = {
    "step", "loss", "balance_loss", "gradient_norm", "learning_rate", "tokens_per_s", "step_s", "balancedness",
    "dead_experts", "z_loss", "largest_router_bias", "exchange_share", "wait_s", "chunks", "intra_bytes", "inter_bytes",
    "exchange_intra_rows", "exchange_inter_rows", "phase_s", "arena_bytes", "arena_growths", "model_bytes", "peak_rss_bytes",
}


class EndToEnd(CliTest):
    """20 steps on 1, 2 and 3 ranks; on 3 the 4 experts do not divide."""

    RANKS = (1, 2, 3)
    STEPS = 20

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.runs = {}
        for ranks in cls.RANKS:
            config, run = cls.config(train__steps=cls.STEPS)
            cls.runs[ranks] = (run, cls.run_program("train", config, ranks=ranks))

    def test_metrics_are_well_formed(self):
        for ranks, (run, _) in self.runs.items():
            with self.subTest(ranks=ranks):
                self.assertEqual(run.steps(), list(range(1, self.STEPS + 1)))
                self.assertEqual(list(run.valid_losses()), [4, 8, 12, 16, 20])
                for record in run.records():
                    if "loss" in record:
                        self.assertLessEqual(STEP_KEYS, set(record))
                        self.assertGreater(record["tokens_per_s"], 0)
                        self.assertLessEqual(0, record["exchange_share"])
                        self.assertLessEqual(record["exchange_share"], 1)

    def test_it_learns(self):
        losses = self.runs[1][0].losses()
        self.assertLess(losses[self.STEPS], 0.8 * losses[1])

    def test_the_arena_stops_growing(self):
        growths = [record["arena_growths"] for record in self.runs[1][0].records() if "loss" in record]
        self.assertEqual(growths[9], growths[-1])

    def test_losses_agree_between_world_sizes(self):
        one = self.runs[1][0]
        for ranks in self.RANKS[1:]:
            run = self.runs[ranks][0]
            with self.subTest(ranks=ranks):
                self.assert_close_losses(run.losses(), one.losses(), 1e-5)
                self.assert_close(run.valid_losses()[self.STEPS], one.valid_losses()[self.STEPS], 1e-5)

    def test_summary(self):
        for ranks, (run, result) in self.runs.items():
            with self.subTest(ranks=ranks):
                summary = json.loads((run.path / "summary.json").read_text())
                self.assertEqual(summary["tokens"], 8 * 32)
                self.assertEqual(summary["experts"], 8)
                self.assertGreater(summary["unigram_perplexity"], summary["bigram_perplexity"])
                self.assertEqual(summary["checkpoint"], str(run.checkpoint(self.STEPS)))
                self.assertIn("this model", result.out)
                self.assertIn(summary["checkpoint"], result.out)

    def test_only_the_root_speaks(self):
        for ranks, (_, result) in self.runs.items():
            with self.subTest(ranks=ranks):
                self.assertEqual(result.out.count("held-out perplexity over"), 1)

    def test_eval_equals_the_last_held_out_loss(self):
        for ranks, eval_ranks in ((1, 1), (2, 2), (3, 1), (1, 3)):
            with self.subTest(trained_on=ranks, evaluated_on=eval_ranks):
                run = self.runs[ranks][0]
                result = self.run_program("eval", run.checkpoint(self.STEPS), "--data", f"{self.tokens}-valid",
                                          "--sequences", "8", ranks=eval_ranks)
                self.assert_close(number_after("loss", result.out), run.valid_losses()[self.STEPS], 1e-5)
                self.assertEqual(number_after("tokens", result.out), 256)

    def test_perplexity_is_that_of_one_rank(self):
        words = ("eval", self.runs[1][0].checkpoint(self.STEPS), "--data", f"{self.tokens}-valid")
        expected = number_after("perplexity", self.run_program(*words).out)
        for ranks in (2, 3):
            with self.subTest(ranks=ranks):
                self.assert_close(number_after("perplexity", self.run_program(*words, ranks=ranks).out), expected, 1e-4)

    def test_generate(self):
        run = self.runs[2][0]
        words = ("generate", run.checkpoint(self.STEPS), "--prompt", "The ", "--tokens", "12", "--temperature", "0")
        alone = self.run_program(*words)
        self.assertTrue(alone.out.startswith("The "), alone)
        for ranks in (2, 3):
            self.assertEqual(self.run_program(*words, ranks=ranks).out, alone.out)
        sampled = ("generate", run.checkpoint(self.STEPS), "--prompt", "The ", "--tokens", "12", "--temperature", "1")
        self.assertEqual(self.run_program(*sampled, "--seed", "3").out, self.run_program(*sampled, "--seed", "3").out)

    def test_run_directory(self):
        run = self.runs[3][0]
        self.assertEqual(run.temporary(), [])
        self.assertEqual(run.checkpoints(), [self.STEPS])
        self.assertIn("hidden_size = 32", (run.path / "config.toml").read_text())
        checkpoint = run.checkpoint(self.STEPS)
        listed = set(json.loads((checkpoint / "checksums.json").read_text())["files"])
        self.assertEqual({path.name for path in checkpoint.iterdir()} - {"checksums.json"}, listed)
        self.assertEqual(json.loads((checkpoint / "config.json").read_text())["model_type"], "cartesian_moe")


class Variants(CliTest):
    """What a run may be told to do otherwise."""

    def train(self, ranks=1, **changes):
        config, run = self.config(**changes)
        self.run_program("train", config, ranks=ranks)
        return run

    def test_bfloat16(self):
        full = self.train(train__steps=12)
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                half = self.train(ranks, train__steps=12, train__dtype="bfloat16")
                self.assert_close(half.losses()[12], full.losses()[12], 0.05)
                self.assertNotEqual(half.losses()[12], full.losses()[12])

    def test_kinds_of_layers(self):
        for sub_layers in (0, 1):
            with self.subTest(sub_layers=sub_layers):
                one = self.train(model__sub_layers=sub_layers)
                two = self.train(2, model__sub_layers=sub_layers)
                self.assert_close(two.losses()[8], one.losses()[8], 1e-5)
        self.train(2, model__use_residual=False, model__expert_interval=1)

    def test_keep_last(self):
        for asynchronous in (True, False):
            with self.subTest(asynchronous=asynchronous):
                run = self.train(checkpoint__every=2, checkpoint__keep_last=3, checkpoint__async=asynchronous)
                self.assertEqual(run.checkpoints(), [4, 6, 8])
                self.assertEqual(run.temporary(), [])

    def test_overrides(self):
        config, run = self.config()
        self.run_program("train", "--set", "train.steps=3", config, "--set", "run.progress=off")
        self.assertEqual(run.steps(), [1, 2, 3])

    def test_no_validation(self):
        run = self.train(data__valid="")
        self.assertEqual(run.valid_losses(), {})
        self.assertEqual(run.checkpoints(), [8])


class CommandLine(CliTest):
    """Help, versions, usage."""

    def test_help_has_examples(self):
        for command in ("train", "eval", "generate", "info", "tokenize", "report", "plan"):
            with self.subTest(command):
                text = self.run_program(command, "--help").out
                self.assertIn("Examples:", text)
                self.assertIn(f"cartesian {command} ", text)
                self.assertIn(command, self.run_program("--help").out)

    def test_version(self):
        self.assertRegex(self.run_program("--version").out, r"^(cartesian )?\d+\.\d+\.\d+")

    def test_keys(self):
        """What --keys prints is a configuration of all keys, and says what each means."""
        text = self.run_program("train", "--keys").out
        keys = tomllib.loads(text)
        for section, key in (("model", "num_experts"), ("train", "steps"), ("parallel", "node_sizes"),
                             ("comm", "timeout_s"), ("checkpoint", "async")):
            self.assertIn(key, keys[section])
            self.assertRegex(text, rf"(?m)^{key} = .*# \w")

    def test_usage_errors(self):
        config, run = self.config()
        for words in ((), ("trian",), ("train",), ("train", config, "--stop-at", "x"), ("eval",),
                      ("train", config, "--no-such-flag"), ("generate", run.path, "--temperature", "-1")):
            with self.subTest(words=words):
                result = self.run_program(*words, code=2)
                self.assertNotEqual(result.err, "")
        self.assertFalse(run.path.exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
