"""Stopping, being killed, and going on: no bit of the result may show it."""

import random
import shutil
import signal
import time
import unittest

from harness import CliTest
from job import STOPPED, wait_until

LONG = 100000  # steps: more than any test waits for


class Exactness(CliTest):
    """Steps in one go against steps with a stop between."""

    def test_stop_and_resume_give_the_same_bits(self):
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                config, whole = self.config(train__steps=20, train__micro_batch_sequences=3)
                self.run_program("train", config, ranks=ranks)
                config, parts = self.config(train__steps=20, train__micro_batch_sequences=3)
                stopped = self.run_program("train", config, "--stop-at", "10", ranks=ranks, code=STOPPED)
                self.assertIn("stopped at step 10", stopped.out)
                self.assertEqual(parts.checkpoints(), [10])
                resumed = self.run_program("train", config, "--resume", ranks=ranks)
                self.assertIn(f"resumed from {parts.checkpoint(10)}", resumed.out)
                self.assert_same_tensors(parts.checkpoint(20), whole.checkpoint(20))
                self.assertEqual(parts.losses(), whole.losses())
                self.assertEqual(parts.steps(), list(range(1, 21)))
                self.assertEqual(parts.valid_losses(), whole.valid_losses())

    def test_resume_at_another_world_size(self):
        config, whole = self.config(train__steps=16)
        self.run_program("train", config)
        for before, after in ((1, 3), (3, 2), (2, 1), (2, 3)):
            with self.subTest(before=before, after=after):
                config, run = self.stopped_run(8, ranks=before, train__steps=16)
                self.run_program("train", config, "--resume", ranks=after)
                self.assert_close_losses(run.losses(), whole.losses(), 1e-5)
                self.assert_close(run.valid_losses()[16], whole.valid_losses()[16], 1e-5)

    def test_resume_without_a_checkpoint_starts(self):
        config, run = self.config(train__steps=2)
        result = self.run_program("train", config, "--resume")
        self.assertIn("starting at step 0", result.out)
        self.assertEqual(run.checkpoints(), [2])

    def test_resume_of_a_finished_run_changes_nothing(self):
        config, run = self.config(train__steps=3)
        self.run_program("train", config)
        before = run.records()
        (run.path / "summary.json").unlink()
        self.run_program("train", config, "--resume", ranks=2)
        self.assertEqual([sorted(record) for record in run.records()], [sorted(record) for record in before])
        self.assertEqual(run.losses(), {record["step"]: record["loss"] for record in before if "loss" in record})
        self.assertEqual(run.checkpoints(), [3])
        self.assertTrue((run.path / "summary.json").exists())
        self.run_program("report", run.path)

    def test_a_stop_that_has_been_passed_stops_at_once(self):
        config, run = self.stopped_run(3, train__steps=9)
        self.run_program("train", config, "--resume", "--stop-at", "2", code=STOPPED)
        self.assertEqual(run.steps(), [1, 2, 3])

    def test_what_fixes_the_order_of_the_data_is_kept(self):
        config, _ = self.stopped_run(2, train__steps=4)
        for setting in ("train.seed=8", "data.order=stored", "train.batch_sequences=12", "train.sequence_length=16",
                        f"data.train={self.tokens}-valid"):
            with self.subTest(setting):
                self.assert_refused(("train", config, "--resume", "--set", setting), "the data in the same order")

    def test_one_job_a_run_directory(self):
        config, run = self.config(train__steps=LONG, valid__every=0)
        job = self.start("train", config)
        self.wait_for_lines(job, run, 1)
        self.assert_refused(("train", config, "--resume"), "in use by another job")
        job.signal(signal.SIGTERM)
        self.assertEqual(job.wait().code, STOPPED)

    def test_resume_with_more_steps(self):
        config, run = self.config(train__steps=3)
        self.run_program("train", config)
        self.run_program("train", config, "--resume", "--set", "train.steps=5")
        self.assertEqual(run.steps(), [1, 2, 3, 4, 5])


