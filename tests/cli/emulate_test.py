"""cluster/emulate.sh: an emulated cluster carries bytes at its rates, runs jobs, and leaves nothing behind."""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import unittest

import namespaces
from harness import CliTest
from job import PROGRAM, STOPPED

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "cluster" / "emulate.sh"
SUBCOMMANDS = ("up", "run", "enter", "throttle", "cut", "heal", "bytes", "down")
# A name of this checkout's own: neither a user's cluster nor another checkout's test is disturbed.
NAME = "cartesian-test" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]

# One node sends so many bytes to the other, which answers at the end; prints the seconds that this took.
RECEIVE = """
import socket
with socket.create_server(("", 5000)) as server:
    print("ready", flush=True)
    connection = server.accept()[0]
    while connection.recv(1 << 16): pass
    connection.sendall(b"x")
"""
SEND = """
import socket, sys, time
start = time.monotonic()
with socket.create_connection((sys.argv[1], 5000)) as connection:
    connection.sendall(bytes(int(sys.argv[2])))
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b"x"
print(time.monotonic() - start)
"""
DATAGRAM = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(bytes(1000), ('node1', 5001))"


def traces():
    """What is there of the test's cluster: namespaces and files."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    spaces = [line.split()[0] for line in listed.splitlines() if line.startswith(NAME + "-")]
    return spaces + [str(path) for path in pathlib.Path("/run").glob(NAME + "*")]


def links():
    """Links of the machine's own network."""
    return sorted(path.name for path in pathlib.Path("/sys/class/net").iterdir())


class EmulateTest(CliTest):
    @classmethod
    def setUpClass(cls):
        os.environ["CARTESIAN_CLUSTER"] = NAME
        super().setUpClass()

    @classmethod
    def start_emulate(cls, *words):
        return cls.start_command(["bash", SCRIPT, *words])

    def emulate(self, *words, code=0):
        result = self.start_emulate(*words).wait()
        self.assertEqual(result.code, code, result)
        return result


class Usage(EmulateTest):
    """What can be said without making a cluster."""

    def path_with(self, **programs):
        """A PATH that has what the script starts with, and `programs`, shell scripts by name."""
        folder = self.new_folder("path-")
        for name in ("bash", "realpath", "uname", "id", "cat", "tail"):
            (folder / name).symlink_to(shutil.which(name))
        for name, text in programs.items():
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        return folder

    def says(self, path, *words):
        """The sentence with which the script fails."""
        result = subprocess.run([shutil.which("bash"), SCRIPT, *words], env=dict(os.environ, PATH=str(path)),
                                capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 1, result)
        self.assertEqual(len(result.stderr.splitlines()), 1, result)
        return result.stderr

    def test_help_has_examples(self):
        self.assertIn("usage: ", self.emulate("--help").out)
        for subcommand in SUBCOMMANDS:
            with self.subTest(subcommand):
                text = self.emulate(subcommand, "--help").out
                self.assertIn("usage: cluster/emulate.sh ", text)
                self.assertRegex(text, rf"Examples?:\s+cluster/emulate.sh {subcommand}|\n +cluster/emulate.sh {subcommand}")

    def test_what_is_missing_is_named(self):
        job = ("run", "2", "2", "--", "sleep", "1")
        programs = dict(id="echo 0")
        self.assertRegex(self.says(self.path_with(id="echo 1000"), *job), "needs root")
        self.assertRegex(self.says(self.path_with(**programs), *job), "needs ip: install iproute2")
        programs.update(ip="exit 1", tc="", flock="", unshare="")
        self.assertRegex(self.says(self.path_with(**programs), *job), "needs Open MPI's mpirun")
        self.assertRegex(self.says(self.path_with(**programs, mpirun=""), *job), "`ip netns`")


@unittest.skipIf(namespaces.missing(), f"needs root and network namespaces: {namespaces.missing()}")
class ClusterTest(EmulateTest):
    def setUp(self):
        self.links = links()
        self.addCleanup(self.assert_nothing_is_left)
        self.addCleanup(self.emulate, "down")
        self.emulate("down")  # what a killed test has left

    def assert_nothing_is_left(self):
        self.assertEqual(traces(), [])
        self.assertEqual(links(), self.links)

    def bytes(self):
        return json.loads(self.emulate("bytes", "--json").out)

    def enter(self, node, *words):
        return self.emulate("enter", node, "--", *words).out

    def train(self, nodes, ranks, **changes):
        """Starts training; returns the job and the run."""
        config, run = self.config(valid__every=0, **changes)
        return self.start_emulate("run", nodes, ranks, "--", PROGRAM, "train", config), run

    def start_long(self, **changes):
        """Training that goes on until something ends it, once it has begun."""
        job, run = self.train("2", "2", train__steps=100000, **changes)
        self.wait_for_lines(job, run, 2)
        return job, run


