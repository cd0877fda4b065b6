"""The files of the working tree that the checks look at, and how a check reports."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
IGNORED_FOLDERS = {".git", "build", "runs", "data", "__pycache__"}


def files(*suffixes):
    """Paths relative to the root, sorted: what git tracks or would track; all files where there is no git."""
    command = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
        paths = {pathlib.PurePosixPath(name) for name in listing if name and (ROOT / name).is_file()}
    except (OSError, subprocess.CalledProcessError):
        everything = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        paths = {pathlib.PurePosixPath(path) for path in everything if not IGNORED_FOLDERS & set(path.parts)}
    return sorted(path for path in paths if path.suffix in suffixes)


def lines(path):
    return (ROOT / path).read_text(encoding="utf-8").splitlines()


def finish(problems, checked):
    """Prints the problems, one a line, and exits: 1 if there are any."""
    for problem in problems:
        print(problem)
    print(f"{checked} checked, {len(problems)} to mend")
    sys.exit(1 if problems else 0)
