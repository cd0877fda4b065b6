#!/usr/bin/env python3
"""Lists the skipped tests of ctest runs, and fails on a skip that the allow-list does not name.

usage: list_skipped.py ALLOWLIST LOG...

LOG: what ctest printed, and its LastTest.log, which holds what the tests printed: GoogleTest and Python's unittest
count a case that skips itself as passed, so ctest alone does not know of it.
"""

import fnmatch
import os
import pathlib
import re
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "cli"))
import namespaces  # noqa: E402
import prometheus  # noqa: E402
import slurm  # noqa: E402

CTEST = re.compile(r"^\s*\d+/\d+ Test\s+#\d+: (\S+) \.*\s*\*\*\*(Skipped|Not Run)", re.MULTILINE)
GTEST = re.compile(r"^\[  SKIPPED \] ([\w/.]+) \(", re.MULTILINE)
UNITTEST = re.compile(r"^(\w+) \(([\w.]+)\)(?:\n.*)? \.\.\. skipped", re.MULTILINE)


def skipped_tests(log):
    names = {match.group(1) for match in CTEST.finditer(log)} | {match.group(1) for match in GTEST.finditer(log)}
    for match in UNITTEST.finditer(log):
        case, place = match.groups()
        names.add(place if place.endswith("." + case) else f"{place}.{case}")
    return names


def conditions():
    """The conditions that an allow-list may name, and whether they hold here."""
    build = pathlib.Path(__file__).resolve().parents[1] / "build"
    browsers = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return {"no-gpu": not list(pathlib.Path("/dev").glob("nvidia[0-9]*")),
            "no-torch": (build / "python-env.unavailable").exists(),
            "no-browser": not any(map(shutil.which, browsers)),
            "no-namespaces": bool(namespaces.missing()),
            "no-slurm": bool(slurm.missing()),
            "no-prometheus": bool(prometheus.missing()),
            "not-full": not os.environ.get("CARTESIAN_FULL")}


def read_allowlist(path):
    holds = conditions()
    patterns = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in holds:
            sys.exit(f"{path}:{number}: must be a pattern and one of {', '.join(holds)}")
        if holds[words[1]]:
            patterns.append(words[0].lower())
    return patterns


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    patterns = read_allowlist(pathlib.Path(sys.argv[1]))
    skipped = set()
    for log in sys.argv[2:]:
        skipped |= skipped_tests(pathlib.Path(log).read_text(encoding="utf-8", errors="replace"))
    forbidden = 0
    for name in sorted(skipped):
        allowed = any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in patterns)
        forbidden += not allowed
        print(f"skipped: {name}{'' if allowed else '  (NOT ALLOWED by ' + sys.argv[1] + ')'}")
    print(f"{len(skipped)} skipped, {forbidden} of them not allowed")
    sys.exit(1 if forbidden else 0)


main()
