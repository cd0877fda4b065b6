#!/usr/bin/env bash
# Trains under mpirun, and brings the job back from its last checkpoint when it ends by a failure.
set -euo pipefail

usage() {
  cat <<'TXT'
usage: cluster/launch.sh [-n N] [--hosts FILE] [--max-restarts N] [--min-ranks M] [--discovery FILE] [--program PATH]
                         -- CONFIG [--set ...]

  -n N              ranks (default: one per core, at least 2)
  --hosts FILE      an Open MPI host file ("host slots=8", one a line); every host must see the same paths
  --max-restarts N  bring the job back at most N times (3)
  --min-ranks M     after a failure, go on with the hosts of FILE that still answer if they have slots for M ranks (N)
  --discovery FILE  serve metrics, and tell Prometheus where by FILE while the job runs (file_sd; metrics.discovery_file);
                    with --hosts of several hosts, set scheduler.address and metrics.address, too: 0.0.0.0 suits any rank 0
  --program PATH    the executable (default: as cluster/mpirun.sh finds it)
Runs `cartesian train CONFIG --resume` by cluster/mpirun.sh.
Examples: cluster/launch.sh -n 4 -- configs/quickstart.toml --set run.dir=runs/mine
          cluster/launch.sh -n 16 --hosts hosts.txt --max-restarts 10 --min-ranks 8 -- configs/quickstart.toml \
            --set run.dir=runs/large
Not brought back: a job that is done, was stopped with a checkpoint (exit code 75: Ctrl-C, TERM, HUP or USR1 ask for it), or
was refused by every rank before its first step; nor one that is no further after three restarts. The exit code is the ranks'.
TXT
}

