"""cluster/monitoring: rules and dashboards name what docs/metrics.md lists, and Prometheus finds all of it in a run."""

import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import unittest
import urllib.request

import prometheus
from harness import CliTest
from job import STOPPED, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
GRAFANA = prometheus.MONITORING / "grafana"
RULES = [prometheus.MONITORING / "rules" / name for name in ("recording.yml", "alerts.yml")]
TESTS = sorted((prometheus.MONITORING / "rules").glob("*_test.yml"))
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
NAME = re.compile(r"\bcartesian[:_][a-z_:0-9]+")
NEEDED = f"needs Prometheus: {prometheus.missing()} is not installed"
LONG = 1000000  # steps: more than the test waits for
# Panels that a sound job leaves empty, and why.
MAY_BE_EMPTY = {"Alerts": "no alert fires"}


def panels(path):
    """A dashboard's panels, without headings of rows."""
    return [panel for panel in json.loads(path.read_text(encoding="utf-8"))["panels"] if panel["type"] != "row"]


def variables(path):
    return json.loads(path.read_text(encoding="utf-8"))["templating"]["list"]


def recorded():
    """Names that recording rules give."""
    return set(re.findall(r"record: (\S+)", RULES[0].read_text(encoding="utf-8")))


def alerts():
    return re.findall(r"alert: (\S+)", RULES[1].read_text(encoding="utf-8"))


