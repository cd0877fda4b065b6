#!/usr/bin/env bash
# The paper's table at a scale that fits this machine: trains all eight systems and prints ours beside the paper's.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: bash bench/paper_table.sh [--minutes M | --steps N] [--seeds N] [--dir DIR] [--jobs N]

  --minutes M  how long training may take in all (120): the steps of a run follow from it, the same for every system
  --steps N    steps of a run, instead
  --seeds N    runs of each system (3)
  --dir DIR    where the runs and table.md live (runs/paper-table)
  --jobs N     runs at a time, one thread each (one per core)
Systems have the paper's proportions (configs/paper/base-*.toml), at a small width, and read the quickstart's corpora.
A run that is finished is kept: the same command goes on where it was stopped, with the steps of the first time.
USAGE
}

called_from=$PWD
cd "$(dirname "$0")/.."
case ${1:-} in -h | --help) usage; exit 0 ;; esac

# A path is the caller's, who may stand elsewhere.
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --dir) arguments+=(--dir "$(cd "$called_from" && realpath -m -- "${2:?--dir needs a folder}")"); shift 2 ;;
    *) arguments+=("$1"); shift ;;
  esac
done

bash cluster/install.sh build corpora
folder=build/quickstart
[ ! -f build/release/build.ninja ] || folder=build/release
[ -f "$folder/build.ninja" ] ||
  cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCARTESIAN_TESTS=OFF -DCARTESIAN_BENCH=OFF >/dev/null
cmake --build "$folder" --target cartesian
tokens=data/tokens/corpora
if [ ! -f "$tokens-valid.idx" ]; then
  bash cluster/corpora.sh
  mkdir -p data/tokens
  "$folder/runtime/cartesian" tokenize data/corpora/*.txt -o "$tokens" --held-out 0.05
fi
exec python3 bench/paper_table.py "$folder/runtime/cartesian" --data "$tokens" "${arguments[@]}"