say() { printf 'launch.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
misused() { say "$*"; exit 2; }

readonly stopped=75 fruitless_limit=3
here=$(cd "$(dirname "$0")" && pwd)

# What each rank runs: the program, between two notes in the folder $0, "RANK.started" with where it is and "RANK.code".
# A shell that has a trap outlives the signals that mpirun sends to a rank's process group; its child gets them unchanged.
# shellcheck disable=SC2016  # for the inner shell
readonly rank_script='trap : INT TERM USR1
note=$0/$OMPI_COMM_WORLD_RANK
echo "$$ $(uname -n)" >"$note.started"
"$@"
code=$?
echo $code >"$note.code"
exit $code'

# Reads TOML: the value of run.dir where the text on standard input sets it.
toml_run_dir() {
  awk '/^[ \t]*\[/ { run = /^[ \t]*\[[ \t]*run[ \t]*\]/ }
    (run && /^[ \t]*dir[ \t]*=/) || /^[ \t]*run\.dir[ \t]*=/ {
      sub(/^[^=]*=[ \t]*/, ""); quote = substr($0, 1, 1)
      rest = substr($0, 2); print substr(rest, 1, index(rest, quote) - 1)
    }'
}

# The run directory of `train CONFIG ARGUMENT...`: the last of default, file and settings that names one.
find_run_dir() {
  local found= value
  [ -f "$1" ] || return 0 # the program says so
  found=$({ "$program" train --keys; echo; cat "$1"; } | toml_run_dir | tail -n 1)
  while [ $# -gt 0 ]; do
    value=
    case $1 in
      --set) value=${2:-} ;;
      --set=*) value=${1#--set=} ;;
    esac
    case $value in run.dir=*) found=${value#run.dir=} ;; esac
    shift
  done
  found=${found#[\"\']}
  echo "${found%[\"\']}"
}

# The step of the newest complete checkpoint, 0 if there is none.
newest_checkpoint() {
  local newest
  newest=$(compgen -G "$run_dir/checkpoints/step-*/checksums.json" | sort | tail -n 1) || true
  newest=${newest%/checksums.json}
  echo $((10#0${newest##*/step-}))
}

# The last step of metrics.jsonl, 0 if there is none.
newest_step() {
  local step
  step=$(tail -n 50 "$run_dir/metrics.jsonl" 2>/dev/null | grep -o '"step": *[0-9]*' | tail -n 1) || true
  echo $((10#0${step##*[!0-9]}))
}

# Did this start log a step? It has gone on from the checkpoint of step $resumed_at, and has taken later lines away.
has_stepped() {
  [ "$run_dir/metrics.jsonl" -nt "$notes/start" ] && [ "$(newest_step)" -gt "$resumed_at" ]
}

# Ranks of this machine that still run, by process group, which the shell of each leads.
local_ranks() {
  local note process host
  for note in "$notes"/*.started; do
    read -r process host 2>/dev/null <"$note" || continue
    if [ "$host" = "$(uname -n)" ] && kill -0 -- "-$process" 2>/dev/null; then echo "$process"; fi
  done
}

# Ranks may outlive an mpirun that was killed; the run directory is theirs until they have ended.
end_ranks() {
  local left process attempts=100
  [ -n "$notes" ] || return 0
  while left=$(local_ranks) && [ -n "$left" ] && [ "$attempts" -gt 0 ]; do
    attempts=$((attempts - 1))
    sleep 0.1
  done
  for process in $left; do
    kill -KILL -- "-$process" 2>/dev/null || true
  done
}

clean_up() {
  local process
  trap '' INT TERM HUP USR1
  if [ -n "$job" ] && kill -0 "$job" 2>/dev/null; then
    kill -TERM "$job" 2>/dev/null || true
    sleep 0.1
    kill -TERM "$job" 2>/dev/null || true # the second ends it at once
    wait "$job" 2>/dev/null || true
  fi
  for process in $(jobs -p); do # hosts that are being asked, a pause
    kill -TERM -- "-$process" 2>/dev/null || true
  done
  end_ranks
  [ -z "$notes" ] || rm -rf "$notes"
}

# A signal is passed on to mpirun.sh, which makes a stop with a checkpoint of it; no start follows.
pass_on() {
  stopping=1
  [ -z "$job" ] || kill "-$1" "$job" 2>/dev/null || true
}

# Waits for the job of process $job, whatever signals come; its exit code is in $code.
wait_for_job() {
  while :; do
    code=0
    wait "$job" || code=$?
    kill -0 "$job" 2>/dev/null || break
  done
  wait "$job" 2>/dev/null || code=$?
  job=
}

start() {
  rm -f "$notes"/*.started "$notes"/*.code
  : >"$notes/start"
  resumed_at=$(newest_checkpoint)
  bash "$here/mpirun.sh" -n "$ranks" ${hosts:+--hosts "$hosts"} --program sh -- \
    -c "$rank_script" "$notes" "$program" train "$@" &
  job=$!
  wait_for_job
  end_ranks
}

# Turns the ranks' notes into the exit code of the job, in $code, and what happened, in $ending. The first rank that failed is
# the cause; what mpirun then does to the others is not.
judge() {
  local note value rank signal started=0 ended=0 zero=0 asked=0 first= alike=1
  for note in $(ls -tr "$notes" | grep '\.code$'); do
    value=$(cat "$notes/$note") rank=${note%.code}
    ended=$((ended + 1))
    case $value in
      0) zero=$((zero + 1)) ;;
      "$stopped") asked=$((asked + 1)) ;;
      *)
        [ "$value" = "${first:-$value}" ] || alike=
        if [ -z "$first" ]; then
          first=$value ending="rank $rank ended with exit code $value"
          # Open MPI ends ranks that have lost mpirun with codes beyond all signals.
          if [ "$value" -gt 128 ] && signal=$(kill -l $((value - 128)) 2>/dev/null); then
            ending="rank $rank was ended by signal $((value - 128)) ($signal)"
          fi
        fi ;;
    esac
  done
  started=$(ls "$notes" | grep -c '\.started$') || true
  refused=
  if [ -n "$first" ]; then
    code=$first
    if [ -n "$alike" ] && [ "$ended" -eq "$ranks" ] && [ $((zero + asked)) -eq 0 ] && [ "$first" -le 2 ]; then refused=1; fi
  elif [ "$asked" -gt 0 ]; then
    code=$stopped
  elif [ "$zero" -eq "$ranks" ]; then
    code=0
  elif [ "$started" -eq 0 ]; then
    [ "$code" -ne 0 ] || code=1
    ending="mpirun could not start $ranks ranks"
  else
    [ "$code" -ne 0 ] || code=1
    ending="only $ended of $ranks ranks came to an end by themselves"
  fi
}

# Asks every host of the host file for an answer; `$hosts` becomes those that gave one, `$ranks` what they have slots for.
survey_hosts() {
  local lines line host slots=0 count index=0 gone=()
  rm -f "$notes"/host.*
  mapfile -t lines < <(sed 's/#.*//' "$all_hosts" | grep '[^[:space:]]')
  for line in "${lines[@]}"; do
    echo "$line" >"$notes/host.$index"
    timeout 30 mpirun --quiet --hostfile "$notes/host.$index" -np 1 bash "$here/mpirun.sh" --cores \
      >"$notes/host.$index.cores" 2>/dev/null </dev/null &
    index=$((index + 1))
  done
  wait || true # a signal ends it early
  [ -z "$stopping" ] || return 0
  : >"$notes/hosts"
  for index in "${!lines[@]}"; do
    read -r host _ <<<"${lines[index]}"
    if ! read -r count <"$notes/host.$index.cores"; then gone+=("$host"); continue; fi
    [[ ! ${lines[index]} =~ slots=([0-9]+) ]] || count=${BASH_REMATCH[1]}
    echo "${lines[index]}" >>"$notes/hosts"
    slots=$((slots + count))
  done
  hosts=$notes/hosts
  ranks=$((slots < wanted ? slots : wanted))
  [ ${#gone[@]} -eq 0 ] || say "no answer from ${gone[*]}"
  if [ "$ranks" -lt "$min_ranks" ]; then
    say "giving up: slots for $slots ranks are left, and --min-ranks is $min_ranks"
    exit "$code"
  fi
}

# Decides about another start after a failure; ends the script if there is none.
prepare_restart() {
  local step checkpoint
  step=$(newest_step) checkpoint=$(newest_checkpoint)
  if has_stepped; then proven=$ranks; fi
  if [ "$step" -gt "$best_step" ] || [ "$checkpoint" -gt "$best_checkpoint" ]; then
    fruitless=0
    [ "$step" -le "$best_step" ] || best_step=$step
    best_checkpoint=$checkpoint
  elif [ -n "$refused" ] && [ "$ranks" != "$proven" ]; then
    say "every rank refused to start with exit code $code: not restarted"
    exit "$code"
  else
    fruitless=$((fruitless + 1))
  fi
  say "$ending, at step $step"
  if [ "$restarts" -ge "$max_restarts" ]; then
    say "giving up after $restarts restarts (--max-restarts $max_restarts)"
    exit "$code"
  elif [ "$fruitless" -gt "$fruitless_limit" ]; then
    say "giving up: $fruitless_limit restarts brought it no further than step $best_step"
    exit "$code"
  fi
  [ "$fruitless" -eq 0 ] || { sleep $((2 * fruitless)) & wait "$!" || true; }
  if [ "$min_ranks" -lt "$wanted" ]; then survey_hosts; fi
  restarts=$((restarts + 1))
}

ranks='' all_hosts='' max_restarts=3 min_ranks='' discovery='' program=''
while [ $# -gt 0 ]; do
  case $1 in
    -n) ranks=${2:?-n needs a number}; shift 2 ;;
    --hosts) all_hosts=${2:?--hosts needs a file}; shift 2 ;;
    --max-restarts) max_restarts=${2:?--max-restarts needs a number}; shift 2 ;;
    --min-ranks) min_ranks=${2:?--min-ranks needs a number}; shift 2 ;;
    --discovery) discovery=${2:?--discovery needs a file}; shift 2 ;;
    --program) program=${2:?--program needs a path}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    -*) usage >&2; exit 2 ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || { usage >&2; exit 2; }
if [ -z "$ranks" ]; then
  ranks=$(bash "$here/mpirun.sh" --cores)
  ranks=$((ranks > 2 ? ranks : 2))
fi
min_ranks=${min_ranks:-$ranks}
[[ $ranks =~ ^[1-9][0-9]*$ ]] || misused "-n $ranks: must be a positive number"
[[ $max_restarts =~ ^[0-9]+$ ]] || misused "--max-restarts $max_restarts: must be a number"
[[ $min_ranks =~ ^[1-9][0-9]*$ ]] || misused "--min-ranks $min_ranks: must be a positive number"
[ "$min_ranks" -le "$ranks" ] || misused "--min-ranks $min_ranks: more than the $ranks ranks of -n"
[ "$min_ranks" -eq "$ranks" ] || [ -n "$all_hosts" ] || misused "--min-ranks needs --hosts: one machine has slots for all"
[ -z "$all_hosts" ] || [ -r "$all_hosts" ] || fail "--hosts $all_hosts cannot be read"
[ -n "$program" ] || program=$(bash "$here/mpirun.sh" --which)
[ -x "$(command -v "$program")" ] || fail "$program is not a program"
case " $* " in *" --resume "*) ;; *) set -- "$@" --resume ;; esac
[ -z "$discovery" ] || set -- "$@" --set "metrics.discovery_file=$discovery"
# A rank cannot see where its output goes in the end: mpirun gives it, and so the shell above it, a terminal.
[ -t 1 ] || set -- "$1" --set run.progress=plain "${@:2}"

