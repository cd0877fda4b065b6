"""Balancing methods and ways to save memory, through the whole program: metrics, checkpoints, evaluation, sizes."""

import json
import re
import unittest

from harness import CliTest, number_after
from job import STOPPED
from run import read_tensors

BALANCED = dict(train__z_loss=[1e-3, 2e-3], train__balance_bias=0.01, train__router_jitter=0.05)
SAVING = dict(train__recompute="block", parallel__shard_optimizer=True)


class Balancing(CliTest):
    def test_a_bias_is_kept_and_used(self):
        config, run = self.stopped_run(4, ranks=2, **BALANCED)
        self.run_program("train", config, "--resume", ranks=3)
        steps = [record for record in run.records() if "loss" in record]
        for record in steps:
            self.assertGreater(record["z_loss"], 0)
            self.assertGreater(record["balance_loss"], 0)
        self.assertAlmostEqual(steps[0]["largest_router_bias"], 0.01)
        self.assertGreater(steps[-1]["largest_router_bias"], 0.01)
        biases = {name: bits for name, bits in read_tensors(run.checkpoint(8)).items()
                  if re.fullmatch(r"model\.layers\.0\.expert_bias[01]", name)}
        self.assertEqual(len(biases), 2)
        self.assertTrue(json.loads((run.checkpoint(8) / "config.json").read_text())["router_bias"])
        losses = [number_after("loss", self.run_program("eval", run.checkpoint(8), "--data", f"{self.tokens}-valid",
                                                        "--sequences", "8", *more).out)
                  for more in ((), ("--disable-top", "1"))]
        self.assert_close(losses[0], run.valid_losses()[8], 1e-5)
        self.assertGreater(losses[1], losses[0])
        self.run_program("generate", run.checkpoint(8), "--tokens", "4")

    def test_an_ordinary_checkpoint_has_none(self):
        _, run = self.stopped_run(1)
        self.assertFalse([name for name in read_tensors(run.checkpoint(1)) if "expert_bias" in name])
        self.assertNotIn("router_bias", json.loads((run.checkpoint(1) / "config.json").read_text()))

    def test_a_bias_can_stay_as_it_is_but_not_vanish(self):
        config, run = self.stopped_run(2, train__balance_bias=0.01)
        still = ("--set", "train.balance_bias=0")
        self.assert_refused(("train", config, "--resume", *still), "router_bias = true there, false")
        self.run_program("train", config, "--resume", *still, "--set", "model.router_bias=true")
        biases = [record["largest_router_bias"] for record in run.records() if "loss" in record]
        self.assertEqual(set(biases[1:]), {biases[1]})

    def test_refused(self):
        config, _ = self.config()
        self.assert_refused(("train", config, "--set", "train.z_loss=[1,2]", "--set", "model.sub_layers=1"),
                            "train.z_loss has 2 values, but model.sub_layers = 1")
        self.assert_refused(("train", config, "--set", "train.balance_bias=1", "--set", "model.routing=top_p"),
                            "train.balance_bias balances top_k routing")
        self.assert_refused(("train", config, "--set", "train.balance_bias=1.5"), "train.balance_bias = 1.5: must be at most 1")


class Memory(CliTest):
    def test_both_ways_leave_the_bits_and_save(self):
        config, whole = self.config(**BALANCED)
        self.run_program("train", config, ranks=2)
        config, saving = self.config(**BALANCED, **SAVING)
        self.run_program("train", config, "--stop-at", "4", ranks=2, code=STOPPED)
        self.run_program("train", config, "--resume", ranks=2)
        self.assertEqual(saving.losses(), whole.losses())
        self.assert_same_tensors(saving.checkpoint(8), whole.checkpoint(8))
        model, less = (run.records()[0]["model_bytes"] for run in (whole, saving))
        self.assertLess(less, model)
        self.run_program("train", config, "--resume", "--set", "train.steps=9", "--set",
                         "parallel.shard_optimizer=false", ranks=3)

    def test_info_says_what_they_save(self):
        large, _ = self.config(model__hidden_size=1024, model__intermediate_size=4096,
                               model__num_hidden_layers=24, model__vocab_size=32000, train__sequence_length=1024,
                               train__batch_sequences=64, train__micro_batch_sequences=64)

        def saved(*settings):
            words = [word for setting in settings for word in ("--set", setting)]
            printed = self.run_program("info", large, "--ranks", "8", *words).out
            in_all = float(re.search(r"in all +(\S+)", printed)[1])
            return in_all, dict(re.findall(r"^  (\S+) = .* saves? (\S+)$", printed, re.MULTILINE))

        plain, would = saved()
        self.assertEqual(set(would), {"train.recompute", "parallel.shard_optimizer"})
        both, saves = saved("train.recompute=block", "parallel.shard_optimizer=true")
        self.assertEqual(saves, would)
        self.assertAlmostEqual(plain - both, sum(map(float, would.values())), delta=0.03)
        self.assertGreater(float(would["parallel.shard_optimizer"]), 0.1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
