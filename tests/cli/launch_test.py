"""cluster/launch.sh: a job that fails comes back from its last checkpoint, one that cannot work or was stopped does not."""

import os
import pathlib
import shutil
import signal
import subprocess
import unittest

from harness import CliTest
from job import PROGRAM, STOPPED, marked_processes, program_processes, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "cluster" / "launch.sh"
LONG = 100000  # steps: more than any test waits for


class LaunchTest(CliTest):
    CHANGES = dict(train__steps=60, checkpoint__every=10, valid__every=0, comm__timeout_s=20)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.temporary = cls.new_folder("tmp-")
        before = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = str(cls.temporary)
        cls.addClassCleanup(lambda: os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before))

    def start_launch(self, config, *options, settings=(), ranks=2, program=PROGRAM):
        return self.start_command(["bash", SCRIPT, "-n", ranks, "--program", program, *options, "--", config, *settings])

    def ended(self, job, code):
        """The job's result, once it has ended with `code` and left nothing behind: wait() fails on processes."""
        result = job.wait()
        self.assertEqual(result.code, code, result)
        self.assertEqual([path.name for path in self.temporary.iterdir() if not path.name.startswith("ompi.")], [])
        self.assertEqual([str(path) for path in self.folder.glob("run-*/.launch-*")], [])
        return result

    def said(self, result):
        """The script's sentences."""
        return [line for line in result.err.splitlines() if line.startswith("launch.sh: ")]

    def program(self, text):
        """A program that does what the shell says in `text` instead of training."""
        path = self.new_folder("program-") / "program"
        path.write_text(f'#!/bin/sh\ncase "$*" in *--keys*) exec "{PROGRAM}" "$@" ;; esac\n{text}\n')
        path.chmod(0o755)
        return path

    def kill_rank(self, job, run, rank, ranks, step):
        """SIGKILL to one rank, once `step` is done."""
        wait_until(lambda: not job.running() or run.lines() >= step)
        victims = program_processes(job.mark)
        self.assertEqual(sorted(victims), list(range(ranks)))
        os.kill(victims[rank], signal.SIGKILL)


class Restarts(LaunchTest):
    def test_a_killed_rank_does_not_show_in_the_result(self):
        changes = dict(self.CHANGES, train__steps=600, checkpoint__every=50)
        config, whole = self.config(**changes)
        self.run_program("train", config, ranks=2)
        config, run = self.config(**changes)
        job = self.start_launch(config)
        wait_until(lambda: not job.running() or run.checkpoints())
        self.kill_rank(job, run, 1, 2, 1)
        wait_until(lambda: not job.running() or "resumed from" in job.output())
        self.kill_rank(job, run, 0, 2, run.lines() + 5)
        result = self.ended(job, 0)
        sentences = self.said(result)
        self.assertEqual(len(sentences), 4, result)
        for rank, happened, next_start in zip((1, 0), sentences[::2], sentences[1::2]):
            self.assertRegex(happened, rf"rank {rank} was ended by signal 9 \(KILL\), at step \d+$")
            self.assertRegex(next_start, r"restart [12] of 3, on 2 ranks, from the checkpoint of step \d+$")
        self.assertEqual(run.losses(), whole.losses())
        self.assert_same_tensors(run.checkpoint(600), whole.checkpoint(600))
        self.assertEqual(run.temporary(), [])

    def test_mpirun_itself_is_killed(self):
        """The next start waits until the ranks have let go of the run."""
        config, run = self.config(**dict(self.CHANGES, train__steps=400))
        job = self.start_launch(config)
        self.wait_for_lines(job, run, 5)
        for process in marked_processes(job.mark):
            if pathlib.Path(f"/proc/{process}/comm").read_text().strip() in ("mpirun", "orterun"):
                os.kill(process, signal.SIGKILL)
        result = self.ended(job, 0)
        self.assertEqual(sum(": restart " in line for line in self.said(result)), 1, result)
        self.assertEqual(run.steps(), list(range(1, 401)))

    def test_max_restarts(self):
        config, run = self.config(**dict(self.CHANGES, train__steps=LONG))
        job = self.start_launch(config, "--max-restarts", "0")
        self.kill_rank(job, run, 1, 2, 12)
        result = self.ended(job, 128 + signal.SIGKILL)
        self.assertRegex(self.said(result)[-1], r"giving up after 0 restarts \(--max-restarts 0\)")

    def test_no_progress(self):
        config, _ = self.config(**self.CHANGES)
        result = self.ended(self.start_launch(config, "--max-restarts", "9", program=self.program("kill -9 $$")),
                            128 + signal.SIGKILL)
        self.assertEqual(sum(": restart " in line for line in self.said(result)), 3, result)
        self.assertRegex(self.said(result)[-1], "giving up: 3 restarts brought it no further than step 0")

    def test_an_error_before_the_step_where_the_run_was_killed(self):
        """Every rank ends with 1, after steps that are in metrics.jsonl from before: not a refused configuration."""
        config, run = self.config(**self.CHANGES)
        self.run_program("train", config, "--stop-at", "35", ranks=2, code=STOPPED)
        shutil.rmtree(run.checkpoint(35))
        self.assertEqual(run.checkpoints()[-1], 30)
        failing = self.program(f'''[ -e "$0.again" ] && exec "{PROGRAM}" "$@"
"{PROGRAM}" "$@" --stop-at 32
rm -rf "{run.checkpoint(32)}"
[ "$OMPI_COMM_WORLD_RANK" != 0 ] || : >"$0.again"
exit 1''')
        result = self.ended(self.start_launch(config, program=failing), 0)
        self.assertRegex("\n".join(self.said(result)),
                         r"ended with exit code 1, at step 32\n.*restart 1 of 3, on 2 ranks, from the checkpoint of step 30$")
        self.assertEqual(run.steps(), list(range(1, 61)))

    def test_fewer_ranks(self):
        """A host that does not answer, and too few slots on the other."""
        config, run = self.config(**self.CHANGES)
        hosts = self.new_folder() / "hosts"
        hosts.write_text("localhost slots=2\nhost.invalid slots=2\n")
        job = self.start_launch(config, "--hosts", hosts, "--min-ranks", "2", ranks=4)
        result = self.ended(job, 0)
        self.assertRegex("\n".join(self.said(result)),
                         "(?s)could not start 4 ranks.*no answer from host.invalid.*restart 1 of 3, on 2 ranks")
        self.assertEqual(run.steps()[-1], 60)
        job = self.start_launch(config, "--hosts", hosts, "--min-ranks", "3", ranks=4)
        result = job.wait()
        self.assertNotEqual(result.code, 0)
        self.assertRegex(self.said(result)[-1], "giving up: slots for 2 ranks are left, and --min-ranks is 3")


