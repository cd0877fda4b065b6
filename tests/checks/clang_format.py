#!/usr/bin/env python3
"""Checks that every C++ and CUDA file is formatted as .clang-format says. `clang_format.py --fix` formats them.

Versions of clang-format disagree, so it must be version 16.
"""

import shutil
import subprocess
import sys

import tree


def main():
    program = shutil.which("clang-format-16")
    if program is None:
        sys.exit("clang-format-16 not found: bash cluster/install.sh tests")
    paths = tree.files(".h", ".cc", ".cu", ".cuh")
    mode = ["-i"] if "--fix" in sys.argv[1:] else ["--dry-run", "--Werror"]
    result = subprocess.run([program, *mode, *map(str, paths)], cwd=tree.ROOT, capture_output=True, text=True, check=False)
    badly_formatted = sorted({line.split(":")[0] for line in result.stderr.splitlines() if "error:" in line})
    if badly_formatted:
        print("python3 tests/checks/clang_format.py --fix formats these:")
    tree.finish(badly_formatted, f"{len(paths)} files")


main()
