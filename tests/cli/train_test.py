"""Training on one rank, end to end: what it learns and leaves, and that stopping and going on changes no bit."""

import json
import math
import signal
import struct

import support


def tensor_names(checkpoint):
    """The tensors of a checkpoint's weights, by an independent reader of safetensors' header."""
    names = set()
    for path in checkpoint.glob("model-*.safetensors"):
        data = path.read_bytes()
        (size,) = struct.unpack_from("<Q", data)
        names |= set(json.loads(data[8 : 8 + size])) - {"__metadata__"}
    return names


class TrainTest(support.CliTest):
    def setUp(self):
        super().setUp()
        self.config = self.make_config()

    def train(self, name, *options, code=0, **values):
        """A run in a directory of its own."""
        self.run_directory = self.directory / name
        result = self.cartesian("train", self.config, *options, *self.settings(run_dir=self.run_directory, **values))
        self.assertEqual(result.code, code, result)
        return result

    def assert_same_bits(self, first, second):
        a, b = (self.checkpoints(self.directory / name)[-1] for name in (first, second))
        self.assertEqual(a.name, b.name)
        files = sorted(path.name for path in a.iterdir())
        self.assertEqual(files, sorted(path.name for path in b.iterdir()))
        for name in files:
            self.assertEqual((a / name).read_bytes(), (b / name).read_bytes(), name)
        self.assertEqual(self.losses(self.directory / first), self.losses(self.directory / second))

    def test_learns_and_reports(self):
        result = self.train("run", train_steps=60)
        losses = self.losses()
        self.assertEqual(sorted(losses), list(range(1, 61)))
        self.assertAlmostEqual(losses[1], math.log(257), delta=0.5)
        self.assertLess(losses[60], losses[1] - 1.0)
        for word in ("tokens/s", "eta", "balancedness", "exchange", "held-out", "bigram", "unigram"):
            self.assertIn(word, result.stdout)
        summary = json.loads((self.run_directory / "summary.json").read_text(encoding="utf-8"))
        self.assertLess(summary["bigram_perplexity"], summary["unigram_perplexity"])
        self.assertIn(self.checkpoints()[-1].name, result.stdout)

    def test_checkpoint_has_the_published_names(self):
        self.train("run", train_steps=1)
        names = tensor_names(self.checkpoints()[-1])
        block, dense = "model.layers.0.", "model.layers.1."
        expected = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", block + "mlp_layernorm.weight",
                    block + "wg0.weight", block + "wg1.weight", block + "coefficient0.bias", block + "coefficient1.weight",
                    block + "mlp0.5.gate_proj.weight", block + "mlp1.0.down_proj.weight",
                    block + "res_mlp0.up_proj.weight", dense + "mlp.gate_proj.weight",
                    dense + "self_attn.q_proj.weight", dense + "post_attention_layernorm.weight"}
        self.assertEqual(expected - names, set(), sorted(names))

    def test_eval_and_generate(self):
        self.train("run", train_steps=30)
        checkpoint = self.checkpoints()[-1]
        result = self.succeed("eval", checkpoint, "--data", f"{self.tokens}-valid")
        self.assertRegex(result.stdout, r"perplexity \d+\.\d+")
        options = ["generate", checkpoint, "--prompt", "the whale ", "--tokens", "20"]
        first = self.succeed(*options, "--seed", "5").stdout
        self.assertTrue(first.startswith("the whale "), first)
        self.assertEqual(self.succeed(*options, "--seed", "5").stdout, first)
        self.succeed(*options, "--temperature", "0")

    def test_resume_is_exact(self):
        self.train("whole")
        self.train("parts", "--stop-at", "10", code=support.EXIT_STOPPED)
        self.train("parts", "--resume")
        self.assert_same_bits("whole", "parts")

    def test_interrupt_stops_with_a_checkpoint(self):
        self.train("whole", train_steps=120)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            with self.subTest(signal=number.name):
                self.run_directory = self.directory / number.name
                arguments = ["train", self.config, *self.settings(run_dir=self.run_directory, train_steps=120)]
                process = self.start(arguments)
                self.wait_for_step(process, 3)
                process.send_signal(number)
                result = self.finish(process)
                self.assertEqual(result.code, support.EXIT_STOPPED, result)
                self.assertRegex(result.stdout, r"stopped at step \d+ with a checkpoint")
                self.succeed(*arguments, "--resume")
                self.assert_same_bits("whole", number.name)

    def test_same_bits_whatever_the_threads_and_the_way_of_writing(self):
        self.train("one", parallel_threads=1)
        self.train("two", parallel_threads=2)
        self.train("waiting", checkpoint_async="false")
        self.assert_same_bits("one", "two")
        self.assert_same_bits("one", "waiting")

    def test_keeps_the_last_checkpoints(self):
        self.train("run", checkpoint_every=3, checkpoint_keep_last=3)
        self.assertEqual([path.name[-3:] for path in self.checkpoints()], ["015", "018", "020"])

    def test_gradient_accumulation(self):
        # The load-balancing loss is one of a micro-batch, so it is left out here.
        self.train("whole", train_micro_batch_sequences=6, train_balance_loss=0.0)
        self.train("parts", train_micro_batch_sequences=2, train_balance_loss=0.0)
        parts = self.losses(self.directory / "parts")
        for step, loss in self.losses(self.directory / "whole").items():
            self.assertAlmostEqual(parts[step], loss, delta=1e-5 * loss)

    def test_bfloat16_learns(self):
        self.train("run", train_dtype="bfloat16", train_steps=60)
        losses = self.losses()
        self.assertLess(losses[60], losses[1] - 1.0)

    def test_memory_stops_growing(self):
        self.train("run")
        growths = [record["arena_growths"] for record in self.records() if "arena_growths" in record]
        self.assertEqual(growths[12], growths[-1])

    def test_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(self):
        self.train("run", train_steps=4)
        kept = self.checkpoints()
        # Weights that a wild step has driven to infinity give a loss that is not a number.
        result = self.train("run", "--resume", code=support.EXIT_ERROR, train_learning_rate=1e30,
                            train_min_learning_rate=1e30, train_warmup_steps=0, checkpoint_every=0)
        self.assertRegex(result.stderr, r"step \d+.*not finite")
        self.assertEqual(self.checkpoints(), kept)


if __name__ == "__main__":
    support.main()