class NoRestart(LaunchTest):
    def test_configuration_that_cannot_work(self):
        config, _ = self.config(**self.CHANGES)
        for settings in (("--set", "train.stepz=3"), ("--set", "data.train=nowhere")):
            with self.subTest(settings):
                result = self.ended(self.start_launch(config, settings=settings), 1)
                self.assertRegex(self.said(result)[0], "every rank refused to start with exit code 1: not restarted")
                self.assertEqual(len(self.said(result)), 1, result)
                self.assert_one_sentence(result)
        for words in ((self.folder / "nowhere.toml",), (config, "--no-such-option")):
            with self.subTest(words):
                result = self.ended(self.start_launch(*words[:1], settings=words[1:]), 2 if words[1:] else 1)
                self.assertEqual(len(self.said(result)), 1, result)

    def test_discovery_is_a_setting_of_the_run(self):
        config, _ = self.config(**self.CHANGES)
        result = self.ended(self.start_launch(config, "--discovery", "targets/x.json", program=self.program('echo "$@"')), 0)
        self.assertIn("--set metrics.discovery_file=targets/x.json", result.out)

    def test_output_to_a_file_has_no_line_that_is_drawn_again(self):
        config, _ = self.config(**self.CHANGES)
        result = self.ended(self.start_launch(config, settings=("--set", "x=y"), program=self.program('echo "$@"')), 0)
        self.assertRegex(result.out, r"train \S+ --set run\.progress=plain --set x=y --resume")  # the user's come later, and win

    def test_cores_are_the_machines_and_not_openmps(self):
        words = ["bash", SCRIPT.with_name("mpirun.sh"), "--cores"]
        cores = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        limited = dict(os.environ, OMP_NUM_THREADS="1", OMP_THREAD_LIMIT="1")
        self.assertEqual(subprocess.run(words, env=limited, capture_output=True, text=True, check=True).stdout, cores)

    def test_the_ranks_code_counts_and_not_mpiruns(self):
        config, _ = self.config(**self.CHANGES)
        self.ended(self.start_launch(config, program=self.program("exit 0")), 0)
        result = self.ended(self.start_launch(config, program=self.program("exit 75")), STOPPED)
        self.assertEqual(self.said(result), [])

    def test_stopped(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            with self.subTest(number.name):
                config, run = self.config(**dict(self.CHANGES, train__steps=LONG, checkpoint__every=0))
                job = self.start_launch(config)
                self.wait_for_lines(job, run, 3)
                job.signal(number)
                result = self.ended(job, STOPPED)
                self.assertEqual(self.said(result), [], result)
                self.assertEqual(run.checkpoints(), run.steps()[-1:])

    def test_stopped_between_two_starts(self):
        config, _ = self.config(**self.CHANGES)
        job = self.start_launch(config, "--max-restarts", "9", program=self.program("kill -9 $$"))
        wait_until(lambda: not job.running() or b": restart 2" in (job.files / "err").read_bytes())
        job.signal(signal.SIGTERM)
        result = job.wait()
        self.assertNotEqual(result.code, 0)
        self.assertLess(sum(": restart " in line for line in self.said(result)), 4, result)

    def test_what_cannot_be_understood(self):
        self.assertIn("usage: ", self.start_command(["bash", SCRIPT, "--help"]).wait().out)
        for options in ((), ("-n", "0", "--", "x"), ("--max-restarts", "x", "--", "x"), ("--min-ranks", "1", "--", "x"),
                        ("-n", "2", "--min-ranks", "3", "--", "x")):
            with self.subTest(options):
                self.assertEqual(self.start_command(["bash", SCRIPT, *options]).wait().code, 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
