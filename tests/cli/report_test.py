"""`cartesian report`: the page, the tables, the event files, and what it says of runs that are damaged or not finished."""

import csv
import json
import re
import shutil
import struct
import unittest

from browser import find_browser, open_page
from event_file import read_events
from harness import CliTest
from run import Run

DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
HOSTILE = "</script><b onclick=x>&'\"<!--\u2028/*TITLE*/".replace("/", "\\")


def data_of(page):
    return json.loads(DATA.search(page.read_text(encoding="utf-8")).group(1))


class Report(CliTest):
    """A finished run of two ranks, another that was stopped and resumed on one, and a dense one."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        config, cls.done = cls.config(train__steps=30, run__experts_every=2)
        cls.trained = cls.run_program("train", config, ranks=2)
        changes = dict(train__steps=12, train__learning_rate=3e-3, checkpoint__every=5)
        config, cls.resumed = cls.stopped_run(7, **changes)
        cls.run_program("train", config, "--resume")
        config, cls.dense = cls.config(train__steps=4, model__sub_layers=0, data__valid="")
        cls.run_program("train", config)

    def copy(self, name="copy"):
        """A copy of the finished run, to be damaged."""
        run = Run(self.new_folder() / name)
        shutil.copytree(self.done.path, run.path)
        return run

    def report(self, *words):
        page = self.new_folder() / "page.html"
        self.run_program("report", *words, "-o", page)
        return page

    def test_training_writes_it_and_says_where(self):
        page = self.done.path / "report.html"
        self.assertIn(f"report: {page}\n", self.trained.out)
        self.assertEqual(len(data_of(page)["runs"]), 1)

    def test_the_page_needs_nothing_else(self):
        text = self.report(self.done.path, self.resumed.path).read_text(encoding="utf-8")
        self.assertNotRegex(text, r"https?://|@import|\bfetch\(|XMLHttpRequest|WebSocket|<link[^>]*stylesheet| src=")
        self.assertIn("default-src 'none'", text)

    def test_numbers_are_the_logs(self):
        run = data_of(self.report(self.done.path))["runs"][0]
        losses = self.done.losses()
        self.assertEqual(run["steps"]["step"], list(losses))
        for shown, loss in zip(run["steps"]["columns"]["loss"]["mean"], losses.values()):
            self.assert_close(shown, loss, 1e-4)
        self.assertEqual(run["validations"]["step"], list(self.done.valid_losses()))
        self.assertEqual(run["config"]["train.steps"], "30")
        self.assertEqual(run["environment"][0]["ranks"], 2)
        self.assertEqual(run["summary"]["experts"], 8)
        loads = run["experts"]["loads"]
        self.assertEqual(loads["step"], list(range(2, 31, 2)))
        for rows in loads["values"][0]:
            for column in zip(*rows):
                self.assertAlmostEqual(sum(column), 4 * 1000, delta=4)  # the mean of 4 experts is even
        for slice_ in run["experts"]["pairs"]:
            self.assertAlmostEqual(sum(map(sum, slice_["values"][0])), 1e7, delta=16)

    def test_default_places(self):
        (self.resumed.path / "report.html").unlink()
        out = self.run_program("report", self.resumed.path).out
        self.assertEqual(out, f"wrote {self.resumed.path / 'report.html'}\n")
        self.run_program("report", self.done.path, self.resumed.path)
        self.assertEqual(len(data_of(self.folder / "report.html")["runs"]), 2)

    def test_csv(self):
        tables = self.new_folder()
        self.run_program("report", self.done.path, self.resumed.path, "--csv", tables, "-o", tables / "page.html")
        with open(tables / "scalars.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([int(row["step"]) for row in rows], [*range(1, 31), *range(1, 13)])
        self.assertEqual(len({row["run"] for row in rows}), 2)
        self.assertEqual([float(row["loss"]) for row in rows[:30]], list(self.done.losses().values()))
        valid = {int(row["step"]): float(row["valid_loss"]) for row in rows[:30] if row["valid_loss"]}
        self.assertEqual(valid, self.done.valid_losses())
        self.assertGreater(float(rows[0]["phase_s.attention"]), 0)

    def test_tensorboard(self):
        logs = self.new_folder()
        self.run_program("report", self.done.path, "--tensorboard", logs, "-o", logs / "page.html")
        files = sorted(logs.rglob("*tfevents*"))
        self.assertEqual([path.parent.name for path in files], [self.done.path.name])
        events = read_events(files[0])
        self.assertEqual(events[0].version, "brain.Event:2")
        losses = {event.step: event.scalars["loss"] for event in events if "loss" in event.scalars}
        for step, loss in self.done.losses().items():
            self.assertEqual(losses[step], struct.unpack("<f", struct.pack("<f", loss))[0])
        valid = [event.step for event in events if "valid_perplexity" in event.scalars]
        self.assertEqual(valid, list(self.done.valid_losses()))
        self.assertIn("phase_s/experts", events[1].scalars)
        times = [event.wall_time for event in events]
        self.assertEqual(times, sorted(times))
        self.assertGreater(times[0], 1.5e9)

    def test_hostile_names_stay_text(self):
        run = self.copy(HOSTILE)
        text = self.report(run.path).read_text(encoding="utf-8")
        self.assertEqual(json.loads(DATA.search(text).group(1))["runs"][0]["name"], HOSTILE)
        self.assertNotIn("<b onclick", text)
        self.assertEqual(text.count("</script>"), 2)
        self.assertNotIn("\u2028", DATA.search(text).group(1))

    def test_a_run_in_progress(self):
        run = self.copy()
        (run.path / "summary.json").unlink()
        for name in ("metrics.jsonl", "experts.jsonl"):
            lines = (run.path / name).read_bytes().splitlines(keepends=True)
            (run.path / name).write_bytes(b"".join(lines[:9]) + lines[9][:40])
        shown = data_of(self.report(run.path))["runs"][0]
        self.assertLess(shown["last_step"], 10)
        self.assertIsNone(shown["summary"])
        (run.path / "experts.jsonl").write_bytes(b"")
        (run.path / "environment.jsonl").unlink()
        self.assertIsNone(data_of(self.report(run.path))["runs"][0]["experts"])

    def test_a_long_run_is_thinned(self):
        run = self.copy()
        lines = [line for line in (run.path / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
        record = json.loads(lines[-1])
        with open(run.path / "metrics.jsonl", "w", encoding="utf-8") as file:
            for step in range(1, 20001):
                record.update(step=step, loss=100.0 if step == 7777 else 2.0)
                file.write(json.dumps(record) + "\n")
        page = self.report(run.path)
        self.assertLess(page.stat().st_size, 1e6)
        loss = data_of(page)["runs"][0]["steps"]["columns"]["loss"]
        self.assertLessEqual(len(loss["mean"]), 600)
        self.assertEqual(max(loss["max"]), 100.0)
        self.assertEqual(min(loss["min"]), 2.0)

    def test_damaged_runs_are_named(self):
        self.assert_refused(("report", self.folder / "absent"), "absent", "config.toml")
        for name, text, *patterns in (
                ("metrics.jsonl", "", "metrics.jsonl: holds no step yet"),
                ("metrics.jsonl", '{"step": 1, "loss": 2}\n{"step": 2, "lo\n', r"metrics.jsonl:2: not valid JSON at line 1, column 16"),
                ("metrics.jsonl", '{"step": 2, "loss": 2}\n{"step": 1, "loss": 2}\n', r"metrics.jsonl:2: step 1 after"),
                ("metrics.jsonl", '{"step": 2, "loss": "x"}\n', r"metrics.jsonl:1: loss is no number"),
                ("experts.jsonl", '{"step": 2, "steps": 1, "loads": [[[1, 2], [3]]]}\n', "experts.jsonl:1: loads"),
                ("experts.jsonl", '{"step": 2, "steps": 1, "loads": [[[1, -2]]]}\n', "experts.jsonl:1: loads"),
                ("experts.jsonl", '{"step": 2}\n', "experts.jsonl:1: .*steps"),
                ("environment.jsonl", "[]\n", "environment.jsonl:1: not a JSON object"),
                ("summary.json", "{", "summary.json: not valid JSON at line 1, column 2"),
                ("summary.json", "[" * 100000, "summary.json: JSON nested deeper than 64"),
                ("environment.jsonl", '{"step": ' + "[" * 100000 + "\n", "environment.jsonl:1: JSON nested deeper than 64"),
                ("config.toml", "[model\n", "config.toml:1")):
            with self.subTest(name=name, text=text):
                run = self.copy()
                (run.path / name).write_text(text)
                self.assert_refused(("report", run.path), *patterns)
        run = self.copy()
        (run.path / "metrics.jsonl").unlink()
        self.assert_refused(("report", run.path), "metrics.jsonl", "No such file")

    def test_a_report_that_cannot_be_written(self):
        self.assert_refused(("report", self.done.path, "-o", self.done.path / "config.toml" / "x.html"), "config.toml")
        config, run = self.config(train__steps=2)
        (run.path / "report.html").mkdir(parents=True)
        out = self.run_program("train", config).out
        self.assertRegex(out, "no report could be written: .*report.html")

    def check_in_browser(self, page, width, least):
        seen = open_page(page, width)
        self.assertEqual(seen["errors"], [])
        self.assertEqual(seen["overlaps"], [])
        self.assertLessEqual(seen["scrollWidth"], width)
        for selector, count in least.items():
            self.assertGreaterEqual(seen["counts"][selector], count, selector)

    def test_in_a_browser(self):
        """No errors, no overlapping labels, nothing wider than the window, at a desk's and at a phone's width."""
        if find_browser() is None:
            self.skipTest("no browser")
        one = {"svg[role=img]": 9, "canvas[role=img]": 3, ".tile": 5, "section": 4, "details": 2}
        two = {"svg[role=img]": 9, "canvas[role=img]": 3, "section": 5, "table.figures": 2}
        for name, runs, widths, least in (("one", [self.done], (1280, 390), one),
                                          ("two", [self.done, self.resumed], (1280, 390, 360), two),
                                          ("dense", [self.dense], (390,), {"svg[role=img]": 5, ".tile": 3}),
                                          ("hostile", [self.copy(HOSTILE)], (390,), one)):
            page = self.report(*(run.path for run in runs))
            for width in widths:
                with self.subTest(page=name, width=width):
                    self.check_in_browser(page, width, least)


class Logs(CliTest):
    """What training logs for the report does not depend on ranks, and has no gaps where a run was resumed."""

    def records(self, run):
        return [json.loads(line) for line in (run.path / "experts.jsonl").read_text().splitlines()]

    def test_any_number_of_ranks(self):
        logs = []
        for ranks in (1, 3):
            config, run = self.config(train__steps=6, run__experts_every=1, exchange__chunks=ranks)
            self.run_program("train", config, ranks=ranks)
            logs.append(self.records(run))
        self.assertEqual(*logs)
        self.assertEqual([record["step"] for record in logs[0]], [1, 2, 3, 4, 5, 6])
        tokens = 6 * 32
        self.assertEqual([sum(group) for group in logs[0][0]["loads"][0]], [2 * tokens, 2 * tokens])
        last = logs[0][-1]
        self.assertEqual(last["pair_steps"], 6)
        self.assertEqual(sum(map(sum, last["pairs"][0])), 6 * 4 * tokens)
        for expert, row in enumerate(last["pairs"][0]):  # each choice of A meets two of B
            self.assertEqual(sum(row), 2 * sum(record["loads"][0][0][expert] for record in logs[0]))

    def test_resumed(self):
        config, run = self.stopped_run(5, train__steps=9, run__experts_every=2)
        with open(run.path / "experts.jsonl", "a", encoding="utf-8") as file:
            file.write('{"step": 6, "steps": 1, "loads": [[[0, 0')  # of a job that was killed
        self.run_program("train", config, "--resume", ranks=2)
        records = self.records(run)
        self.assertEqual([(record["step"], record["steps"]) for record in records], [(2, 2), (4, 2), (5, 1), (6, 1), (8, 2), (9, 1)])
        starts = [json.loads(line) for line in (run.path / "environment.jsonl").read_text().splitlines()]
        self.assertEqual([(start["step"], start["ranks"]) for start in starts], [(0, 1), (5, 2)])


if __name__ == "__main__":
    unittest.main(verbosity=2)
