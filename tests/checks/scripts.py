#!/usr/bin/env python3
"""Checks that shell scripts parse, stop at errors and explain themselves, and that Python files compile."""

import subprocess

import tree

STRICT = "set -euo pipefail"


def check_shell(path, problems):
    parsed = subprocess.run(["bash", "-n", tree.ROOT / path], capture_output=True, text=True, check=False)
    if parsed.returncode != 0:
        problems.append(f"{path}: {parsed.stderr.strip()}")
    text = tree.lines(path)
    if STRICT not in text:
        problems.append(f"{path}: does not {STRICT}")
    if not any("--help" in line for line in text):
        problems.append(f"{path}: has no --help")


def check_python(path, problems):
    try:
        compile((tree.ROOT / path).read_bytes(), str(path), "exec")
    except SyntaxError as error:
        problems.append(f"{path}:{error.lineno}: {error.msg}")


def main():
    problems = []
    shell, python = tree.files(".sh"), tree.files(".py")
    for path in shell:
        check_shell(path, problems)
    for path in python:
        check_python(path, problems)
    tree.finish(problems, f"{len(shell) + len(python)} scripts")


main()
