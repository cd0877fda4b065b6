"""The same training on one rank and on several, whatever divides the work: in float32, every step has the same loss."""

import unittest

from harness import CliTest


class SameLosses(CliTest):
    TOLERANCE = 1e-5  # relative

    def losses(self, ranks=1, **changes):
        config, run = self.config(train__steps=20, **changes)
        self.run_program("train", config, ranks=ranks)
        return run.losses()

    def check(self, variants, **common):
        """`variants`, by name: what each changes of a run on one rank."""
        expected = self.losses(**common)
        for name, changes in variants.items():
            with self.subTest(name):
                self.assert_close_losses(self.losses(**common, **changes), expected, self.TOLERANCE)

    def test_any_number_of_ranks(self):
        """Neither 2 nor 4 ranks divide 3 sequences, nor do 4 ranks 6 experts. Low learning rate: with experts that are
        alike after few steps, a token's scores may tie, and then rounding chooses its expert and shows in the loss."""
        self.check({f"{ranks} ranks": dict(ranks=ranks) for ranks in (2, 3, 4)}, model__num_experts=6,
                   train__micro_batch_sequences=3, train__learning_rate=3e-3, train__min_learning_rate=1e-4,
                   train__warmup_steps=4)

    def test_ways_to_divide_the_work(self):
        """Two micro-batches of 3 sequences; 3 ranks do not divide the 4 experts."""
        self.check({
            "chunks": dict(ranks=2, exchange__chunks=3),
            "nodes": dict(ranks=3, parallel__node_sizes=[1, 2]),
            "2 replicas": dict(ranks=2, parallel__expert_ranks=1),
            "3 replicas": dict(ranks=3, parallel__expert_ranks=1),
            "local": dict(ranks=3, parallel__node_sizes=[1, 2], parallel__placement="local"),
            "threads": dict(parallel__threads=2),
        }, train__micro_batch_sequences=3)

    def test_ranks_without_sequences(self):
        for ranks, micro_batch in ((2, 1), (4, 2)):
            with self.subTest(ranks=ranks):
                self.check({"shared": dict(ranks=ranks)}, train__batch_sequences=2,
                           train__micro_batch_sequences=micro_batch)


if __name__ == "__main__":
    unittest.main(verbosity=2)
