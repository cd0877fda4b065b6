"""`cartesian top`: of a run that trains, on a terminal and without one, and of servers that are none."""

import contextlib
import http.server
import pathlib
import re
import signal
import socket
import threading
import unittest
import urllib.request

from harness import CliTest
from job import STOPPED, wait_until
from screen import ENTER, HOME, LEAVE, Screen

LONG = dict(train__steps=1_000_000, valid__every=0, parallel__node_sizes=[1, 1], exchange__flow="pivot",
            metrics__port=0, metrics__experts="all")
STEP = re.compile(r"^step (\d+) of 1000000(?:, .* left)?, .* ago   loss (\d+\.\d{4})   ", re.MULTILINE)


def parse(text):
    """name{labels} -> value."""
    return {name: float(value) for name, value in re.findall(r"^(cartesian_\S+) (\S+)$", text, re.MULTILINE)}


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


@contextlib.contextmanager
def served(pages):
    """HOST:PORT of a server whose pages are `pages` by path, each a text or a function that gives one."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            page = pages.get(self.path)
            body = (page() if callable(page) else page or "").encode()
            self.send_response(200 if page is not None else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *values):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


class TopTest(CliTest):
    @classmethod
    def start_run(cls):
        """The job, its run directory and the address of its metrics, once it has reported some steps."""
        config, run = cls.config(**LONG)
        job = cls.start("train", config, ranks=2)
        address = run.path / "metrics_address"
        wait_until(lambda: not job.running() or (address.exists() and run.lines() >= 5))
        if not job.running():
            raise AssertionError(f"the run has ended\n{job.wait()}")
        url = address.read_text().strip()
        wait_until(lambda: parse(get(url))["cartesian_step"] >= 5)
        return job, run, url

    def screen(self, *words, **size):
        screen = Screen("top", *words, **size)
        self.addCleanup(screen.close)
        return screen

    def assert_left(self, screen):
        """The program has ended and the terminal is as it was."""
        text = screen.text()
        self.assertTrue(screen.modes_are_restored())
        self.assertEqual((text.count(ENTER), text.count(LEAVE)), (1, 1))
        self.assertEqual((text.count("\x1b[?25l"), text.count("\x1b[?25h")), (1, 1), "the cursor")
        self.assertEqual((text.count("\x1b[?7l"), text.count("\x1b[?7h")), (1, 1), "wrapping")
        return text.split(LEAVE)[1]


class OfARun(TopTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.job, cls.run_directory, cls.url = cls.start_run()

    def check_once(self, *words):
        before = parse(get(self.url))
        result = self.run_program("top", *words, "--interval", "1")
        after = parse(get(self.url))
        self.assertNotIn("\x1b", result.out)
        self.assertIn(f"cartesian {re.search('version=.([0-9.]+)', get(self.url)).group(1)}   ", result.out)
        self.assertIn("2 of 2 ranks alive on 2 nodes   no checkpoint   plan 0", " ".join(result.out.split("\n")))
        for group in "AB":
            self.assertRegex(result.out, rf"(?m)^  0 {group} [▁▂▃▄▅▆▇█·]+ +\d+\.\d\d +\d+ +\d+\.\d\d +(\d+\.\d%|-)$")
        self.assertEqual(set(re.findall(r"(?m)^ +(\d+)  \S+ +\d+\.\d\d +\d+\.\d{3} ", result.out)), {"0", "1"})
        self.assertRegex(result.out, r"inside nodes +0 B +0\n")
        self.assertRegex(result.out, r"  8 experts in 8 replicas")
        return result, before, after

    def test_once_by_address(self):
        address = self.url.removeprefix("http://").removesuffix("/metrics")
        for words in ((address, "--once"), (self.url, "--once"), (address,)):  # its output is no terminal
            with self.subTest(words=words):
                result, before, after = self.check_once(*words)
                step = int(re.search(r"(?m)^step (\d+), ", result.out).group(1))
                self.assertLessEqual(before["cartesian_step"], step)
                self.assertLessEqual(step, after["cartesian_step"])

    def test_once_by_run_directory(self):
        result, before, after = self.check_once(self.run_directory.path, "--once")
        step, loss = STEP.search(result.out).groups()
        self.assertLessEqual(before["cartesian_step"], int(step))
        self.assertLessEqual(int(step), after["cartesian_step"])

        def is_logged():  # of that step, or of the one before while rank 0 is behind
            losses = self.run_directory.losses()
            return loss in [f"{losses[n]:.4f}" for n in (int(step), int(step) - 1) if n in losses]

        wait_until(is_logged)

    def test_values_are_those_that_are_served(self):
        """The run's own page, held still: every gauge that is shown is the page's."""
        page = get(self.url)
        values = parse(page)
        with served({"/metrics": page}) as address:
            out = self.run_program("top", address, "--once", "--interval", "0.1", "--width", "120").out
        self.assertIn(f"step {values['cartesian_step']:.0f}, ", out)
        self.assertIn(f"loss {values['cartesian_loss']:.4f}   gradient norm {values['cartesian_gradient_norm']:.3f}", out)
        self.assertIn(f"copies a token {values['cartesian_internode_copies_per_token']:.2f}   "
                      f"dedup {values['cartesian_dedup_factor']:.2f}", out)
        self.assertIn(f"pivot hits {100 * values['cartesian_pivot_hits_total'] / values['cartesian_pivots_total']:.1f}%", out)
        self.assertIn("no step has ended in the last ", out)
        self.assertIn("0 tokens/s", out)
        known = 'cartesian_colocation_rate{layer="0"}'  # once a step has told its co-activation
        for group in "AB":
            labels = f'{{layer="0",group="{group}"}}'
            figures = re.search(rf"(?m)^  0 {group} \S+ +(\S+) +(\S+) +(\S+) +(\S+)$", out).groups()
            self.assertEqual(figures, (f"{values[f'cartesian_expert_imbalance{labels}']:.2f}",
                                       f"{values[f'cartesian_dead_experts{labels}']:.0f}",
                                       "%.2f" % values['cartesian_rank_load_imbalance{layer="0"}'],
                                       "%.1f%%" % (100 * values[known]) if known in values else "-"))
        phases = {name: value for name, value in values.items() if name.startswith("cartesian_phase_seconds_total")}
        for name, value in phases.items():
            phase = re.search('"(.*)"', name).group(1)
            if value > 0:
                self.assertRegex(out, rf"(?m)^  {phase} .* {100 * value / sum(phases.values()):.1f}% ")
        ratios = re.findall(r"(?m)^ +(\d)  \S+ +(\d\.\d\d) ", out)
        self.assertEqual(ratios, sorted(ratios, key=lambda row: -float(row[1])))
        for rank, ratio in ratios:
            key = next(key for key in values if key.startswith(f'cartesian_rank_straggler_ratio{{rank="{rank}"'))
            self.assertEqual(ratio, f"{values[key]:.2f}")

    def test_live_until_q(self):
        screen = self.screen(self.run_directory.path, "--interval", "0.2")
        first = int(re.match(r"step (\d+) ", screen.wait_for(r"^step \d+ of 1000000")).group(1))
        self.assertFalse(screen.modes_are_restored(), "keys are read as they are typed")
        self.assertIn("q quits", screen.frame()[0])
        wait_until(lambda: int(re.match(r"step (\d+) ", screen.wait_for(r"^step \d+")).group(1)) > first)
        self.assertTrue(any(line.startswith("Ranks, slowest") for line in screen.frame()))
        screen.type("x")  # means nothing
        screen.type("q")
        self.assertEqual(screen.wait(), 0)
        self.assertEqual(self.assert_left(screen), "")

    def test_live_follows_the_size(self):
        screen = self.screen(self.run_directory.path, "--interval", "0.2", width=120, height=40)
        screen.wait_for("^Ranks, slowest")
        self.assertGreater(max(map(len, screen.frame())), 70)
        screen.resize(60, 12)
        wait_until(lambda: len(screen.frame()) == 12)
        self.assertLessEqual(max(map(len, screen.frame())), 60)
        self.assertRegex(screen.frame()[-1], r"^… \d+ more lines$")
        screen.type("q")
        self.assertEqual(screen.wait(), 0)

    def test_suspended_and_back(self):
        screen = self.screen(self.run_directory.path, "--interval", "0.2")
        screen.wait_for("^step ")
        screen.type("\x1a")
        state = pathlib.Path(f"/proc/{screen.process.pid}/stat")
        wait_until(lambda: state.read_text().rsplit(")", 1)[1].split()[0] == "T")
        self.assert_left(screen)
        screen.process.send_signal(signal.SIGCONT)
        wait_until(lambda: HOME in screen.text().split(ENTER)[-1] and screen.text().count(ENTER) == 2)
        screen.type("q")
        self.assertEqual(screen.wait(), 0)
        self.assertTrue(screen.modes_are_restored())
        self.assertEqual(screen.text().count(LEAVE), 2)

    def test_signals_leave_the_terminal_as_it_was(self):
        for name, end, code in (("Ctrl-C", lambda screen: screen.type("\x03"), 0),
                                ("TERM", lambda screen: screen.process.send_signal(signal.SIGTERM), 128 + signal.SIGTERM)):
            with self.subTest(name):
                screen = self.screen(self.run_directory.path)
                screen.wait_for("^step ")
                end(screen)
                self.assertEqual(screen.wait(), code)
                self.assert_left(screen)


class OfARunThatEnds(TopTest):
    def test_says_so(self):
        job, run, url = self.start_run()
        screen = self.screen(run.path, "--interval", "0.2")
        screen.wait_for("^step ")
        job.signal(signal.SIGUSR1)
        self.assertEqual(job.wait().code, STOPPED)
        self.assertEqual(screen.wait(), 0)
        self.assertEqual(self.assert_left(screen), f"{run.path}: the run has ended\r\n")
        self.assert_refused(("top", run.path), "has no metrics_address")
        (run.path / "metrics_address").write_text(url + "\n")  # as a run leaves it that is killed
        self.assert_refused(("top", run.path), "no answer from 127.0.0.1:.*if the run was killed")


class Names(unittest.TestCase):
    def test_names_are_those_of_the_metrics_page(self):
        root = pathlib.Path(__file__).resolve().parents[2]
        known = set(re.findall(r"`(cartesian_[a-z_]+)`", (root / "docs" / "metrics.md").read_text(encoding="utf-8")))
        named = set(re.findall(r'{"(cartesian_[a-z_]+)", ', (root / "runtime" / "top" / "job_snapshot.cc").read_text(encoding="utf-8")))
        named = {re.sub("(?<=_step_seconds)_(sum|count)$", "", name) for name in named}
        self.assertGreater(len(named), 30)
        self.assertLessEqual(named, known)


class OfServers(TopTest):
    PAGE = ('cartesian_step 3\ncartesian_rank_straggler_ratio{rank="0",host="a\x1b[31mb"} 1\n'
            'cartesian_build_info{version="\x1b]0;title\x07"} 1\ncartesian_plans_total{outcome="\x1b[2J"} 1\n')

    def test_an_answer_that_stops_coming(self):
        with contextlib.ExitStack() as stack:
            address = stack.enter_context(served({"/metrics": self.PAGE}))
            screen = self.screen(address, "--interval", "0.1")
            screen.wait_for("^step 3")
            stack.close()
            screen.wait_for(f"nothing new for .*: no answer from {address}: connection refused")
            self.assertTrue(any(line.startswith("step 3") for line in screen.frame()), "what is known stays")
        screen.type("q")
        self.assertEqual(screen.wait(), 0)

    def test_an_answer_that_comes_again(self):
        texts = ["nonsense\n", self.PAGE.replace("3", "2", 1), self.PAGE]

        def page():
            return texts.pop() if len(texts) > 1 else texts[0]

        pages = {"/metrics": page}
        with served(pages) as address:
            screen = self.screen(address, "--interval", "0.1")
            screen.wait_for("line 1 has \"\" where its value belongs")
            pages["/metrics"] = self.PAGE.replace("3", "4", 1)
            screen.wait_for("^step 4")
            self.assertFalse(any("nothing new" in line for line in screen.frame()))
            screen.type("q")
            self.assertEqual(screen.wait(), 0)

    def test_commands_for_terminals_do_not_get_through(self):
        with served({"/metrics": self.PAGE}) as address:
            out = self.run_program("top", address, "--once", "--interval", "0.1").out
            self.assertNotIn("\x1b", out)
            self.assertNotIn("\x07", out)
            self.assertIn("a?[31mb", out)
            screen = self.screen(address)
            screen.wait_for("^step 3")
            screen.type("q")
            self.assertEqual(screen.wait(), 0)
            for command in ("\x1b]", "\x1b[31mb", "\x1b[2J", "\x07"):
                self.assertNotIn(command, screen.text())

    def test_errors_are_one_sentence(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        self.assert_refused(("top", nobody, "--once"), f"no answer from {nobody}: connection refused; .*metrics.port")
        self.assert_refused(("top", "nowhere"), '"nowhere" is neither HOST:PORT nor a run directory')
        self.assert_refused(("top", self.new_folder()), "has no metrics_address: .*metrics.port=0")
        for page, words in ((None, "has no /metrics"), ("up 1\n", "has no cartesian_step"),
                            ("<html>\n", "/metrics line 1 has no metric's name")):
            with self.subTest(page=page), served({"/metrics": page}) as address:
                self.assert_refused(("top", address), f"http://{address}.*{words}")

    def test_usage(self):
        for words in ((), ("localhost:1", "--interval", "0"), ("localhost:1", "--width", "5")):
            self.run_program("top", *words, code=2)
        self.assertIn("Examples:", self.run_program("top", "--help").out)


if __name__ == "__main__":
    unittest.main(verbosity=2)