class EmulatedNetwork(ClusterTest):
    def send(self, sender, receiver, count):
        """Sends, and returns the bytes that the receiver's link has carried, and the seconds that it took at most."""
        before = self.bytes()
        server = self.start_emulate("enter", receiver, "--", sys.executable, "-c", RECEIVE)
        while server.running() and "ready" not in server.output():
            time.sleep(0.01)
        seconds = float(self.enter(sender, sys.executable, "-c", SEND, receiver, str(count)))
        self.assertEqual(server.wait().code, 0)
        after = self.bytes()
        sent, received = (after[int(node[-1])][key] - before[int(node[-1])][key]
                          for node, key in ((sender, "sent_bytes"), (receiver, "received_bytes")))
        self.assertGreaterEqual(received, count)
        self.assertGreaterEqual(sent, received)  # what a full queue drops is sent again
        return received, seconds

    def assert_limited(self, sender, receiver, rate, count=3_000_000):
        """No more than the rate (bytes/s) allows has passed in the time that was measured, and in two full buckets."""
        received, seconds = self.send(sender, receiver, count)
        self.assertLess(received, 1.2 * count)
        self.assertLessEqual(received, rate * seconds + 200_000)

    def test_up_bytes_down(self):
        self.emulate("up", "3")
        self.assertEqual([traces().count(f"{NAME}-{part}") for part in ("switch", "node0", "node1", "node2")], [1] * 4)
        self.assertEqual([self.enter(node, "hostname").strip() for node in ("0", "node1", "2")],
                         ["node0", "node1", "node2"])
        idle = {"rate": "400mbit", "link": "up", "sent_bytes": 0, "received_bytes": 0}
        self.assertEqual(self.bytes(), [dict(idle, node=node, host=f"node{node}") for node in range(3)])
        self.assertRegex(self.emulate("bytes").out, r"node2 +400mbit +up +0 +0\n$")
        self.emulate("cut", "3", code=1)
        for _ in range(2):
            self.emulate("down")
            self.assert_nothing_is_left()
        self.assertRegex(self.emulate("bytes", code=1).err, "no cluster is up")

    def test_memory_is_not_shared_between_nodes(self):
        self.emulate("up", "2")
        ours = pathlib.Path("/dev/shm") / NAME
        ours.touch()
        self.addCleanup(ours.unlink)
        self.assertEqual(self.enter("0", "ls", "/dev/shm"), "")
        self.assertNotEqual(self.enter("0", "readlink", "/proc/self/ns/ipc"), os.readlink("/proc/self/ns/ipc") + "\n")

    def test_rates_limit_both_ways(self):
        self.emulate("up", "3", "--rate", "40mbit")
        self.assert_limited("node0", "node1", 5e6)
        self.emulate("throttle", "1", "20mbit")
        self.assertEqual([node["rate"] for node in self.bytes()], ["40mbit", "20mbit", "40mbit"])
        self.assert_limited("node0", "node1", 2.5e6)
        self.assert_limited("node1", "node2", 2.5e6)

    def test_cut_drops_and_heal_restores(self):
        self.emulate("up", "2")
        self.send("node0", "node1", 1000)
        self.emulate("cut", "node1")
        before = self.bytes()
        self.assertEqual([node["link"] for node in before], ["up", "cut"])
        self.enter("0", sys.executable, "-c", DATAGRAM)
        self.assertEqual(self.bytes()[1], before[1])
        self.emulate("heal", "node1")
        self.assertEqual([node["link"] for node in self.bytes()], ["up", "up"])
        self.send("node0", "node1", 1000)

    def test_a_kernel_without_shaping_is_named(self):
        folder = self.new_folder("path-")
        (folder / "tc").write_text("#!/bin/sh\necho 'Error: Specified qdisc kind is unknown.' >&2\nexit 2\n")
        (folder / "tc").chmod(0o755)
        result = self.start_command(["env", f"PATH={folder}:{os.environ['PATH']}", "bash", SCRIPT, "up", "2"]).wait()
        self.assertEqual(result.code, 1, result)
        self.assertRegex(result.err, r"^emulate.sh: .*sch_tbf.*\n$")
        self.assert_nothing_is_left()


