"""Ranks of an emulated cluster are killed at random moments: cluster/launch.sh brings every job to the same end."""

import hashlib
import os
import pathlib
import random
import signal
import time
import unittest

import namespaces
from harness import CliTest
from job import PROGRAM, TIMEOUT, program_processes, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
EMULATE = ROOT / "cluster" / "emulate.sh"
LAUNCH = ROOT / "cluster" / "launch.sh"
# A name of this checkout's own: neither a user's cluster nor another checkout's test is disturbed.
NAME = "cartesian-survival" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
NODES, RANKS = 2, 4
FULL = bool(os.environ.get("CARTESIAN_FULL"))
KILLS = 50 if FULL else 2
KILLS_OF_A_JOB = 5  # at most
# How Open MPI finds the cluster's nodes, as cluster/emulate_job.sh tells it.
OPEN_MPI = {"plm": "rsh", "plm_rsh_agent": f"bash /run/{NAME}-emulated/agent", "plm_rsh_no_tree_spawn": "1", "pml": "ob1",
            "btl": "self,vader,tcp", "mpi_yield_when_idle": "1", "btl_tcp_if_include": "eth0", "oob_tcp_if_include": "eth0",
            "orte_tmpdir_base": f"/run/{NAME}-emulated/tmp"}


@unittest.skipIf(namespaces.missing(), f"needs root and network namespaces: {namespaces.missing()}")
class EmulatedSurvival(CliTest):
    CHANGES = dict(train__steps=400, train__seed=11, checkpoint__every=20, valid__every=0, comm__timeout_s=20)

    @classmethod
    def setUpClass(cls):
        os.environ["CARTESIAN_CLUSTER"] = NAME
        super().setUpClass()
        cls.addClassCleanup(cls.emulate, "down")
        cls.emulate("up", NODES)
        cls.hosts = cls.folder / "hosts"
        cls.hosts.write_text("".join(f"node{node} slots={RANKS // NODES}\n" for node in range(NODES)))

    @classmethod
    def emulate(cls, *words):
        result = cls.start_command(["bash", EMULATE, *words]).wait()
        if result.code != 0:
            raise AssertionError(result)

    def launch(self, config):
        """The job that a user of node 0 starts."""
        settings = [f"OMPI_MCA_{key}={value}" for key, value in OPEN_MPI.items()]
        return self.start_command(["bash", EMULATE, "enter", 0, "--", "env", *settings, "bash", LAUNCH, "-n", RANKS, "--hosts",
                                   self.hosts, "--max-restarts", KILLS_OF_A_JOB, "--program", PROGRAM, "--", config])

    def kill_some_rank(self, job, draw, killed):
        """SIGKILL to a rank that was not `killed` yet, within a third of the time that a job takes: while it starts, trains or
        saves. Returns whether there was one."""
        wait_until(lambda: not job.running() or set(program_processes(job.mark).values()) - killed)
        time.sleep(draw.uniform(0, self.whole_s / 3))
        victims = sorted(pid for pid in program_processes(job.mark).values() if pid not in killed)
        if not victims:
            return False
        victim = draw.choice(victims)
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            return False
        killed |= set(victims)  # the others of this start end for the same reason
        return True

    def assert_survives(self, whole, seed, most):
        """Kills ranks of one job, at most so many. Returns how many, and how often the job was brought back."""
        print(f"seed {seed}", flush=True)
        config, run = self.config(**self.CHANGES)
        job = self.launch(config)
        draw, killed, kills = random.Random(seed), set(), 0
        while kills < most and job.running():
            kills += self.kill_some_rank(job, draw, killed)
        result = job.wait(KILLS_OF_A_JOB * TIMEOUT)  # fails on processes that are left
        self.assertEqual(result.code, 0, result)
        self.assertEqual(run.losses(), whole.losses(), result)
        self.assert_same_tensors(run.checkpoint(run.checkpoints()[-1]), whole.checkpoint(whole.checkpoints()[-1]))
        self.assertEqual(run.temporary(), [], result)
        self.assertEqual([path.name for path in run.path.parent.glob(".launch-*")], [], result)
        return kills, result.err.count(": restart ")

    def test_kills_at_random_moments(self):
        config, whole = self.config(**self.CHANGES)
        begin = time.monotonic()
        self.assertEqual(self.launch(config).wait().code, 0)
        self.whole_s = time.monotonic() - begin
        self.assertEqual(whole.checkpoints()[-1], self.CHANGES["train__steps"])
        kills, restarts = 0, 0
        seed = 0
        while kills < KILLS:
            more = self.assert_survives(whole, seed, min(KILLS - kills, KILLS_OF_A_JOB))
            kills, restarts = kills + more[0], restarts + more[1]
            seed += 1
        print(f"{seed} jobs, {kills} ranks killed, {restarts} restarts", flush=True)
        self.assertGreater(restarts, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
