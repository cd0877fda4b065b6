"""Ranks are killed at random moments, and while experts are on the move: cluster/launch.sh brings every job to the same end."""

import hashlib
import json
import os
import pathlib
import random
import re
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
INTERRUPTIONS = 10 if FULL else 2
# How Open MPI finds the cluster's nodes, as cluster/emulate_job.sh tells it.
OPEN_MPI = {"plm": "rsh", "plm_rsh_agent": f"bash /run/{NAME}-emulated/agent", "plm_rsh_no_tree_spawn": "1", "pml": "ob1",
            "btl": "self,vader,tcp", "mpi_yield_when_idle": "1", "btl_tcp_if_include": "eth0", "oob_tcp_if_include": "eth0",
            "orte_tmpdir_base": f"/run/{NAME}-emulated/tmp"}


class Survival(CliTest):
    def launch_words(self, config, *options):
        return ["bash", LAUNCH, "-n", RANKS, "--max-restarts", KILLS_OF_A_JOB, "--program", PROGRAM, *options, "--", config]

    def kill(self, pid):
        """Whether it still ran."""
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def assert_brought_back(self, job, run):
        """The job ends by itself, well, and leaves no process and no file that was to last only as long as it."""
        result = job.wait(KILLS_OF_A_JOB * TIMEOUT)  # fails on processes that are left
        self.assertEqual(result.code, 0, result)
        self.assertEqual(run.temporary(), [], result)
        self.assertEqual([path.name for path in run.path.parent.glob(".launch-*")], [], result)
        return result


@unittest.skipIf(namespaces.missing(), f"needs root and network namespaces: {namespaces.missing()}")
class EmulatedSurvival(Survival):
    CHANGES = dict(train__steps=400, train__seed=11, checkpoint__every=20, valid__every=0, comm__timeout_s=20)
    # Node 0's address, in every emulated cluster.
    WATCHED = dict(CHANGES, scheduler__enabled=True, scheduler__address="10.77.0.1", metrics__port=0)

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
        return self.start_command(["bash", EMULATE, "enter", 0, "--", "env", *settings,
                                   *self.launch_words(config, "--hosts", self.hosts)])

    def kill_some_rank(self, job, draw, killed):
        """SIGKILL to a rank that was not `killed` yet, within a third of the time that a job takes: while it starts, trains or
        saves. Returns whether there was one."""
        wait_until(lambda: not job.running() or set(program_processes(job.mark).values()) - killed)
        time.sleep(draw.uniform(0, self.whole_s / 3))
        victims = sorted(pid for pid in program_processes(job.mark).values() if pid not in killed)
        if not victims:
            return False
        if not self.kill(draw.choice(victims)):
            return False
        killed |= set(victims)  # the others of this start end for the same reason
        return True

    def assert_survives(self, whole, seed, most):
        """Kills ranks of one job, at most so many. Returns how many, and how often the job was brought back."""
        print(f"seed {seed}", flush=True)
        targets = self.new_folder("targets-")
        config, run = self.config(**self.WATCHED, metrics__discovery_file=str(targets / "run.json"))
        job = self.launch(config)
        draw, killed, kills = random.Random(seed), set(), 0
        while kills < most and job.running():
            kills += self.kill_some_rank(job, draw, killed)
        result = self.assert_brought_back(job, run)
        self.assertEqual(run.losses(), whole.losses(), result)
        self.assert_same_tensors(run.checkpoint(run.checkpoints()[-1]), whole.checkpoint(whole.checkpoints()[-1]))
        self.assertIn("metrics: http://", result.out)
        self.assertEqual(list(targets.iterdir()), [], result)
        self.assertFalse((run.path / "metrics_address").exists(), result)
        return kills, result.err.count(": restart ")

    def test_kills_at_random_moments(self):
        """All jobs but the one that nobody kills have the control plane, which changes no bit."""
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


class Migrations(Survival):
    """Four ranks that say they are on two nodes, with a link between them so slow that moving experts always pays; one expert
    moves a step. Checkpoints come faster than plans, so that every start gets further than the one before."""

    CHANGES = dict(train__steps=50, train__learning_rate=1e-5, train__min_learning_rate=1e-5, checkpoint__every=3,
                   valid__every=0, model__num_experts=32, comm__timeout_s=20, parallel__node_sizes=[2, 2],
                   exchange__flow="pivot")

    def replanning(self):
        topology = self.new_folder() / "cluster.toml"
        topology.write_text("nodes = 2\nranks_per_node = 2\n[inter]\nbandwidth_gb_s = 0.0001\nlatency_us = 1\n")
        return self.config(**self.CHANGES, replan__when="every", replan__every=4, replan__bytes_per_step=1,
                           replan__horizon_steps=1_000_000, replan__time_budget_s=0.01, replan__load_cap=2,
                           replan__topology=str(topology), scheduler__enabled=True, metrics__port=0)

    def interrupt(self, job, run, draw, plans):
        """SIGKILL to some rank within the first half of a plan beyond the first `plans` that are adopted. Returns how many were
        adopted, and whether experts were on the move."""
        def adopted():
            return re.findall(r"step (\d+): a plan with .* to move in (\d+) step", job.output())

        def moved():
            records = map(json.loads, (run.path / "plans.jsonl").read_text().split("\n")[:-1])
            return sum("moved_bytes" in record and record["step"] >= step for record in records)

        wait_until(lambda: not job.running() or len(adopted()) > plans)
        if len(adopted()) <= plans:
            return plans, False
        step, portions = map(int, adopted()[-1])
        until = draw.randint(0, portions // 2)
        wait_until(lambda: not job.running() or moved() >= until)
        victims = list(program_processes(job.mark).values())
        if not victims or not self.kill(draw.choice(victims)):
            return len(adopted()), False
        done = moved()
        print(f"killed after {done} of {portions} portions", flush=True)
        return len(adopted()), done < portions

    def assert_survives(self, whole, seed, most):
        """As EmulatedSurvival's; returns how many moves were interrupted."""
        config, run = self.replanning()
        job = self.start_command(self.launch_words(config))
        draw, plans, kills, interrupted = random.Random(seed), 0, 0, 0
        while job.running() and interrupted < most and kills < KILLS_OF_A_JOB:
            plans, moving = self.interrupt(job, run, draw, plans)
            kills, interrupted = kills + 1, interrupted + moving
        result = self.assert_brought_back(job, run)
        self.assert_close_losses(run.losses(), whole.losses(), 1e-5)
        placement = run.path / "placement.json"
        json.loads(placement.read_text())
        self.assertIn(f"experts are where {placement} has them", result.out, result)
        self.assertNotIn("experts are where parallel.placement", result.out, result)  # as where one cannot be used
        return interrupted

    def test_kills_while_experts_move(self):
        config, whole = self.config(**self.CHANGES)
        self.run_program("train", config, ranks=RANKS)
        interrupted = 0
        for seed in range(INTERRUPTIONS + 2):  # a kill may come too late
            interrupted += self.assert_survives(whole, seed, INTERRUPTIONS - interrupted)
            if interrupted == INTERRUPTIONS:
                return
        self.fail(f"only {interrupted} moves were interrupted")


if __name__ == "__main__":
    unittest.main(verbosity=2)
