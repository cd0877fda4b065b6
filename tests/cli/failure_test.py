"""Processes killed and jobs stopped: nothing hangs, nothing is left behind, and the run goes on from its last checkpoint."""

import os
import random
import signal
import time

import support

FULL = "CARTESIAN_FULL" in os.environ


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class FailureTest(support.CliTest):
    STEPS = 40

    def setUp(self):
        super().setUp()
        self.config = self.make_config()

    def arguments(self, name, *options, **values):
        self.run_directory = self.directory / name
        values = {"train_steps": self.STEPS, **values}
        return ["train", self.config, *options, *self.settings(run_dir=self.run_directory, **values)]

    def whole_run(self, ranks):
        self.succeed(*self.arguments("whole", "--resume"), ranks=ranks)
        return self.losses()

    def assert_all_ended(self, pids):
        deadline = time.monotonic() + support.TIMEOUT_S
        while any(map(is_running, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual([pid for pid in pids if is_running(pid)], [], "ranks left behind")

    def test_killed_at_any_moment_loses_no_complete_checkpoint(self):
        expected = self.whole_run(ranks=1)
        # Checkpoints at every other step, so that many kills fall into writing one.
        arguments = self.arguments("killed", "--resume", checkpoint_every=2)
        generator = random.Random(4)
        for _ in range(40 if FULL else 8):
            before = self.checkpoints()
            process = self.start(arguments)
            time.sleep(generator.uniform(0.05, 1.0))
            process.kill()
            self.finish(process)
            self.assertGreaterEqual(self.checkpoints()[-1:], before[-1:])
        self.succeed(*arguments)
        self.assertEqual(self.losses(), expected)

    def test_a_killed_rank_ends_the_job(self):
        expected = self.whole_run(ranks=3)
        arguments = self.arguments("killed", "--resume", checkpoint_every=2)
        process = self.start(arguments, ranks=3)
        self.wait_for_step(process, 5)
        pids = self.children(process)
        self.assertEqual(len(pids), 3)
        os.kill(pids[1], signal.SIGKILL)
        result = self.finish(process)
        self.assertNotEqual(result.code, 0, result)
        self.assertNotEqual(result.code, support.EXIT_STOPPED, result)
        self.assert_all_ended(pids)
        self.succeed(*arguments, ranks=3)
        self.assertEqual(self.losses(), expected)

    def test_a_stopped_rank_runs_into_the_deadline(self):
        process = self.start(self.arguments("stopped", comm_timeout_s=3.0), ranks=2)
        self.wait_for_step(process, 3)
        pids = self.children(process)
        os.kill(pids[1], signal.SIGSTOP)
        result = self.finish(process)
        self.assertNotEqual(result.code, 0, result)
        self.assertRegex(result.stderr, r"rank 0.*rank 1", result)
        self.assert_all_ended(pids)

    def test_usr1_stops_all_ranks_with_a_checkpoint(self):
        expected = self.whole_run(ranks=2)
        process = self.start(self.arguments("stopped"), ranks=2)
        self.wait_for_step(process, 3)
        process.send_signal(signal.SIGUSR1)
        result = self.finish(process)
        self.assertEqual(result.code, support.EXIT_STOPPED, result)
        self.succeed(*self.arguments("stopped", "--resume"), ranks=2)
        self.assertEqual(self.losses(), expected)

    def test_launcher_turns_interrupt_into_a_stop_with_a_checkpoint(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number.name):
                arguments = self.arguments(number.name)
                command = ["bash", support.LAUNCHER, "-n", "2", "--program", support.PROGRAM, "--", *map(str, arguments)]
                process = self.start([], command=command)
                self.wait_for_step(process, 3)
                process.send_signal(number)
                result = self.finish(process)
                self.assertEqual(result.code, support.EXIT_STOPPED, result)
                self.assertEqual(len(self.checkpoints()[-1:]), 1)


if __name__ == "__main__":
    support.main()
