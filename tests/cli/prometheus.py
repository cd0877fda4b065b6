"""A Prometheus server of a test's own, with the files of cluster/monitoring at a quicker pace, and what it answers."""

import json
import pathlib
import re
import shutil
import subprocess
import urllib.parse
import urllib.request

from job import wait_until

MONITORING = pathlib.Path(__file__).resolve().parents[2] / "cluster" / "monitoring"
PROGRAMS = ("prometheus", "promtool")


def missing():
    """The first of Prometheus's programs that is not installed, or None."""
    return next((name for name in PROGRAMS if shutil.which(name) is None), None)


def promtool(*words, text=None):
    """Runs promtool; returns its exit code and what it said."""
    result = subprocess.run(["promtool", *map(str, words)], input=text, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


class Server:
    """Runs until stop(), which the owner calls whatever happens. `targets` is the folder of discovery files."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.targets = self.folder / "targets"
        self.targets.mkdir()
        shutil.copytree(MONITORING / "rules", self.folder / "rules")
        text = (MONITORING / "prometheus.yml").read_text(encoding="utf-8")
        text = re.sub(r"\b(\w*(?:interval|timeout)): \d+s", r"\1: 1s", text)
        (self.folder / "prometheus.yml").write_text(text, encoding="utf-8")
        self._log = self.folder / "log"
        with open(self._log, "wb") as log:
            command = ["prometheus", f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data",
                       "--web.listen-address=127.0.0.1:0"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        wait_until(lambda: self._process.poll() is not None or (self._address() and "ready to receive" in self.log()))
        if self._process.poll() is not None:
            raise AssertionError(f"Prometheus does not start\n{self.log()}")

    def log(self):
        return self._log.read_text(errors="replace")

    def _address(self):
        """It chooses a free port itself, and says which."""
        found = re.search(r'msg="Listening on" address=(127\.0\.0\.1:\d+)', self.log())
        return found and found.group(1)

    def get(self, path, **parameters):
        """The data that its HTTP interface answers; a query that it refuses raises."""
        url = f"http://{self._address()}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """Series of the latest values: pairs of labels and number."""
        result = self.get("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
