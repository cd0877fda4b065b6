#!/usr/bin/env python3
"""Checks the house of docs/architecture.md: includes go downward only, the two columns never include each other,
and backends stay behind their own files."""

import re

import tree

# What the files of a folder may include, beside their own folder's.
ALLOWED = {
    "base": set(),
    "kernels": {"base"},
    "comm": {"base", "kernels"},
    "planner": {"base"},
    "scheduler": {"base", "planner"},
    "runtime": {"base", "kernels", "comm", "planner", "scheduler"},
    "bench": {"base", "kernels", "comm", "planner", "scheduler", "runtime", "tests"},
    "tests": {"base", "kernels", "comm", "planner", "scheduler", "runtime"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')
SYSTEM_INCLUDE = re.compile(r"^\s*#\s*include\s*[<\"]([^>\"]+)[>\"]")
BACKEND_HEADER = re.compile(r"^(mpi\.h|dnnl|oneapi/dnnl|cuda|cublas|nccl|ucp/|ucs/|uct/)")
BACKEND_FILE = re.compile(r"(mpi|cuda|ucx|nccl|onednn|dnnl)|(^|/)no_|\.cuh?$")
BACKEND_CONDITION = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif).*(MPI|CUDA|UCX|NCCL|DNNL)")


def allowed_folders(path):
    """The folders that `path` may include from: tests/FOLDER obeys FOLDER's rule."""
    folder = path.parts[0]
    if folder == "tests" and len(path.parts) > 2 and path.parts[1] in ALLOWED:
        return ALLOWED[path.parts[1]] | {path.parts[1], "tests"}
    return ALLOWED.get(folder, set()) | {folder}


def check_includes(path, problems):
    for number, line in enumerate(tree.lines(path), 1):
        where = f"{path}:{number}"
        include = INCLUDE.match(line)
        if include:
            target = include.group(1)
            folder = target.split("/")[0]
            if folder in ALLOWED and folder not in allowed_folders(path):
                problems.append(f"{where}: {path.parts[0]} must not include {target}: it is above or beside it")
            elif folder not in ALLOWED and not BACKEND_HEADER.match(target):
                problems.append(f'{where}: write "{target}" from the repository\'s root, or in <> if it is not ours')
        system = SYSTEM_INCLUDE.match(line)
        if system and BACKEND_HEADER.match(system.group(1)):
            if path.suffix == ".h" and not path.stem.endswith("_internal"):
                problems.append(f"{where}: a public header must not include {system.group(1)}")
        if BACKEND_CONDITION.match(line) and not BACKEND_FILE.search(str(path)):
            problems.append(f"{where}: a backend's #if outside that backend's own files")


def main():
    problems = []
    sources = [path for path in tree.files(".h", ".cc", ".cu", ".cuh") if path.parts[0] in ALLOWED]
    for path in sources:
        check_includes(path, problems)
    tree.finish(problems, f"{len(sources)} files")


main()
