"""A rank dies or stops answering: the job ends within the deadline, says why, and leaves nobody behind."""

import os
import re
import signal
import time
import unittest

from harness import CliTest

LONG = 100000  # steps: more than any test waits for
PHASE = r"no answer from ranks? [\d, ]+ within 3 s in (?P<phase>[a-z\- ]+?)(?: of layer (?P<layer>\d+))?$"


class LostRank(CliTest):
    """3 ranks under mpirun, one of which is lost while training."""

    # Many small micro-batches: nearly all the time goes by inside the layers.
    CHANGES = dict(train__steps=LONG, train__batch_sequences=96, train__micro_batch_sequences=3, valid__every=0,
                   model__num_hidden_layers=4, model__expert_interval=1, comm__timeout_s=3)

    def lose(self, victim, number, delay=0.0, **more):
        """Trains on 3 ranks, sends `victim` a signal during a step; how the job ended, and seconds it took."""
        config, run = self.config(**self.CHANGES)
        job = self.start("train", config, ranks=3, **more)
        self.wait_for_lines(job, run, 1)
        time.sleep(delay)
        ranks = job.ranks(3)
        os.kill(ranks[victim], number)
        return job.wait()

    def test_killed(self):
        for victim in (0, 1, 2):
            with self.subTest(victim=victim):
                result = self.lose(victim, signal.SIGKILL)
                self.assertNotEqual(result.code, 0, result)
                self.assertEqual(result.rank_codes.get(victim), 128 + signal.SIGKILL, result)

    def test_killed_and_the_others_find_out_by_themselves(self):
        """mpirun is told to let the others go on."""
        result = self.lose(1, signal.SIGKILL, mpi={"options": ("--enable-recovery",)})
        self.assertEqual(result.rank_codes, {0: 1, 1: 128 + signal.SIGKILL, 2: 1}, result)
        self.assertTrue(result.errors(), result)
        for sentence in result.errors():
            self.assertRegex(sentence, r"^cartesian: rank [02] \(.+\): .*rank 1")

    def test_stopped(self):
        """A rank that neither answers nor dies: the sentence names rank, peer, phase and layer."""
        named = set()
        for attempt in range(4):
            result = self.lose(1, signal.SIGSTOP, delay=0.03 * attempt)
            self.assertNotEqual(result.code, 0, result)
            self.assertEqual({rank: result.rank_codes.get(rank) for rank in (0, 2)}, {0: 1, 2: 1}, result)
            found = [re.search(PHASE, sentence) for sentence in result.errors()]
            self.assertTrue(any(found), result)
            for sentence, match in zip(result.errors(), found):
                self.assertRegex(sentence, r"^cartesian: rank [012] \(.+\): .*rank")
                if match and match["layer"]:
                    named.add(match["phase"])
            if named:
                return
        self.fail("no sentence named a layer")

    def test_mpirun_itself_is_killed(self):
        config, run = self.config(**self.CHANGES)
        job = self.start("train", config, ranks=2)
        self.wait_for_lines(job, run, 1)
        job.signal(signal.SIGKILL)
        self.assertEqual(job.wait().code, -signal.SIGKILL)


if __name__ == "__main__":
    unittest.main(verbosity=2)
