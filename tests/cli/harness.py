"""What the tests of the command line share: tokens of a tiny corpus, runs of the program, what these must say."""

import os
import pathlib
import re
import shutil
import tempfile
import unittest

from job import PROGRAM, STOPPED, Job, mpirun_command, wait_until
from run import TINY, Run, corpus, read_tensors, toml


class CliTest(unittest.TestCase):
    """A folder for the class, with tokens of a tiny corpus."""

    @classmethod
    def setUpClass(cls):
        if not PROGRAM or not os.access(PROGRAM, os.X_OK):
            raise AssertionError("CARTESIAN_PROGRAM must name the executable")
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="cartesian-cli-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.text = cls.folder / "corpus.txt"
        cls.text.write_text(corpus())
        cls.tokens = cls.folder / "tokens"
        cls.run_program("tokenize", cls.text, "-o", cls.tokens, "--held-out", "0.1", "--document-bytes", "1024")

    @classmethod
    def new_folder(cls, prefix=""):
        """An empty folder inside the class's."""
        return pathlib.Path(tempfile.mkdtemp(dir=cls.folder, prefix=prefix))

    @classmethod
    def copy_tokens(cls):
        """A copy of the tokens, to be damaged: its prefix, and its .bin and .idx file."""
        prefix = cls.new_folder() / "copy"
        paths = [pathlib.Path(f"{prefix}{suffix}") for suffix in (".bin", ".idx")]
        for path in paths:
            shutil.copy(f"{cls.tokens}{path.suffix}", path)
        return prefix, *paths

    @classmethod
    def config(cls, name="config", **changes):
        """Writes a TOML file of TINY with `changes` (section__key) and a run directory of its own; returns both."""
        run = Run(cls.new_folder("run-") / "run")
        settings = dict(TINY, **{"data.train": str(cls.tokens), "data.valid": f"{cls.tokens}-valid",
                                 "run.dir": str(run.path)})
        settings.update({key.replace("__", ".", 1): value for key, value in changes.items()})
        path = run.path.parent / f"{name}.toml"
        path.write_text(toml({key: value for key, value in settings.items() if value is not None}))
        return path, run

    @classmethod
    def start(cls, *words, ranks=1, mpi=None, **limits):
        """Starts the program on `ranks` ranks; one rank is started without mpirun. `mpi`: for mpirun_command()."""
        command = [PROGRAM, *words]
        if ranks > 1:
            command = mpirun_command([(ranks, command)], **(mpi or {}))
        return cls.start_command(command, **limits)

    @classmethod
    def start_command(cls, command, **limits):
        job = Job(command, cls.folder, **limits)
        cls.addClassCleanup(job.kill_all)
        return job

    @classmethod
    def run_program(cls, *words, ranks=1, code=0, **more):
        """Runs to the end, and checks the exit code."""
        result = cls.start(*words, ranks=ranks, **more).wait()
        if result.code != code:
            raise AssertionError(f"exit code {code} was expected\n{result}")
        return result

    @classmethod
    def stopped_run(cls, step, ranks=1, **changes):
        """config(), and a run of it that was stopped at `step`, with a checkpoint."""
        config, run = cls.config(**changes)
        cls.run_program("train", config, "--stop-at", str(step), ranks=ranks, code=STOPPED)
        return config, run

    def wait_for_lines(self, job, run, lines):
        """Until the running `job` has written `lines` lines of metrics.jsonl, one a step and one a validation."""
        wait_until(lambda: not job.running() or run.lines() >= lines)
        if not job.running():
            self.fail(f"ended before it could be disturbed\n{job.wait()}")

    def assert_one_sentence(self, result, *patterns):
        """The program said one thing, once, and each of `patterns` is found in it."""
        self.assertEqual(len(result.errors()), 1, result)
        sentence = result.errors()[0]
        self.assertTrue(sentence.startswith("cartesian: "), result)
        for pattern in patterns:
            self.assertRegex(sentence, pattern)
        self.assertNotIn("terminate called", result.out + result.err, result)

    def assert_refused(self, words, *patterns, ranks=1):
        """The program ends by itself with code 1 on every rank, and says one sentence."""
        result = self.run_program(*words, ranks=ranks, code=1)
        if ranks > 1:
            self.assertEqual(result.rank_codes, dict.fromkeys(range(ranks), 1), result)
        self.assert_one_sentence(result, *patterns)
        return result

    def assert_nothing_is_lost(self, config, run, step, later):
        """The checkpoint of `step` is the only one and good: from it the run goes on, to checkpoints `later`."""
        self.assertEqual(run.checkpoints(), [step])
        self.run_program("eval", run.checkpoint(step), "--data", f"{self.tokens}-valid", "--sequences", "2")
        self.run_program("train", config, "--resume")
        self.assertEqual(run.checkpoints(), later)
        self.assertEqual(run.temporary(), [])

    def assert_same_tensors(self, one, other):
        """Both checkpoints hold the same bits."""
        one, other = read_tensors(one), read_tensors(other)
        self.assertEqual(sorted(one), sorted(other))
        self.assertEqual([name for name in one if one[name] != other[name]], [])

    def assert_close(self, actual, expected, relative):
        self.assertLessEqual(abs(actual - expected), relative * abs(expected), f"{actual} against {expected}")

    def assert_close_losses(self, actual, expected, relative):
        """The same steps, and at every step about the same loss."""
        self.assertEqual(list(actual), list(expected))
        for step, loss in expected.items():
            with self.subTest(step=step):
                self.assert_close(actual[step], loss, relative)


class CheckpointTest(CliTest):
    """Copies of one run that has stopped at step 3 of 4, to be damaged."""

    CHANGES = dict(train__steps=4, checkpoint__every=2)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        _, cls.good = cls.stopped_run(3, **cls.CHANGES)

    def copy(self):
        """A copy of the run and its configuration."""
        config, run = self.config(**self.CHANGES)
        shutil.copytree(self.good.path, run.path)
        return config, run


def number_after(word, text):
    """The number that follows `word` at the start of a line."""
    return float(re.search(rf"^{re.escape(word)} (\S+)$", text, re.MULTILINE).group(1))