job='' notes='' stopping='' code=0 ending='' refused='' restarts=0 fruitless=0 proven='' wanted=$ranks hosts=$all_hosts
trap clean_up EXIT
trap 'pass_on INT' INT
trap 'pass_on TERM' TERM
trap 'pass_on HUP' HUP
trap 'pass_on USR1' USR1
run_dir=$(find_run_dir "$@")
# On several hosts the notes must be where all see them, as the run is.
if [ -n "$all_hosts" ] && [ -n "$run_dir" ]; then
  mkdir -p "$(dirname "$run_dir")"
  notes=$(mktemp -d "$(realpath "$(dirname "$run_dir")")/.launch-XXXXXX")
else
  notes=$(mktemp -d)
fi
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
set -m # mpirun.sh in a process group of its own, so that the terminal's Ctrl-C reaches only this script
best_step=$(newest_step) best_checkpoint=$(newest_checkpoint)
while [ -z "$stopping" ]; do
  start "$@"
  judge
  if [ "$code" -eq 0 ] || [ "$code" -eq "$stopped" ] || [ -n "$stopping" ]; then exit "$code"; fi
  prepare_restart
  [ -n "$stopping" ] ||
    say "restart $restarts of $max_restarts, on $ranks ranks, from $([ "$best_checkpoint" -eq 0 ] && echo the start ||
      echo "the checkpoint of step $best_checkpoint")"
done
say "asked to stop between two starts; the last checkpoint counts"
exit "$stopped"
