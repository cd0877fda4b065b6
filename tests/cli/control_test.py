"""A run that is watched and told what to do while it trains."""

import base64
import hashlib
import hmac
import http.server
import json
import os
import re
import socket
import struct
import threading
import unittest
import urllib.request
from unittest import mock

from harness import CliTest
from job import STOPPED, wait_until


class Gateway(http.server.BaseHTTPRequestHandler):
    """Takes what a Pushgateway takes: (path, text) of every push in `pushes`."""

    pushes = []

    def do_PUT(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.pushes.append((self.path, text))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format, *values):
        pass


def answer_to_rank(port, rank, ranks, secret):
    """What the coordinator at `port` says to a process that claims a rank, with a proof by `secret`: the kind of its message
    and the message, as in scheduler/control_messages.h."""
    def text(data):
        return struct.pack("<I", len(data)) + data

    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection, connection.makefile("rb") as stream:
        def send(kind, payload):
            connection.sendall(text(bytes([kind]) + payload))

        def receive():
            frame = stream.read(struct.unpack("<I", stream.read(4))[0])
            return frame[0], frame[1:]

        hello = struct.pack("<BiiQq", 2, rank, ranks, 7, os.getpid()) + text(b"elsewhere") + bytes(32)
        send(1, hello)
        _, nonce = receive()
        send(3, hmac.digest(bytes.fromhex(secret), text(b"agent") + text(hello) + nonce, hashlib.sha256))
        return receive()


