#!/usr/bin/env bash
# From a fresh clone to a trained CartesianMoE: installs, builds, fetches text, tokenizes, trains. Reuses what is there.
set -euo pipefail

usage() {
  cat <<'TXT'
usage: bash cluster/quickstart.sh [options]

  --data PATH...   train on these texts (files, or folders of files) instead of the public-domain corpora
  --encoding KIND  how to read them: utf8 (default; anything else in them is refused) or bytes
  --minutes M      scale the number of steps, which take about 5 minutes on two cores, to M minutes there
  --ranks N        ranks to train on (one per core, at least 2, at most 16)
  --run-dir DIR    where the run lives (runs/quickstart)
  --fresh          start over, deleting the run of that folder
An interrupted run goes on where its last checkpoint is; a finished one is shown again.
TXT
}

fail() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }

# A path of the caller's, who may stand elsewhere.
from_caller() { (cd "$called_from" && realpath -m -- "$1"); }

called_from=$PWD
cd "$(dirname "$0")/.."
texts=() encoding=utf8 minutes=5 ranks= run_dir= fresh=
while [ $# -gt 0 ]; do
  case $1 in
    --data)
      shift
      while [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; do texts+=("$(from_caller "$1")"); shift; done
      [ ${#texts[@]} -gt 0 ] || fail "--data needs at least one file or folder" ;;
    --encoding) encoding=${2:?--encoding needs utf8 or bytes}; shift 2 ;;
    --minutes) minutes=${2:?--minutes needs a number}; shift 2 ;;
    --ranks) ranks=${2:?--ranks needs a number}; shift 2 ;;
    --run-dir) run_dir=$(from_caller "${2:?--run-dir needs a folder}"); shift 2 ;;
    --fresh) fresh=1; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
[[ $minutes =~ ^[0-9]*\.?[0-9]+$ ]] || fail "--minutes $minutes: must be a number"
[[ $ranks =~ ^([1-9][0-9]*)?$ ]] || fail "--ranks $ranks: must be a positive number"

# quietly WHAT COMMAND...: shows only how long it took, or, if it failed, the end of what it printed.
quietly() {
  local what=$1 log start=$SECONDS
  shift
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    rm -f "$log"
    fail "$what failed"
  fi
  rm -f "$log"
  [ $((SECONDS - start)) -lt 2 ] || printf '%s: %d s\n' "$what" $((SECONDS - start))
}

build() {
  # The test build, where there is one, has the same executable.
  local folder=build/quickstart
  [ ! -f build/release/build.ninja ] || folder=build/release
  program=$folder/runtime/cartesian
  [ -f "$folder/build.ninja" ] ||
    quietly configure cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCARTESIAN_TESTS=OFF -DCARTESIAN_BENCH=OFF
  [ -x "$program" ] || echo "compiling; the first time takes some minutes"
  if [ -t 1 ]; then
    cmake --build "$folder" --target cartesian || fail "build failed" # ninja shows one live line
  else
    quietly build cmake --build "$folder" --target cartesian
  fi
}