class Files(unittest.TestCase):
    def test_dashboards_are_what_the_script_writes(self):
        result = subprocess.run([sys.executable, GRAFANA / "make_dashboards.py", "--check"], capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_panels_explain_themselves(self):
        self.assertEqual([path.stem for path in DASHBOARDS], ["experts", "overview", "stragglers", "traffic"])
        for path in DASHBOARDS:
            titles = set()
            for panel in panels(path):
                with self.subTest(dashboard=path.stem, panel=panel["title"]):
                    self.assertTrue(panel["description"].rstrip().endswith("."))
                    self.assertEqual(panel["datasource"]["uid"], "${datasource}")
                    if panel["type"] not in ("table", "heatmap"):
                        self.assertIn("unit", panel["fieldConfig"]["defaults"])
                    for target in panel["targets"]:
                        self.assertIn('run=~"$run"', target["expr"])
                    titles.add(panel["title"])

    def test_panels_do_not_overlap(self):
        for path in DASHBOARDS:
            cells = set()
            for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
                place = panel["gridPos"]
                own = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
                self.assertFalse(own & cells, f"{path.stem}: {panel['title']}")
                self.assertLessEqual(place["x"] + place["w"], 24)
                cells |= own

    def test_names_are_those_of_the_metrics_page(self):
        page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
        known = set(NAME.findall(page)) | recorded()
        self.assertGreater(len(known), 40)
        for path in (*RULES, *TESTS, *DASHBOARDS):
            named = {re.sub(r"(?<=cartesian_step_seconds)_(bucket|sum|count)$", "", name)
                     for name in NAME.findall(path.read_text(encoding="utf-8"))}
            self.assertLessEqual(named, known, path.name)

    def test_alerts_name_what_to_read(self):
        page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
        sections = set(re.findall(r"^#+ (.*)$", page, re.MULTILINE))
        text = RULES[1].read_text(encoding="utf-8")
        for rule in text.split("- alert: ")[1:]:
            name = rule.split()[0]
            with self.subTest(name):
                self.assertRegex(rule, "severity: (critical|warning)\n")
                self.assertRegex(rule, "summary: ")
                told = " ".join(rule.split()).partition("docs/operations.md, ")[2]
                named = re.findall(r'"([^"]+)"', told)
                self.assertTrue(named)
                self.assertLessEqual(set(named), sections)

    def test_the_page_tells_of_every_alert_and_panel(self):
        page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
        for name in alerts():
            self.assertIn(f"`{name}`", page)
        for path in DASHBOARDS:
            for panel in panels(path):
                title = re.sub(r" [AB], layer .*", "", panel["title"])
                self.assertIn(title.lower(), page.lower(), path.stem)


@unittest.skipIf(prometheus.missing(), NEEDED)
class Promtool(unittest.TestCase):
    def check(self, *words):
        code, said = prometheus.promtool(*words)
        self.assertEqual(code, 0, said)

    def test_configuration(self):
        self.check("check", "config", prometheus.MONITORING / "prometheus.yml")

    def test_configuration_with_a_pushgateway(self):
        """The job that is commented out."""
        text = (prometheus.MONITORING / "prometheus.yml").read_text(encoding="utf-8")
        commented = re.search(r"(?m)^(  # - job_name: pushgateway\n(?:  # .*\n)+)", text).group(1)
        job = commented.replace("  # ", "  ")
        code, said = prometheus.promtool("check", "config", "/dev/stdin", text=f"scrape_configs:\n{job}")
        self.assertEqual(code, 0, said)

    def test_rules(self):
        self.check("check", "rules", *RULES)

    def test_tests_of_rules(self):
        self.check("test", "rules", *TESTS)
        for name in alerts():
            self.assertRegex(TESTS[0].read_text(encoding="utf-8"), f"- alertname: {name}\n")


class MonitoredRun(CliTest):
    """Two ranks, each a node of its own, so that rows travel between nodes; and a Prometheus that has found them."""

    CHANGES = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = prometheus.Server(cls.new_folder("prometheus-"))
        cls.addClassCleanup(cls.server.stop)
        cls.discovery = cls.server.targets / "run.json"
        config, _ = cls.config(train__steps=LONG, valid__every=0, parallel__node_sizes=[1, 1], exchange__flow="pivot",
                               metrics__port=0, metrics__experts="all", metrics__discovery_file=str(cls.discovery), **cls.CHANGES)
        cls.job = cls.start("train", config, ranks=2)
        wait_until(lambda: not cls.job.running() or cls.server.query("cartesian_step > 5"))
        if not cls.job.running():
            raise AssertionError(f"the run has ended\n{cls.job.wait()}")


@unittest.skipIf(prometheus.missing(), NEEDED)
class PrometheusOfARun(MonitoredRun):
    def answers(self, expression):
        """What the query answers once it does; numbers that are none do not count."""
        found = []

        def ask():
            found[:] = [(labels, value) for labels, value in self.server.query(expression) if not math.isnan(value)]
            return found

        if not wait_until(ask, limit=60, required=False):
            self.fail(f"no data: {expression}")
        return found

    def test_every_panel_has_data(self):
        for path in DASHBOARDS:
            values = {variable["name"]: ".*" for variable in variables(path)} | {"__rate_interval": "10s"}
            for panel in panels(path):
                for target in panel["targets"]:
                    with self.subTest(dashboard=path.stem, panel=panel["title"], legend=target["legendFormat"]):
                        query = re.sub(r"\$(\w+)", lambda found: values[found.group(1)], target["expr"])
                        if panel["title"] in MAY_BE_EMPTY:
                            self.server.query(query)  # is understood
                            continue
                        for labels, _ in self.answers(query):
                            self.assertLessEqual(set(re.findall(r"{{(\w+)}}", target["legendFormat"])), set(labels))

    def test_variables_have_values(self):
        for path in DASHBOARDS:
            for variable in variables(path):
                if variable["type"] != "query":
                    continue
                with self.subTest(dashboard=path.stem, variable=variable["name"]):
                    series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
                    for labels, _ in self.answers(re.sub(r"\$\w+", ".*", series)):
                        self.assertIn(label, labels)

    def test_rules_work(self):
        for name in recorded():
            self.answers(name)
        rules = [rule for group in self.server.get("rules")["groups"] for rule in group["rules"]]
        self.assertEqual(len(rules), len(recorded()) + len(alerts()))
        wait_until(lambda: all(rule["health"] == "ok" for group in self.server.get("rules")["groups"] for rule in group["rules"]))
        self.assertEqual([alert for alert in self.server.get("alerts")["alerts"] if alert["labels"]["severity"] == "critical"], [])

    def test_metrics_are_in_prometheus_style(self):
        address = json.loads(self.discovery.read_text())[0]["targets"][0]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
            code, said = prometheus.promtool("check", "metrics", text=answer.read().decode())
        self.assertEqual((code, said), (0, ""))


@unittest.skipIf(prometheus.missing(), NEEDED)
class PrometheusOfARunThatEnds(MonitoredRun):
    def test_it_is_forgotten(self):
        """Nothing alerts that a run that has ended cannot be scraped."""
        self.job.signal(signal.SIGUSR1)
        result = self.job.wait()
        self.assertEqual(result.code, STOPPED, result)
        self.assertFalse(self.discovery.exists())
        wait_until(lambda: not self.server.get("targets")["activeTargets"])
        wait_until(lambda: not self.server.query('{__name__=~"up|ALERTS", run!=""}'))


@unittest.skipIf(prometheus.missing(), NEEDED)
class PrometheusOfARunThatDies(MonitoredRun):
    CHANGES = {"scheduler__heartbeat_s": 0.5, "scheduler__late_s": 1, "scheduler__dead_s": 3}

    def alert(self, name):
        return [labels for labels, _ in self.server.query(f'ALERTS{{alertname="{name}"}}')]

    def test_a_frozen_rank_and_a_killed_job(self):
        """The first fires while rank 0 still waits; the second stays pending for its minute, which is not waited for."""
        wait_until(lambda: self.server.query('cartesian_ranks_by_health{health="alive"} == 2'))
        os.kill(self.job.ranks(2)[1], signal.SIGSTOP)
        (labels,) = wait_until(lambda: self.alert("CartesianRankDead"))
        self.assertEqual((labels["alertstate"], labels["severity"]), ("firing", "critical"))
        self.assertTrue(self.job.running())
        self.assertFalse(self.alert("CartesianJobGone"))
        self.job.kill_all()
        self.job.wait()
        self.assertTrue(self.discovery.exists())
        (labels,) = wait_until(lambda: self.alert("CartesianJobGone"))
        self.assertEqual(labels["severity"], "critical")
        self.assertEqual(labels["run"], json.loads(self.discovery.read_text())[0]["labels"]["run"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
