"""Stragglers on an emulated cluster: a throttled node and a slow rank are named, in steps and not in seconds, and nobody else."""

import hashlib
import os
import pathlib
import re
import signal
import sys
import threading
import time
import unittest

import namespaces
from harness import CliTest
from job import PROGRAM, STOPPED, program_processes, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "cluster" / "emulate.sh"
# Of this checkout's own, as emulate_test.py's.
NAME = "cartesian-strag" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
SENTENCE = re.compile(r"^step (\d+): straggler: (rank|node) (\d+) \(node\d+\)(:| computes)", re.MULTILINE)
GONE = re.compile(r"^step (\d+): straggler: (rank|node) (\d+) .* as fast as the others again$", re.MULTILINE)
# Prints the answer, whatever its status.
ASK = """
import http.client, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
connection.request("GET", url.path)
print(connection.getresponse().read().decode())
"""
SETTLED = 20  # steps, after which the first ones are forgotten
SOON = 10  # steps from a disturbance to its sentence
ENOUGH = 40  # steps: far more than it takes


class DutyCycle:
    """Lets a process run for one part of the time in six: what a slow processor looks like."""

    def __init__(self, pid):
        self.pid = pid
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.over.is_set():
            os.kill(self.pid, signal.SIGSTOP)
            time.sleep(0.04)
            os.kill(self.pid, signal.SIGCONT)
            time.sleep(0.008)

    def stop(self):
        self.over.set()
        self.thread.join()


@unittest.skipIf(namespaces.missing(), f"needs root and network namespaces: {namespaces.missing()}")
class EmulatedStragglers(CliTest):
    @classmethod
    def setUpClass(cls):
        os.environ["CARTESIAN_CLUSTER"] = NAME
        super().setUpClass()

    def setUp(self):
        self.emulate("down")
        self.addCleanup(self.emulate, "down")

    def emulate(self, *words):
        result = self.start_command(["bash", SCRIPT, *words]).wait()
        self.assertEqual(result.code, 0, result)

    def start_training(self, ranks_a_node, **changes):
        """On four nodes, for as long as the test wants, past its first steps."""
        settings = dict(train__steps=100000, valid__every=0, parallel__threads=1, scheduler__enabled=True,
                        scheduler__address="0.0.0.0")
        config, run = self.config(**{**settings, **changes})
        job = self.start_command(["bash", SCRIPT, "run", "4", ranks_a_node, "--", PROGRAM, "train", config])
        self.wait_for_lines(job, run, SETTLED)
        return job, run

    def steps(self, run):
        return run.lines()  # one a step

    def wait_for_steps(self, job, run, until, condition):
        """Until `condition` holds, or step `until` is done."""
        wait_until(lambda: not job.running() or self.steps(run) >= until or condition(job.output()))
        self.assertTrue(job.running(), job)

    def named_between(self, job, first, last):
        """(step, kind, number) of the sentences."""
        found = [(int(step), kind, int(number)) for step, kind, number, _ in SENTENCE.findall(job.output())]
        return [one for one in found if first <= one[0] <= last]

    def end(self, job):
        job.signal(signal.SIGUSR1)
        result = job.wait()
        self.assertEqual(result.code, STOPPED, result)

    def test_a_throttled_node_is_named_within_ten_steps(self):
        self.emulate("up", "4")
        job, run = self.start_training("2")
        quiet = self.steps(run) + ENOUGH
        self.wait_for_steps(job, run, quiet, lambda _: False)
        self.assertEqual(self.named_between(job, 0, quiet), [], job.output())
        self.emulate("throttle", "2", "10mbit")
        throttled = self.steps(run)
        self.wait_for_steps(job, run, throttled + ENOUGH, SENTENCE.search)
        named = self.named_between(job, 0, throttled + ENOUGH)
        self.assertEqual([one[1:] for one in named], [("node", 2)], job.output())
        self.assertLessEqual(named[0][0], throttled + SOON)
        self.emulate("throttle", "2", "400mbit")
        healed = self.steps(run)
        self.wait_for_steps(job, run, healed + 2 * ENOUGH, GONE.search)
        self.assertEqual([(kind, number) for _, kind, number in GONE.findall(job.output())], [("node", "2")], job.output())
        self.end(job)
        self.assertEqual(len(SENTENCE.findall(job.output())), 1, job.output())  # once, not at every step

    def test_ranks_that_do_not_reach_the_coordinator_are_named(self):
        self.emulate("up", "4")
        self.emulate("enter", "0", "--", "ip", "address", "add", "10.99.0.1/32", "dev", "lo")  # no way leads there
        job, run = self.start_training("1", scheduler__address="10.99.0.1", scheduler__heartbeat_s=0.5, scheduler__late_s=1,
                                       metrics__port=0)
        sentence = r"control plane: not heard of yet: rank 1 \(node1\), 2 \(node2\), 3 \(node3\)\. .* at 10\.99\.0\.1 port \d+\?"
        wait_until(lambda: not job.running() or re.search(sentence, job.output()))
        url = (run.path / "metrics_address").read_text().strip().replace("/metrics", "/healthz")
        health = self.start_command(["bash", SCRIPT, "enter", "0", "--", sys.executable, "-c", ASK, url]).wait()
        self.assertEqual(re.findall(r"(?m)^rank (\d) \(node\d\) is absent: ", health.out), ["1", "2", "3"], health)
        self.wait_for_lines(job, run, self.steps(run) + 5)  # training goes on
        self.assertEqual(len(re.findall(sentence, job.output())), 1, job.output())
        self.end(job)

    def test_a_slow_rank_is_named(self):
        self.emulate("up", "4", "--rate", "10gbit")
        job, run = self.start_training("1", model__hidden_size=128, model__intermediate_size=512, train__sequence_length=128,
                                       train__batch_sequences=16, train__micro_batch_sequences=16, exchange__chunks=1,
                                       replan__when="auto", replan__every=SOON)
        slow = DutyCycle(program_processes(job.mark)[1])
        self.addCleanup(slow.stop)
        begun = self.steps(run)
        self.wait_for_steps(job, run, begun + ENOUGH, SENTENCE.search)
        plans = run.path / "plans.jsonl"  # which know of it, too
        self.wait_for_steps(job, run, begun + 2 * ENOUGH, lambda _: '"slow_ranks":[1]' in plans.read_text())
        self.assertIn('"slow_ranks":[1]', plans.read_text())
        slow.stop()
        named = self.named_between(job, 0, begun + ENOUGH)
        self.assertEqual([one[1:] for one in named], [("rank", 1)], job.output())
        self.end(job)


if __name__ == "__main__":
    unittest.main(verbosity=2)