# Names the texts, the tokens made of them and the run. Texts of one's own get folders of their own.
choose_data() {
  local path run
  tokens=data/tokens/corpora
  run=runs/quickstart
  if [ ${#texts[@]} -eq 0 ]; then
    bash cluster/corpora.sh
    texts=(data/corpora/*.txt)
  else
    for path in "${texts[@]}"; do [ -e "$path" ] || fail "--data $path does not exist"; done
    mapfile -t texts < <(find -L "${texts[@]}" -type f -size +0 | sort)
    [ ${#texts[@]} -gt 0 ] || fail "there are no files, or only empty ones, in what --data names"
    tokens=data/tokens/$(realpath "${texts[@]}" | sha256sum | cut -c 1-8)
    run=runs/quickstart-${tokens##*/}
  fi
  run_dir=${run_dir:-$run}
}

# Tokenizes unless this was done with the same files. One document in twenty is held out.
tokenize() {
  local inputs
  inputs=$(echo "$encoding"; stat -L -c '%n %s %Y' "${texts[@]}")
  if [ -f "$tokens-valid.idx" ] && [ "$inputs" = "$(cat "$tokens.inputs" 2>/dev/null)" ]; then
    echo "reusing $tokens.bin"
    return
  fi
  mkdir -p "$(dirname "$tokens")"
  rm -f "$tokens.inputs"
  "$program" tokenize "${texts[@]}" -o "$tokens" --encoding "$encoding" --held-out 0.05
  echo "$inputs" >"$tokens.inputs"
}

# The newest complete checkpoint, or nothing.
latest_checkpoint() {
  find "$run_dir/checkpoints" -maxdepth 1 -name 'step-*' 2>/dev/null | sort | tail -n 1
}

show_summary() {
  awk -F '[":, ]+' '$2 ~ /perplexity|dead_experts|balancedness|checkpoint/ {
    value = $3 ~ /^[0-9]+[.]/ ? sprintf("%.3f", $3) : $3
    gsub("_", " ", $2)
    printf "  %-20s %s\n", $2, value
  }' "$run_dir/summary.json"
}

# The page about the run: training has written it, but a run that this was done with before may lack it.
show_report() {
  [ -e "$run_dir/report.html" ] || "$program" report "$run_dir" >/dev/null || return 0
  printf '\nLook at the run in a browser: file://%s\n' "$(realpath "$run_dir/report.html")"
}

show_next_steps() {
  local checkpoint
  show_report
  checkpoint=$(latest_checkpoint)
  cat <<TXT

What to try next:
  $program generate $checkpoint --prompt "In the beginning "
  $program eval $checkpoint --data $tokens-valid
  bash cluster/quickstart.sh --data ~/my-texts        # your own text
  bash cluster/quickstart.sh --fresh --minutes 20     # longer
  cluster/mpirun.sh -n 4 --program $program -- train configs/quickstart.toml --set run.dir=runs/mine
  $program report $run_dir runs/mine                  # a page that compares two runs
docs/architecture.md explains how it works.
TXT
}

prepare_run() {
  if [ -n "$fresh" ] && [ -e "$run_dir" ]; then
    [ -e "$run_dir/config.toml" ] || fail "--fresh: $run_dir holds no run; delete it yourself"
    rm -rf "$run_dir"
  fi
  if [ -e "$run_dir/summary.json" ]; then
    say "The run in $run_dir is finished (--fresh starts over):"
    show_summary
    show_next_steps
    exit 0
  fi
  resume=()
  if [ -n "$(latest_checkpoint)" ]; then
    say "Going on with the interrupted run in $run_dir"
    resume=(--resume)
  fi
}

# The configuration's number of steps, scaled from 5 minutes.
scaled_steps() {
  awk -v minutes="$minutes" '/^steps *=/ { steps = $3 } END { print int(steps * minutes / 5 + 0.5) }' configs/quickstart.toml
}

train() {
  local code=0
  trap ':' INT TERM # mpirun.sh answers them: a stop with a checkpoint
  cluster/mpirun.sh -n "$ranks" --program "$program" -- train configs/quickstart.toml \
    --set "data.train=$tokens" --set "data.valid=$tokens-valid" --set "run.dir=$run_dir" \
    --set "train.steps=$(scaled_steps)" "${resume[@]}" || code=$?
  trap - INT TERM
  case $code in
    0) ;;
    75) echo "The same command goes on from there."; exit 75 ;;
    *) fail "training failed (exit code $code)" ;;
  esac
}

say "1/5  Packages"
bash cluster/install.sh build
say "2/5  Build"
build
say "3/5  Text"
choose_data
say "4/5  Tokens"
tokenize
if [ -z "$ranks" ]; then
  ranks=$(cluster/mpirun.sh --cores)
  ranks=$((ranks < 2 ? 2 : ranks > 16 ? 16 : ranks))
fi
prepare_run
say "5/5  Training on $ranks ranks in $run_dir (Ctrl-C stops with a checkpoint)"
train
show_next_steps