class EmulatedJobs(ClusterTest):
    def environment(self, run):
        return json.loads((run.path / "environment.jsonl").read_text())

    def test_training_over_two_nodes(self):
        self.emulate("up", "3")
        job, run = self.train("2", "2", train__steps=20)
        result = job.wait()
        self.assertEqual(result.code, 0, result)
        environment = self.environment(run)
        self.assertEqual(environment["node_sizes"], [2, 2])
        self.assertEqual([host["host"] for host in environment["hosts"]], ["node0", "node1"])
        losses = run.losses()
        self.assertLess(losses[20], 0.8 * losses[1])
        counted = self.bytes()
        self.assertGreater(counted[0]["sent_bytes"], 100_000)
        self.assertGreater(counted[1]["sent_bytes"], 100_000)
        self.assertEqual(counted[2]["sent_bytes"], 0)

    def test_the_meter_agrees_with_the_kernel(self):
        """What ranks count as they send, and what the links' counters say, headers and all else included."""
        for flow in ("flat", "home", "pivot"):
            with self.subTest(flow=flow):
                self.emulate("up", "2")
                job, run = self.train("2", "2", data__valid=None, exchange__flow=flow, model__hidden_size=256,
                                      train__sequence_length=128, train__batch_sequences=24, train__micro_batch_sequences=24,
                                      train__steps=4)
                self.assertEqual(job.wait().code, 0)
                carried = sum(node["sent_bytes"] for node in self.bytes())
                sent = sum(record.get("inter_bytes", 0) for record in run.records())
                self.assertGreater(sent, 20e6)
                self.assertLessEqual(abs(carried - sent), 0.05 * sent)
                self.emulate("down")

    def test_a_cluster_for_one_job(self):
        job, run = self.train("2", "1,3")
        self.assertEqual(job.wait().code, 0)
        self.assertEqual(self.environment(run)["node_sizes"], [1, 3])
        self.assert_nothing_is_left()
        self.emulate("run", "1", "2", "--", "sh", "-c", "exit 7", code=7)
        self.assertRegex(self.emulate("run", "2", "2", "--", "nowhere/x", code=1).err, "nowhere/x is not a program")
        self.assert_nothing_is_left()

    def test_ranks_know_the_network(self):
        out = self.emulate("run", "2", "1", "--rate", "1gbit", "--", "sh", "-c", "echo $(hostname) $UCX_NET_DEVICES").out
        self.assertEqual(sorted(out.splitlines()), ["node0 eth0", "node1 eth0"])

    def test_throttled_while_it_runs_and_stopped_with_a_checkpoint(self):
        self.emulate("up", "2")
        job, run = self.start_long()
        self.emulate("throttle", "1", "50mbit")
        self.wait_for_lines(job, run, run.lines() + 2)
        job.signal(signal.SIGUSR1)
        self.assertEqual(job.wait().code, STOPPED)
        self.assertEqual(len(run.checkpoints()), 1)

    def test_cut_ends_the_job(self):
        self.emulate("up", "2")
        job, _ = self.start_long(comm__timeout_s=15)
        self.emulate("cut", "1")
        result = job.wait()
        self.assertEqual(result.code, 1, result)
        for sentence in result.errors():
            self.assertRegex(sentence, r"^cartesian: rank [01] \(node0\): .*ranks? \d+ \(node")
        self.assertTrue(any("(node1)" in sentence for sentence in result.errors()), result)
        self.emulate("heal", "1")
        self.emulate("run", "2", "1", "--", "sleep", "1")


class EmulatedLeftovers(ClusterTest):
    """However the script ends, nothing is left, or what is left does not matter."""

    def test_interrupted_while_making(self):
        for number, name in ((signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "TERM")):
            for delay in (0.02, 0.1, 0.3, 0.6):
                with self.subTest(name, delay=delay):
                    job = self.start_emulate("up", "30")
                    time.sleep(delay)
                    os.killpg(job.process.pid, number)
                    self.assertIn(job.wait().code, (128 + number, -number))
                    self.assert_nothing_is_left()

    def test_interrupted_job(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number):
                job, _ = self.start_long()
                job.signal(number)
                self.assertEqual(job.wait().code, 128 + number)
                self.assert_nothing_is_left()

    def test_killed_while_making(self):
        for delay in (0.1, 0.4):
            with self.subTest(delay=delay):
                job = self.start_emulate("up", "30")
                time.sleep(delay)
                os.killpg(job.process.pid, signal.SIGKILL)
                job.wait()
                self.emulate("up", "2")
                self.assertEqual(sum(f"{NAME}-node" in trace for trace in traces()), 2)
                self.emulate("up", "1")
                self.emulate("down")
                self.assert_nothing_is_left()

    def test_killed_job(self):
        """The next job finds neither the cluster that was made for the killed one nor its ranks."""
        job, _ = self.start_long()
        job.signal(signal.SIGKILL)
        job.process.wait()
        self.assertNotEqual(traces(), [])
        self.emulate("run", "1", "1", "--", "sleep", "1")
        job.wait()  # finds no process of it
        self.assert_nothing_is_left()

    def test_a_busy_cluster_is_left_alone(self):
        self.emulate("up", "2")
        job, _ = self.start_long()
        self.assertRegex(self.emulate("up", "1", code=1).err, f"in use by process {job.process.pid}")
        self.assertTrue(job.running())
        self.emulate("down")
        self.assertNotEqual(job.wait().code, 0)
        self.assert_nothing_is_left()


if __name__ == "__main__":
    unittest.main(verbosity=2)
