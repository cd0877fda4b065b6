"""cluster/slurm/train.sbatch on a real Slurm: a job trains as under mpirun, is cancelled, and goes on after its time limit."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import unittest
import urllib.request
import uuid

import namespaces
import slurm
from harness import CliTest
from job import MARK, PROGRAM, marked_processes, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "cluster" / "slurm" / "train.sbatch"
FULL = bool(os.environ.get("CARTESIAN_FULL"))
LONG = 100000  # steps: more than any test waits for
# The same learning rate at every step, however many there are.
CHANGES = dict(valid__every=0, train__learning_rate=1e-3, train__warmup_steps=0)


class Usage(unittest.TestCase):
    def script(self, *words):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        return subprocess.run(["bash", SCRIPT, *words], env=environment, capture_output=True, text=True, check=False)

    def test_help_has_examples(self):
        self.assertRegex(self.script("--help").stdout, r"(?s)usage: .*Examples:\n  sbatch ")

    def test_what_cannot_work(self):
        self.assertEqual(self.script().returncode, 2)
        result = self.script("config.toml")
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr, "train.sbatch: this is for sbatch: sbatch cluster/slurm/train.sbatch CONFIG\n")


class SlurmTest(CliTest):
    EMULATED = None  # for Cluster

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.mark = uuid.uuid4().hex
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "OMPI_"))}
        environment.update({MARK: cls.mark, "CARTESIAN_PROGRAM": PROGRAM})
        environment.pop("OMP_NUM_THREADS", None)
        cls.slurm = slurm.Cluster(cls.new_folder("slurm-"), environment, cls.EMULATED)
        cls.addClassCleanup(cls.assert_nothing_is_left)
        cls.addClassCleanup(cls.slurm.stop)
        cls.slurm.start()

    @classmethod
    def assert_nothing_is_left(cls):
        if not wait_until(lambda: not marked_processes(cls.mark), limit=15, required=False):
            raise AssertionError(f"processes were left behind: {marked_processes(cls.mark)}")

    def submit(self, config, *options, ranks=2):
        """Submits a training job; returns its number."""
        out = self.slurm.run("sbatch", "--parsable", "--ntasks", ranks, *options, SCRIPT, config, "--set", "comm.timeout_s=20")
        return out.strip()

    def output(self, number):
        path = self.slurm.folder / f"cartesian-{number}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_for(self, number, condition):
        """Until `condition` holds of the job."""
        try:
            return wait_until(lambda: condition(self.slurm.job(number)))
        except AssertionError:
            self.fail(f"{self.slurm.job(number)}\n{self.output(number)}\n{self.slurm.logs()}")

    def end(self, number):
        """Waits for the job's end; returns its state and its exit code."""
        self.wait_for(number, lambda job: job["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"))
        job = self.slurm.job(number)
        return job["JobState"], job["ExitCode"]

    def ranks(self):
        """Process ids of the ranks that run."""
        found = []
        for process in marked_processes(self.mark):
            try:
                found += [process] if os.readlink(f"/proc/{process}/exe") == os.path.realpath(PROGRAM) else []
            except OSError:
                continue  # it has ended
        return found

    def assert_no_rank_is_left(self):
        self.assertTrue(wait_until(lambda: not self.ranks(), limit=60, required=False), self.ranks())

    def environment(self, run):
        return json.loads((run.path / "environment.jsonl").read_text().splitlines()[-1])

    def start_long(self, *options, ranks=2):
        """A job that goes on until something ends it, once it has begun; its number and its run."""
        config, run = self.config(train__steps=LONG, **CHANGES)
        number = self.submit(config, *options, ranks=ranks)
        self.wait_for(number, lambda job: run.lines() >= 3 or job["JobState"] not in ("PENDING", "RUNNING"))
        return number, run

    def cancel(self, number, run):
        """Slurm gives the ranks time for a checkpoint."""
        self.slurm.run("scancel", number)
        self.assertEqual(self.end(number)[0], "CANCELLED", self.output(number))
        self.assert_no_rank_is_left()
        self.assertEqual(run.checkpoints(), run.steps()[-1:], self.output(number))
        self.assertEqual(self.slurm.job(number)["Restarts"], "0")

    def assert_as_under_mpirun(self, run, steps, **more):
        self.assertEqual(self.environment(run)["ranks"], 2)
        config, whole = self.config(train__steps=steps, **CHANGES, **more)
        self.run_program("train", config, ranks=2)
        self.assertEqual(run.losses(), whole.losses())
        self.assert_same_tensors(run.checkpoint(steps), whole.checkpoint(steps))


@unittest.skipIf(slurm.missing(), f"needs root and Slurm: {slurm.missing()}")
class SlurmJobs(SlurmTest):
    def test_trains_as_under_mpirun(self):
        config, run = self.config(train__steps=8, **CHANGES)
        number = self.submit(config, "--cpus-per-task", "2")
        self.assertEqual(self.end(number), ("COMPLETED", "0:0"), self.output(number))
        self.assertIn(f"train.sbatch: job {number}, start 1, on 2 ranks", self.output(number))
        self.assertIn("threads = 2", (run.path / "config.toml").read_text())
        self.assert_as_under_mpirun(run, 8)

    def test_an_error_is_not_queued_again(self):
        config, _ = self.config(**CHANGES)
        number = self.submit(config, "--signal=B:USR1@120", ranks=3)
        self.assertEqual(self.end(number)[0], "COMPLETED", self.output(number))
        config.write_text(config.read_text() + "\n[nonsense]\nkey = 1\n")
        number = self.submit(config)
        self.assertEqual(self.end(number), ("FAILED", "1:0"), self.output(number))
        self.assertRegex(self.output(number), r"(?m)^cartesian: .*nonsense")
        self.assertEqual(self.slurm.job(number)["Restarts"], "0")

    def test_scancel(self):
        self.cancel(*self.start_long())

    def test_discovery(self):
        """Prometheus finds the job while it runs."""
        found = self.new_folder() / "run.json"
        number, run = self.start_long(f"--export=ALL,CARTESIAN_DISCOVERY={found}")
        (entry,) = json.loads(found.read_text())
        url = f"http://{entry['targets'][0]}/metrics"
        self.assertEqual((run.path / "metrics_address").read_text().strip(), url)
        with urllib.request.urlopen(url, timeout=60) as answer:
            self.assertIn("cartesian_ranks 2\n", answer.read().decode())
        self.cancel(number, run)
        self.assertFalse(found.exists())


