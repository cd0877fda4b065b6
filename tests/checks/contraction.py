#!/usr/bin/env python3
"""Checks that no source of the planner is compiled with a * b + c contracted: its plans must not depend on the machine."""

import json
import pathlib
import re
import sys

import tree


def main():
    commands = json.loads((pathlib.Path(sys.argv[1]) / "compile_commands.json").read_text())
    problems = []
    checked = 0
    for command in commands:
        path = pathlib.Path(command["file"])
        if path.parent.name != "planner" or path.parent.parent.name == "tests":
            continue
        checked += 1
        if re.findall(r"-ffp-contract=(\S+)", command["command"])[-1:] != ["off"]:
            problems.append(f"planner/{path.name}: -ffp-contract=off must be the last word on contraction")
    if checked == 0:
        problems.append("compile_commands.json knows no source of the planner")
    tree.finish(problems, f"{checked} files")


main()
