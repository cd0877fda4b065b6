"""Runs that plan their placement anew while they train."""

import json
import re
import unittest
import urllib.request

from harness import CliTest
from job import STOPPED, wait_until


class Replan(CliTest):
    """Four ranks that say they are on two nodes, with a link between them so slow that moving experts pays."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.topology = cls.folder / "cluster.toml"
        cls.write_topology(nodes=2)

    @classmethod
    def write_topology(cls, nodes):
        cls.topology.write_text(f"nodes = {nodes}\nranks_per_node = {4 // nodes}\n[inter]\nbandwidth_gb_s = 0.0001\n"
                                "latency_us = 1\n")

    @classmethod
    def replanning(cls, **changes):
        settings = dict(train__steps=1_000_000, train__learning_rate=1e-5, train__min_learning_rate=1e-5, valid__every=0, model__num_experts=8,
                        parallel__node_sizes=[2, 2], exchange__flow="pivot", replan__when="every", replan__every=5,
                        replan__bytes_per_step=60_000, replan__horizon_steps=1_000_000, replan__time_budget_s=0.01,
                        replan__load_cap=2,  # so that there is always a plan with fewer copies than where experts are
                        replan__topology=str(cls.topology), scheduler__enabled=True)
        return cls.config(**dict(settings, **changes))

    def records(self, run):
        path = run.path / "plans.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def plans(self, run):
        return [record["plan"] for record in self.records(run) if "plan" in record]

    def placement(self, run):
        return json.loads((run.path / "placement.json").read_text())

    def order(self, run, word):
        """As an operator does, but never seen half-written."""
        draft = run.path / "draft"
        draft.write_text(word + "\n")
        draft.rename(run.path / "command")

    def run_until_moved(self):
        """A run that stopped some steps after experts had moved, and its last step."""
        config, run = self.replanning()
        job = self.start("train", config, ranks=4)
        moves = wait_until(lambda: not job.running() or [record["step"] for record in self.records(run)
                                                         if "moved_bytes" in record])
        self.assertTrue(job.running(), "ended before anything had moved")
        wait_until(lambda: not job.running() or run.steps()[-1] >= moves[0] + 5)
        self.order(run, "stop")
        result = job.wait()
        self.assertEqual(result.rank_codes, dict.fromkeys(range(4), STOPPED), result)
        self.assertRegex(result.out, r"step \d+: a plan with -?\d+% fewer copies, \S+ MiB to move in \d+ step")
        self.assertIn("adopted", self.plans(run))
        return config, run, run.steps()[-1]

    def held_out_loss(self, run, step):
        text = self.run_program("eval", run.checkpoint(step), "--data", f"{self.tokens}-valid", "--sequences", "4").out
        return float(re.search(r"(?m)^loss (\S+)$", text).group(1))

    def test_losses_are_those_of_a_run_that_stays(self):
        _, moved, step = self.run_until_moved()
        config, stayed = self.replanning(replan__when="off")
        self.run_program("train", config, "--stop-at", str(step), ranks=4, code=STOPPED)
        self.assertFalse((stayed.path / "placement.json").exists())
        self.assertEqual(self.records(stayed), [])
        self.assert_close_losses(moved.losses(), stayed.losses(), 1e-5)
        self.assert_close(self.held_out_loss(moved, step), self.held_out_loss(stayed, step), 1e-5)
        self.run_program("report", moved.path)

    def test_goes_on_where_experts_were(self):
        config, run, step = self.run_until_moved()
        left = self.placement(run)
        result = self.run_program("train", config, "--resume", "--stop-at", str(step + 6), "--set", "replan.every=1000", ranks=4,
                                  code=STOPPED)
        self.assertIn(f"experts are where {run.path / 'placement.json'} has them", result.out)
        self.assertEqual(self.placement(run), left)
        config, stayed = self.replanning(replan__when="off")
        self.run_program("train", config, "--stop-at", str(step + 6), ranks=4, code=STOPPED)
        self.assert_close_losses(run.losses(), stayed.losses(), 1e-5)

    def test_goes_on_with_fewer_ranks(self):
        config, run, step = self.run_until_moved()
        result = self.run_program("train", config, "--resume", "--stop-at", str(step + 3), "--set", "parallel.node_sizes=[]", "--set",
                                  "replan.topology=''", ranks=2, code=STOPPED)
        self.assertRegex(result.out, r'experts are where parallel.placement = "linear" has them: .*placement.json')
        self.assertEqual(run.steps()[-1], step + 3)

    def test_plans_when_asked(self):
        config, run = self.replanning(replan__when="off", replan__every=3, metrics__port=0)
        job = self.start("train", config, ranks=4)
        self.wait_for_lines(job, run, 2)
        self.order(run, "replan")
        wait_until(lambda: not job.running() or self.plans(run))
        self.assertEqual(self.plans(run), ["adopted"])
        self.wait_for_lines(job, run, run.lines() + 20)
        url = (run.path / "metrics_address").read_text().strip().removesuffix("/metrics")

        def seen():
            with urllib.request.urlopen(f"{url}/placement.json", timeout=30) as answer:
                return json.loads(answer.read())

        placement = wait_until(lambda: not job.running() or (seen() if seen()["plan"] == {"plan_version": 1} else None))
        self.assertEqual(placement["replicas"], self.placement(run)["replicas"])

        def counted():  # by the next report
            with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
                return re.search(r"(?m)^cartesian_plan_version 1$", answer.read().decode())

        self.assertTrue(wait_until(lambda: not job.running() or counted()))
        self.assertTrue(job.running())
        self.order(run, "stop")
        result = job.wait()
        self.assertEqual(result.rank_codes, dict.fromkeys(range(4), STOPPED), result)
        self.assertEqual(self.plans(run), ["adopted"])
        result = self.run_program("train", config, "--resume", "--stop-at", str(run.steps()[-1] + 2), ranks=4, code=STOPPED)
        self.assertIn(f"experts are where {run.path / 'placement.json'} has them", result.out)

    def test_refuses_another_cluster(self):
        config, _ = self.replanning(replan__topology="none.toml")
        self.assert_refused(("train", config), r"none\.toml", "No such file", ranks=4)
        self.write_topology(nodes=4)
        self.addCleanup(self.write_topology, nodes=2)
        config, _ = self.replanning()
        self.assert_refused(("train", config), "replan.topology", "has 4 ranks on 4 nodes, but this job has 4 on 2", ranks=4)


if __name__ == "__main__":
    unittest.main(verbosity=2)
