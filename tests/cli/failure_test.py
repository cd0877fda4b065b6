"""What goes wrong while training: a rank is lost, a disk is full, a loss is not finite. The job ends within the
deadline, says why, leaves nobody behind and loses no checkpoint."""

import os
import re
import signal
import time
import unittest
import urllib.request

from harness import CliTest
from job import PROGRAM, STOPPED, mpirun_command, wait_until

LONG = 100000  # steps: more than any test waits for
# Ranks with their hosts, then phase, layer and step.
PHASE = (r"no answer from ranks? \d+ \(\S+\)(?:, \d+ \(\S+\))* within 3 s in (?P<phase>[a-z\- ]+?)"
         r"(?: of layer (?P<layer>\d+))? at step \d+")


class LostRank(CliTest):
    """3 ranks under mpirun, one of which is lost while training."""

    # Many small micro-batches: nearly all the time goes by inside the layers.
    CHANGES = dict(train__steps=LONG, train__batch_sequences=96, train__micro_batch_sequences=3, valid__every=0,
                   model__num_hidden_layers=4, model__expert_interval=1, comm__timeout_s=3)

    def lose(self, victim, number, delay=0.0, **more):
        """Trains on 3 ranks, sends `victim` a signal during a step, and returns how the job ended."""
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
            self.assertRegex(sentence, r"^cartesian: rank [02] \(.+\): .*ranks? (\d+ \(\S+\), )*1 \(")

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

    def lose_coordinator(self, number, **more):
        """As lose(0, number), once the agents of all ranks are registered with the coordinator beside rank 0. Returns how the
        job ended and what ranks 1 and 2 said."""
        config, run = self.config(**self.CHANGES, scheduler__enabled=True, metrics__port=0)
        job = self.start("train", config, ranks=3, **more)
        self.wait_for_lines(job, run, 1)
        url = (run.path / "metrics_address").read_text().strip()

        def registered():
            with urllib.request.urlopen(url, timeout=30) as answer:
                return b'cartesian_ranks_by_health{health="alive"} 3\n' in answer.read()

        wait_until(registered)
        os.kill(job.ranks(3)[0], number)
        result = job.wait()
        self.assertEqual({rank: result.rank_codes.get(rank) for rank in (1, 2)}, {1: 1, 2: 1}, result)
        return result, [line for line in result.errors() if not line.startswith("cartesian: rank 0 (")]

    def test_the_coordinator_is_stopped_with_rank_0(self):
        """What mpirun wakes rank 0 for, so that it ends, is no matter here."""
        result, said = self.lose_coordinator(signal.SIGSTOP)
        self.assertTrue(any(re.search(r"no answer from rank 0 \(\S+\) within 3 s", sentence) for sentence in said), result)
        self.assertLessEqual(len(said), 2, result)

    def test_the_coordinator_is_killed_with_rank_0(self):
        """Each of the others says once why it ends."""
        result, said = self.lose_coordinator(signal.SIGKILL, mpi={"options": ("--enable-recovery",)})
        self.assertEqual(result.rank_codes[0], 128 + signal.SIGKILL, result)
        self.assertEqual(sorted(sentence[:len("cartesian: rank N")] for sentence in said),
                         ["cartesian: rank 1", "cartesian: rank 2"], result)
        for sentence in said:
            self.assertRegex(sentence, r"ranks? (\d+ \(\S+\), )*0 \(")

    def test_mpirun_itself_is_killed(self):
        config, run = self.config(**self.CHANGES)
        job = self.start("train", config, ranks=2)
        self.wait_for_lines(job, run, 1)
        job.signal(signal.SIGKILL)
        self.assertEqual(job.wait().code, -signal.SIGKILL)


class FullDisk(CliTest):
    """A limit on the size of files, on one of two ranks, stands for a full disk: writing fails inside a file."""

    def train(self, config, *options, limited_rank, blocks):
        """Trains on 2 ranks, of which `limited_rank` writes no file beyond `blocks` of 512 bytes."""
        words = [PROGRAM, "train", config, *options]
        limited = ["sh", "-c", f"trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"", "limited", *words]
        parts = [(1, limited if rank == limited_rank else words) for rank in range(2)]
        # Open MPI's shared memory is made of files as well, unless it is System V's. Its TCP will not do: a rank that
        # loses a peer waits there for mpirun to print so, and mpirun waits for the ranks to end.
        result = self.start_command(mpirun_command(parts, ("--mca", "shmem", "sysv"))).wait()
        self.assertEqual(result.rank_codes, {0: 1, 1: 1}, result)
        return result

    def test_while_saving(self):
        config, run = self.stopped_run(2, train__steps=6, checkpoint__every=2)
        result = self.train(config, "--resume", limited_rank=1, blocks=200)
        self.assert_one_sentence(result, r"rank 1: .*-00002-of-00002\.safetensors", "File too large")
        self.assert_nothing_is_lost(config, run, 2, later=[4, 6])

    def test_while_logging(self):
        """Only rank 0 writes metrics: it must take the others along."""
        config, _ = self.config(train__steps=1000, valid__every=0)
        result = self.train(config, limited_rank=0, blocks=16)
        self.assertRegex(result.errors()[0] + result.errors()[-1], r"metrics\.jsonl: File too large")


class Divergence(CliTest):
    """A loss that is not finite stops the run and keeps the last good checkpoint."""

    def diverge(self, config, ranks):
        self.assert_refused(("train", config, "--resume", "--set", "train.learning_rate=1e30"),
                            r"step [45]: the (loss|gradient) is not finite", ranks=ranks)

    def test_learning_rate(self):
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                config, run = self.stopped_run(3, ranks=ranks, train__steps=20)
                self.diverge(config, ranks)
                self.assertEqual(run.checkpoints(), [3])
                self.run_program("train", config, "--resume", "--stop-at", "4", ranks=ranks, code=STOPPED)

    def test_broken_weights_do_not_replace_the_last_good_checkpoint(self):
        """A checkpoint of every step, one of them kept: that of the step that broke the weights must not be."""
        for asynchronous in (True, False):
            with self.subTest(asynchronous=asynchronous):
                config, run = self.stopped_run(3, ranks=2, train__steps=20, checkpoint__every=1,
                                               checkpoint__keep_last=1, checkpoint__async=asynchronous)
                self.diverge(config, 2)
                self.assertEqual(run.checkpoints(), [3])
                self.run_program("train", config, "--resume", "--stop-at", "4", ranks=2, code=STOPPED)


if __name__ == "__main__":
    unittest.main(verbosity=2)
