#!/usr/bin/env python3
"""Runs clang-tidy, with .clang-tidy's checks as errors, over the library's and the program's sources.

usage: clang_tidy.py BUILD_FOLDER [FILE...]

Tests and benchmarks are left out (their macros are not ours), and so is what this build does not compile. Checks that take
a third of the time and hardly ever find anything run where CARTESIAN_FULL is 1 (tests/run.sh --full).
A file that passed is not looked at again until it, one of our headers, its command or the checks change.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import tree

SLOW_CHECKS = ("bugprone-infinite-loop", "bugprone-sizeof-expression", "bugprone-unused-raii", "modernize-use-nullptr",
               "modernize-use-using")
FOLDERS = ("base", "kernels", "comm", "planner", "scheduler", "runtime")


def find_program():
    for version in ("16", "17", "18"):
        program = shutil.which(f"clang-tidy-{version}")
        if program:
            return program
    sys.exit("clang-tidy-16 not found: bash cluster/install.sh tests")


def sources(build):
    """(file, command) of every C++ source of ours that the build compiles."""
    for entry in json.loads((build / "compile_commands.json").read_text(encoding="utf-8")):
        path = pathlib.Path(entry["file"]).resolve()
        if path.is_relative_to(tree.ROOT) and path.suffix == ".cc":
            if path.relative_to(tree.ROOT).parts[0] in FOLDERS:
                yield path, entry["command"]


def arguments(command, own_folder):
    """The compiler's arguments that clang needs to read the file as the compiler does."""
    # Without -fopenmp, some of which clang 16 lacks, the pragmas are just not read.
    words = [word for word in shlex.split(command) if word != "-fopenmp"]
    kept = [word for word in words if word.startswith(("-I", "-D", "-std", "-f", "-m", "-W"))]
    for flag in ("-isystem", "-include"):
        kept += [item for i, word in enumerate(words[:-1]) if word == flag for item in (flag, words[i + 1])]
    unknown_to_clang = ["-Wno-unknown-warning-option", "-Wno-ignored-optimization-argument", "-Wno-unknown-pragmas"]
    return [*kept, "-fsized-deallocation", *unknown_to_clang, f"-I{own_folder}"]


def borrow_omp_header(folder):
    """Puts a copy of GCC's omp.h into `folder`, without the one attribute that clang spells otherwise: clang's own
    header is in a package of its own."""
    name = subprocess.run(["g++", "-print-file-name=include/omp.h"], capture_output=True, text=True, check=True).stdout
    text = pathlib.Path(name.strip()).read_text(encoding="utf-8")
    (folder / "omp.h").write_text(re.sub(r"__malloc__ *\([^()]*\)", "__malloc__", text), encoding="utf-8")


def command_line():
    """The program and which checks it makes."""
    command = [find_program(), "--quiet"]
    if os.environ.get("CARTESIAN_FULL") != "1":
        command.append("--checks=" + ",".join("-" + check for check in SLOW_CHECKS))
    return command


def context_digest(command):
    digest = hashlib.sha256("\0".join(command).encode())
    for path in [pathlib.PurePosixPath(".clang-tidy"), *tree.files(".h")]:
        digest.update((tree.ROOT / path).read_bytes())
    return digest


def check_file(tidy, path, flags, context, passed_folder):
    """What clang-tidy says about one file; empty if all is well."""
    digest = context.copy()
    digest.update(path.read_bytes())
    digest.update("\0".join(flags).encode())
    passed = passed_folder / digest.hexdigest()
    if passed.exists():
        return ""
    result = subprocess.run([*tidy, str(path), "--", *flags], capture_output=True, text=True, check=False)
    if result.returncode == 0:
        passed.touch()
        return ""
    return result.stdout or result.stderr


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    build = pathlib.Path(sys.argv[1]).resolve()
    chosen = {pathlib.Path(name).resolve() for name in sys.argv[2:]}
    tidy = command_line()
    own_folder = build / "clang-tidy"
    own_folder.mkdir(exist_ok=True)
    borrow_omp_header(own_folder)
    context = context_digest(tidy)
    work = [(path, arguments(command, own_folder)) for path, command in sources(build) if not chosen or path in chosen]
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        reports = pool.map(lambda item: check_file(tidy, *item, context, own_folder), work)
    tree.finish([report for report in reports if report], f"{len(work)} files")


main()
