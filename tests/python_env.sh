#!/usr/bin/env bash
# The Python environment with PyTorch that tests and benchmarks compare with: makes it once, outside git.
set -euo pipefail

usage() {
  cat <<'TXT'
usage: bash tests/python_env.sh [SCRIPT [ARGUMENT...]]

Installs tests/requirements.txt (PyTorch, NumPy, safetensors) into build/python-env, unless it is there already, and
prints the path of that environment's interpreter; or, given a Python script, runs it there instead.
Exit code 77, which ctest counts as skipped, if the packages cannot be had (no registry that has them can be reached):
the reason is on standard error and in build/python-env.unavailable. 1 if anything else fails.
Outside CPU-only machines pip's default PyTorch is large; PIP_EXTRA_INDEX_URL may name an index with CPU builds.
TXT
}

case ${1:-} in -h | --help) usage; exit 0 ;; esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
requirements=$root/tests/requirements.txt
environment=$root/build/python-env
unavailable=$environment.unavailable
interpreter=$environment/bin/python
log=$environment.log

say() { printf 'python_env: %s\n' "$*" >&2; }

# The requirements are written there last: with them the environment is complete.
is_ready() { [ -x "$interpreter" ] && cmp -s "$requirements" "$environment/requirements.txt"; }

# The first python3 that can make an environment with pip: one that a version manager put first may lack it.
make_environment() {
  local python
  for python in python3 /usr/bin/python3; do
    rm -rf "$environment"
    if "$python" -m venv "$environment" >"$log" 2>&1 && "$interpreter" -m pip --version >>"$log" 2>&1; then
      return
    fi
  done
  tail -n 5 "$log" >&2
  say "python3 -m venv failed: is the package python3-venv installed?"
  return 1
}

# What pip says when there is no such package or no way to a registry, and not when, say, the disk is full.
cannot_be_had() {
  grep -qE 'No matching distribution|NewConnectionError|Name or service|name resolution|timed out|unreachable|HTTPError' "$log"
}

install_requirements() {
  say "installing $(grep -v '^#' "$requirements" | paste -sd' ') into build/python-env"
  # Compiling all of PyTorch's Python takes longer than unpacking it; importing it compiles what is used.
  if "$interpreter" -m pip install --no-compile --disable-pip-version-check --progress-bar off --retries 1 \
    -r "$requirements" >>"$log" 2>&1; then
    env -u PYTHONDONTWRITEBYTECODE "$interpreter" -c 'import numpy, safetensors.torch, torch'
    cp "$requirements" "$environment/requirements.txt"
    return
  fi
  grep -E '^ERROR' "$log" >&2 || tail -n 5 "$log" >&2
  if ! cannot_be_had; then
    say "pip failed: see $log"
    return 1
  fi
  say "PyTorch cannot be had here, so what needs it is skipped"
  grep -E '^ERROR' "$log" >"$unavailable" || cp "$log" "$unavailable"
  return 77
}

mkdir -p "$root/build"
if ! is_ready; then
  exec 9>"$environment.lock"
  flock 9  # tests run at the same time
  if ! is_ready; then
    rm -f "$unavailable"
    make_environment
    install_requirements
  fi
  exec 9>&-
fi
if [ $# -gt 0 ]; then
  exec "$interpreter" "$@"
fi
printf '%s\n' "$interpreter"