@unittest.skipIf(slurm.missing(), f"needs root and Slurm: {slurm.missing()}")
@unittest.skipUnless(FULL, "takes minutes: only with tests/run.sh --full")
class SlowSlurmJobs(SlurmTest):
    def test_a_killed_rank(self):
        number, run = self.start_long()
        os.kill(self.ranks()[1], signal.SIGKILL)
        self.assertEqual(self.end(number)[0], "FAILED", self.output(number))
        self.assert_no_rank_is_left()
        self.assertEqual(run.temporary(), [])
        self.assertEqual(self.slurm.job(number)["Restarts"], "0")

    def test_without_pmix(self):
        """mpirun takes srun's place; a job that was asked to stop by USR1 is queued again."""
        srun = self.new_folder("path-") / "srun"
        srun.write_text(f'#!/bin/sh\n[ "$1" != --mpi=list ] || exec echo none\nexec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)
        option = f"--export=ALL,PATH={srun.parent}:{self.slurm.environment['PATH']}"
        number, run = self.start_long(option)
        self.assertEqual(self.environment(run)["ranks"], 2)
        self.slurm.run("scancel", "--signal=USR1", "--batch", number)
        self.wait_for(number, lambda job: job["Restarts"] == "1" and job["JobState"] == "PENDING")
        self.assertEqual(run.checkpoints(), run.steps()[-1:])
        self.slurm.run("scancel", number)
        self.assertEqual(self.end(number)[0], "CANCELLED")
        self.assert_no_rank_is_left()
        self.cancel(*self.start_long(option))

    def test_time_limit(self):
        """Slurm looks at time limits every half minute, and sends the signal up to a minute early."""
        config, run = self.config(train__steps=LONG, **CHANGES)
        number = self.submit(config, "--time", "1", "--signal=B:USR1@50")
        self.wait_for(number, lambda job: job["Restarts"] == "1" and job["JobState"] == "PENDING")
        self.assertIn("train.sbatch: stopped with a checkpoint; queued again", self.output(number))
        stop = run.steps()[-1]
        self.assertEqual(run.checkpoints(), [stop])
        # Slurm lets the job wait for two minutes, in which the first start is cleared away. The test waits for just that.
        self.assertTrue(wait_until(self.slurm.idle, limit=60, required=False), self.slurm.logs())
        self.assert_no_rank_is_left()
        end = stop + 20
        config.write_text(re.sub(r"(?m)^steps = .*", f"steps = {end}", config.read_text()))
        self.slurm.run("scontrol", "update", f"JobId={number}", "TimeLimit=60", "StartTime=now")
        self.assertEqual(self.end(number), ("COMPLETED", "0:0"), self.output(number) + self.slurm.logs())
        self.assertRegex(self.output(number), rf"start 2, on 2 ranks(?s:.*)resumed from .*step-0*{stop}\b")
        self.assert_as_under_mpirun(run, end)


@unittest.skipIf(slurm.missing() or namespaces.missing(),
                 f"needs root, Slurm and network namespaces: {slurm.missing() or namespaces.missing()}")
@unittest.skipUnless(FULL, "takes minutes: only with tests/run.sh --full")
class EmulatedSlurm(SlurmTest):
    """Two nodes, each with a slurmd and a network of its own."""

    NAME = "cartesian-slurm" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
    EMULATED = (os.environ.get("CARTESIAN_CLUSTER", NAME), 2)

    @classmethod
    def emulate(cls, *words):
        subprocess.run(["bash", ROOT / "cluster" / "emulate.sh", *words], check=True, stdout=subprocess.DEVNULL,
                       env=dict(os.environ, CARTESIAN_CLUSTER=cls.EMULATED[0]))

    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(cls.emulate, "down")
        cls.emulate("up", "2")
        super().setUpClass()

    def test_trains_on_two_nodes_as_under_mpirun(self):
        config, run = self.config(train__steps=8, **CHANGES)
        number = self.submit(config, "--nodes", "2", "--ntasks-per-node", "1")
        self.assertEqual(self.end(number), ("COMPLETED", "0:0"), self.output(number))
        self.assertEqual([host["host"] for host in self.environment(run)["hosts"]], ["node0", "node1"])
        self.assertEqual(self.environment(run)["node_sizes"], [1, 1])
        self.assert_as_under_mpirun(run, 8, parallel__node_sizes=[1, 1])

    def test_scancel_on_two_nodes(self):
        self.cancel(*self.start_long("--nodes", "2", "--ntasks-per-node", "2", ranks=4))


if __name__ == "__main__":
    unittest.main(verbosity=2)