class Control(CliTest):
    LONG = dict(train__steps=1_000_000, valid__every=0, scheduler__enabled=True)

    def order(self, run, word):
        """As an operator does, but never seen half-written."""
        draft = run.path / "draft"
        draft.write_text(word + "\n")
        draft.rename(run.path / "command")

    def test_stops_with_a_checkpoint(self):
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                config, run = self.config(**self.LONG)
                job = self.start("train", config, ranks=ranks)
                self.wait_for_lines(job, run, 3)
                self.order(run, "stop")
                result = job.wait()
                if ranks > 1:
                    self.assertEqual(result.rank_codes, dict.fromkeys(range(ranks), STOPPED), result)
                else:
                    self.assertEqual(result.code, STOPPED, result)
                self.assertRegex(result.out, r"stop: all ranks do it after step \d+")
                self.assertEqual(run.checkpoints(), [max(run.steps())])
                self.assertFalse((run.path / "command").exists())

    def test_writes_a_checkpoint_and_goes_on(self):
        config, run = self.config(**self.LONG)
        job = self.start("train", config, ranks=2)
        self.wait_for_lines(job, run, 3)
        self.order(run, "checkpoint")
        wait_until(lambda: run.checkpoints() or not job.running())
        step = run.checkpoints()[0]
        self.wait_for_lines(job, run, step + 5)
        self.order(run, "nonsense")
        wait_until(lambda: not (run.path / "command").exists() or not job.running())
        self.order(run, "stop")
        result = job.wait()
        self.assertEqual(result.rank_codes, {0: STOPPED, 1: STOPPED}, result)
        self.assertRegex(result.out, "command: must be stop or checkpoint or replan")
        self.assertIn(step, run.checkpoints())

    def test_losses_are_those_of_a_run_that_nobody_watches(self):
        plain, watched = self.config(), self.config(scheduler__enabled=True)
        for config, _ in (plain, watched):
            self.run_program("train", config, ranks=2)
        self.assertEqual(plain[1].losses(), watched[1].losses())

    def metrics(self, url):
        """name{labels} -> value."""
        with urllib.request.urlopen(url, timeout=30) as answer:
            text = answer.read().decode()
        samples = re.findall(r"^(cartesian_\S+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in samples}

    def test_serves_metrics_while_it_runs(self):
        discovery = self.folder / "discovery" / "run.json"
        config, run = self.config(**dict(self.LONG, metrics__port=0, metrics__discovery_file=str(discovery),
                                         metrics__job="tests"))
        job = self.start("train", config, ranks=2)
        self.wait_for_lines(job, run, 5)
        url = (run.path / "metrics_address").read_text().strip()
        self.assertIn(f"metrics: {url}", job.output())
        (entry,) = json.loads(discovery.read_text())
        self.assertEqual(entry["targets"], [url.removeprefix("http://").removesuffix("/metrics")])
        self.assertEqual(entry["labels"], {"job": "tests", "run": str(run.path)})

        def seen():
            found = self.metrics(url)
            # Reports of one rank may come before any of the other.
            return found if found.get("cartesian_step", 0) >= 5 and found["cartesian_reports_total"] > 5 else None

        found = wait_until(lambda: not job.running() or seen())
        self.assertEqual(found["cartesian_ranks"], 2)
        self.assertGreater(found["cartesian_reports_total"], 5)
        self.assertEqual(found["cartesian_plan_version"], 0)
        self.order(run, "stop")
        result = job.wait()
        self.assertEqual(result.rank_codes, {0: STOPPED, 1: STOPPED}, result)
        self.assertFalse(discovery.exists())
        self.assertFalse((run.path / "metrics_address").exists())

    def test_pushes_metrics(self):
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as gateway:
            threading.Thread(target=gateway.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{gateway.server_address[1]}"
            config, run = self.config(metrics__push_url=url, metrics__job="tests")
            result = self.run_program("train", config, ranks=2)
            gateway.shutdown()
        self.assertIn(f"metrics: pushed to {url} as job tests", result.out)
        group = base64.urlsafe_b64encode(str(run.path).encode()).decode().rstrip("=")
        self.assertEqual({path for path, _ in Gateway.pushes}, {f"/metrics/job/tests/run@base64/{group}"})
        self.assertRegex(Gateway.pushes[-1][1], rf"(?m)^cartesian_step {run.steps()[-1]}$")

    def test_a_gateway_that_is_away_costs_no_step(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        config, run = self.config(metrics__push_url=url)
        result = self.run_program("train", config, ranks=2)
        self.assertEqual(run.steps()[-1], 8)
        self.assertEqual(result.out.count("refused"), 1, result)
        config, _ = self.config(metrics__push_url="https://127.0.0.1:9091")
        self.assert_refused(("train", config), "metrics.push_url", ranks=2)

    def test_only_the_discovery_file_is_left_of_a_run_that_failed(self):
        """Prometheus then misses the run."""
        discovery = self.folder / "failed.json"
        config, run = self.config(train__learning_rate=1e30, train__min_learning_rate=1e30, train__warmup_steps=0,
                                  train__clip_norm=0, metrics__discovery_file=str(discovery))
        result = self.run_program("train", config, ranks=2, code=1)
        self.assertRegex(result.err, "not finite")
        self.assertTrue(discovery.exists())
        self.assertFalse((run.path / "metrics_address").exists())

    def test_a_port_that_is_taken(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            config, run = self.config(scheduler__enabled=True, scheduler__port=port)
            self.assert_refused(("train", config), f"the coordinator cannot listen at 127.0.0.1 port {port}", ranks=2)
            self.assertEqual(run.steps(), [])
            config, _ = self.config(metrics__port=port)
            self.assert_refused(("train", config), f"127.0.0.1.*{port}", ranks=2)

    def test_an_address_that_is_none(self):
        config, _ = self.config(scheduler__enabled=True, scheduler__address="nowhere.example")
        self.assert_refused(("train", config), "nowhere.example", ranks=2)

    def test_a_secret_of_ones_own(self):
        """It is the job's: who has it is told that the rank is taken, and who does not that it is another."""
        secret, other = "0123456789abcdef" * 4, "0" * 64
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config, run = self.config(**self.LONG, scheduler__port=port, metrics__port=0)
        with mock.patch.dict(os.environ, CARTESIAN_JOB_SECRET=secret):
            job = self.start("train", config, ranks=2)
        self.wait_for_lines(job, run, 1)
        url = (run.path / "metrics_address").read_text().strip()
        wait_until(lambda: self.metrics(url)['cartesian_ranks_by_health{health="alive"}'] == 2)
        for given, reason in ((other, b"the secret is not this job's"), (secret, b"rank 1 is registered by process")):
            kind, message = answer_to_rank(port, 1, 2, given)
            self.assertEqual(kind, 5)  # refused
            self.assertIn(reason, message)
        self.wait_for_lines(job, run, run.lines() + 3)
        self.order(run, "stop")
        result = job.wait()
        self.assertEqual(result.rank_codes, {0: STOPPED, 1: STOPPED}, result)
        self.assertNotIn(secret, result.out + result.err)

    def test_a_secret_that_is_none(self):
        config, run = self.config(scheduler__enabled=True)
        for secret in ("0123456789abcdef" * 3, "0123456789abcdeg" * 4):
            with self.subTest(secret), mock.patch.dict(os.environ, CARTESIAN_JOB_SECRET=secret):
                result = self.assert_refused(("train", config), "CARTESIAN_JOB_SECRET.* must be 64 hexadecimal digits", ranks=2)
                self.assertNotIn(secret[:8], result.out + result.err)
        self.assertEqual(run.steps(), [])

    def test_keys_that_cannot_work(self):
        config, _ = self.config(scheduler__late_s=0.5)
        self.assert_refused(("train", config), "scheduler.late_s = 0.5", "scheduler.heartbeat_s")
        config, _ = self.config(metrics__experts="0,7")
        self.assert_refused(("train", config), "metrics.experts", "7")


if __name__ == "__main__":
    unittest.main(verbosity=2)