class Killed(CliTest):
    """SIGKILL at moments drawn with a seed, while checkpoints are written all the time."""

    KILLS = 5
    CHANGES = dict(train__steps=LONG, checkpoint__every=1, checkpoint__keep_last=2, valid__every=0,
                   data__valid="", comm__timeout_s=60)

    def kill_and_resume(self, ranks, asynchronous, seed):
        draw = random.Random(seed)
        config, run = self.config(checkpoint__async=asynchronous, **self.CHANGES)
        last = 0
        for kill in range(self.KILLS):
            job = self.start("train", config, "--resume", ranks=ranks)
            if last:  # until it has resumed, there may be lines of steps after that checkpoint
                wait_until(lambda: not job.running() or "resumed from" in job.output())
            self.wait_for_lines(job, run, last + 1 + kill)
            time.sleep(draw.uniform(0, 0.2))
            job.kill_all()
            result = job.wait()
            self.assertNotEqual(result.code, 0, result)
            if last:
                self.assertIn(f"resumed from {run.checkpoint(last)}", result.out)
            complete = run.checkpoints()
            self.assertGreaterEqual(max(complete, default=0), last)
            last = max(complete, default=0)
        return config, run, last

    def check_end(self, config, run, last, ranks):
        end = last + 2
        self.run_program("train", config, "--resume", "--stop-at", str(end), ranks=ranks, code=STOPPED)
        self.assertEqual(run.temporary(), [])
        self.assertEqual(run.steps(), list(range(1, end + 1)))
        self.assertIn(end, run.checkpoints())
        self.assertLessEqual(len(run.checkpoints()), 2)
        config, whole = self.config(**dict(self.CHANGES, checkpoint__every=0))
        self.run_program("train", config, "--stop-at", str(end), ranks=ranks, code=STOPPED)
        self.assert_same_tensors(run.checkpoint(end), whole.checkpoint(end))

    def test_one_rank(self):
        for asynchronous in (True, False):
            with self.subTest(asynchronous=asynchronous):
                config, run, last = self.kill_and_resume(1, asynchronous, seed=11)
                self.check_end(config, run, last, ranks=1)

    def test_two_ranks(self):
        config, run, last = self.kill_and_resume(2, True, seed=12)
        self.check_end(config, run, last, ranks=2)

    def test_what_a_writer_left_behind_is_removed(self):
        config, run = self.stopped_run(2, train__steps=4)
        shutil.copytree(run.checkpoint(2), run.path / "checkpoints" / ".tmp-step-00000003")
        unlisted = run.checkpoint(3)
        shutil.copytree(run.checkpoint(2), unlisted)
        (unlisted / "checksums.json").unlink()
        result = self.run_program("train", config, "--resume")
        self.assertIn(f"resumed from {run.checkpoint(2)}", result.out)
        self.assertEqual(run.temporary(), [])


class Signals(CliTest):
    """A request to stop ends the run at a step, with a checkpoint and exit code 75."""

    def check_stopped(self, config, run, result, ranks):
        if ranks > 1:
            self.assertEqual(result.rank_codes, dict.fromkeys(range(ranks), STOPPED), result)
        self.assertRegex(result.out, r"stopped at step \d+ with a checkpoint")
        last = run.steps()[-1]
        self.assertEqual(run.checkpoints(), [last])
        self.assertEqual(run.temporary(), [])
        self.run_program("train", config, "--resume", "--stop-at", str(last + 1), ranks=ranks, code=STOPPED)
        self.assertEqual(run.steps(), list(range(1, last + 2)))

    def test_one_process(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            with self.subTest(signal=number.name):
                config, run = self.config(train__steps=LONG, valid__every=0)
                job = self.start("train", config)
                self.wait_for_lines(job, run, 3)
                job.signal(number)
                result = job.wait()
                self.assertEqual(result.code, STOPPED, result)
                self.check_stopped(config, run, result, ranks=1)

    def test_mpirun(self):
        # mpirun passes USR1 on; INT and TERM end the job, with TERM to the ranks and time to answer it.
        for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number.name):
                config, run = self.config(train__steps=LONG, valid__every=0)
                job = self.start("train", config, ranks=2, mpi={"patience": 10})
                self.wait_for_lines(job, run, 3)
                job.signal(number)
                result = job.wait()
                if number == signal.SIGUSR1:
                    self.assertEqual(result.code, STOPPED, result)
                self.check_stopped(config, run, result, ranks=2)

    def test_before_the_first_step(self):
        config, run = self.config(train__steps=LONG)
        job = self.start("train", config)
        self.wait_for_directory(job, run)
        job.signal(signal.SIGTERM)
        result = job.wait()
        self.assertEqual(result.code, STOPPED, result)
        self.assertEqual(len(run.checkpoints()), 1)

    def test_other_commands_end_at_once(self):
        _, run = self.stopped_run(1, train__steps=2)
        job = self.start("generate", run.checkpoint(1), "--tokens", LONG, "--temperature", "5", "--top-k", "0")
        wait_until(lambda: job.ranks(1))
        job.signal(signal.SIGTERM)
        self.assertIn(job.wait().code, (128 + signal.SIGTERM, -signal.SIGTERM))

    def wait_for_directory(self, job, run):
        while job.running() and not run.path.exists():
            time.sleep(0.001)


if __name__ == "__main__":
    unittest.main(verbosity=2)
