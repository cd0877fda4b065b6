#!/usr/bin/env python3
"""Checks that files stay short: a warning above 400 lines, an error above 600. (clang-tidy looks at functions.)"""

import tree

SOFT_LIMIT = 400
HARD_LIMIT = 600


def main():
    problems = []
    paths = tree.files(".h", ".cc", ".cu", ".cuh", ".py", ".sh", ".cmake")
    for path in paths:
        count = len(tree.lines(path))
        if count > HARD_LIMIT:
            problems.append(f"{path}: {count} lines, more than {HARD_LIMIT}: split it")
        elif count > SOFT_LIMIT:
            print(f"warning: {path}: {count} lines, more than {SOFT_LIMIT}")
    tree.finish(problems, f"{len(paths)} files")


main()
