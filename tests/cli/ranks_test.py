"""The same training on one rank and on several: the same losses, and the same sentence once when something is wrong."""

import support


class RanksTest(support.CliTest):
    TOLERANCE = 1e-5  # relative, in float32, over all steps

    def setUp(self):
        super().setUp()
        self.config = self.make_config()

    def train(self, name, *options, ranks=1, code=0, **values):
        self.run_directory = self.directory / name
        result = self.cartesian("train", self.config, *options, *self.settings(run_dir=self.run_directory, **values),
                                ranks=ranks)
        self.assertEqual(result.code, code, result)
        return self.losses()

    def assert_same_losses(self, expected, actual):
        self.assertEqual(expected.keys(), actual.keys())
        for step, loss in expected.items():
            self.assertAlmostEqual(actual[step], loss, delta=self.TOLERANCE * loss, msg=f"step {step}")

    def test_same_losses_on_any_number_of_ranks(self):
        expected = self.train("one")
        for ranks in (2, 3, 4):
            with self.subTest(ranks=ranks):
                self.assert_same_losses(expected, self.train(f"on-{ranks}", ranks=ranks))

    def test_same_losses_with_replicas_and_with_nodes(self):
        expected = self.train("one")
        self.assert_same_losses(expected, self.train("replicas", ranks=2, parallel_expert_ranks=1))
        self.assert_same_losses(expected, self.train("nodes", ranks=3, parallel_node_sizes="[1, 2]"))
        self.assert_same_losses(
            expected, self.train("local", ranks=3, parallel_node_sizes="[1, 2]", parallel_placement="local"))

    def test_ranks_without_tokens(self):
        sizes = {"train_batch_sequences": 2, "train_micro_batch_sequences": 2}
        self.assert_same_losses(self.train("one", **sizes), self.train("four", ranks=4, **sizes))

    def test_resume_on_another_number_of_ranks(self):
        expected = self.train("one")
        self.train("moving", "--stop-at", "10", ranks=2, code=support.EXIT_STOPPED)
        self.assert_same_losses(expected, self.train("moving", "--resume", ranks=3))

    def test_resume_on_ranks_is_exact(self):
        expected = self.train("whole", ranks=2)
        self.train("parts", "--stop-at", "10", ranks=2, code=support.EXIT_STOPPED)
        self.assertEqual(self.train("parts", "--resume", ranks=2), expected)

    def test_eval_and_generate(self):
        self.train("run", train_steps=20)
        checkpoint = self.checkpoints()[-1]
        perplexities = []
        texts = []
        for ranks in (1, 2, 3):
            evaluated = self.succeed("eval", checkpoint, "--data", f"{self.tokens}-valid", ranks=ranks).stdout
            perplexities.append(float(evaluated.split("perplexity ")[1].split()[0]))
            texts.append(self.succeed("generate", checkpoint, "--prompt", "the sea", "--tokens", "10", "--temperature",
                                      "0", ranks=ranks).stdout)
        self.assertAlmostEqual(perplexities[0], perplexities[1], delta=1e-4 * perplexities[0])
        self.assertAlmostEqual(perplexities[0], perplexities[2], delta=1e-4 * perplexities[0])
        self.assertEqual(len(set(texts)), 1, texts)


class BadInputOnRanksTest(support.CliTest):
    def setUp(self):
        super().setUp()
        self.config = self.make_config()

    def test_said_once_and_every_rank_ends(self):
        result = self.refuse(r"train\.stepz", "train", self.config, *self.settings(train_stepz=1), ranks=3)
        self.assertEqual(result.stderr.count("train.stepz"), 1, result)
        self.refuse(r"nowhere", "train", self.config, *self.settings(data_train=self.directory / "nowhere"), ranks=2)
        self.refuse(r"expert_ranks", "train", self.config, *self.settings(parallel_expert_ranks=2), ranks=3)
        self.refuse(r"nowhere", "eval", self.directory / "nowhere", "--data", self.tokens, ranks=2)

    def test_a_rank_with_another_configuration(self):
        command = self.command(["train", self.config], 2)
        separator = command.index(support.PROGRAM)
        ours = command[separator:]
        options = command[3:separator]
        command = [command[0], *options, "-np", "1", *ours, ":", "-np", "1", *ours, "--set", "train.seed=2"]
        result = self.finish(self.start([], command=command))
        self.assertNotEqual(result.code, 0, result)
        self.assertRegex(result.stderr, r"rank 1.*seed = 2", result)


if __name__ == "__main__":
    support.main()
