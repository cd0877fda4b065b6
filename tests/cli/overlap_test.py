"""What training says of its messages: timeline.json, wait_s, chunks chosen by trying, how well pivots are."""

import json
import re
import unittest

from harness import CliTest


class Overlap(CliTest):
    def timeline(self, ranks, **changes):
        config, run = self.config(train__steps=6, run__timeline_steps=2, **changes)
        printed = self.run_program("train", config, ranks=ranks)
        self.assertIn(f"timeline: {run.path / 'timeline.json'}", printed.out + printed.err)
        return run, json.loads((run.path / "timeline.json").read_text())["traceEvents"]

    def test_timeline(self):
        run, events = self.timeline(3, parallel__node_sizes=[2, 1], exchange__chunks=2)
        names = {event["args"]["name"] for event in events if event["name"] in ("process_name", "thread_name")}
        self.assertLessEqual({"node 0", "node 1"}, names)
        self.assertLessEqual({f"rank {r}{what}" for r in range(3) for what in ("", " waits", " messages")}, names)
        spans = [event for event in events if event["ph"] == "X"]
        threads = {}
        for span in spans:
            threads.setdefault(span["tid"], []).append(span)
        for of_thread in threads.values():  # a thread does one thing at a time
            of_thread.sort(key=lambda span: (span["ts"], span["dur"]))
            for before, after in zip(of_thread, of_thread[1:]):
                self.assertLessEqual(before["ts"] + before["dur"], after["ts"] + 1e-2)
        self.assertEqual({span["pid"] for span in spans}, {1, 2})
        self.assertLessEqual({"attention", "experts", "exchange", "optimizer"}, {span["name"] for span in spans})
        recorded = sum(record["step_s"] for record in run.records() if record.get("step") in (2, 3) and "loss" in record)
        last = max(span["ts"] + span["dur"] for span in spans) * 1e-6
        self.assertLessEqual(last, 2 * recorded + 1)
        self.assertTrue(any(span["cat"] == "messages" and span["args"]["bytes_sent"] > 0 for span in spans))

    def test_one_rank_waits_for_nobody(self):
        run, events = self.timeline(1)
        self.assertNotIn("messages", {event.get("cat") for event in events})
        self.assertEqual({record["wait_s"] for record in run.records() if "loss" in record}, {0})

    def test_waits(self):
        config, run = self.config(train__steps=4)
        self.run_program("train", config, ranks=2)
        for record in run.records():
            if "loss" in record:
                self.assertTrue(0 < record["wait_s"] < record["step_s"], record)

    def test_how_well_pivots_are_chosen(self):
        config, run = self.config(train__steps=3, exchange__flow="pivot", parallel__node_sizes=[1, 1])
        self.run_program("train", config, ranks=2)
        for record in run.records():
            if "loss" in record:
                self.assertTrue(0 < record["pivot_hit_rate"] <= 1, record)
                self.assertTrue(1 <= record["rows_over_oracle"] < 2, record)
        config, run = self.config(train__steps=1, exchange__flow="home", parallel__node_sizes=[1, 1])
        self.run_program("train", config, ranks=2)
        self.assertNotIn("pivot_hit_rate", run.records()[0])

    def test_chunks_are_chosen_by_trying(self):
        config, run = self.config(train__steps=24, exchange__chunks=0)
        printed = self.run_program("train", config, ranks=2)
        chosen = int(re.search(r"exchange\.chunks = (\d+) from here on, the fastest of 1: ", printed.out + printed.err)[1])
        chunks = [record["chunks"] for record in run.records() if "loss" in record]
        self.assertEqual(chunks[:6], [1, 2, 3, 4, 6, 8])
        self.assertEqual(chunks[:6] * 3, chunks[:18])
        self.assertEqual(set(chunks[18:]), {chosen})
        alone, fixed = self.config(train__steps=24, exchange__chunks=1)
        self.run_program("train", alone, ranks=2)
        self.assert_close_losses(run.losses(), fixed.losses(), 1e-5)


if __name__ == "__main__":
    unittest.main(verbosity=2)
