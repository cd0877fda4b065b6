#!/usr/bin/env bash
# Runs `cartesian` on N ranks under Open MPI, with the options that make it behave on one machine or on several.
set -euo pipefail

usage() {
  cat <<'TXT'
usage: cluster/mpirun.sh [-n N] [--hosts FILE] [--program PATH] [-- ] SUBCOMMAND ARGUMENT...

  -n N            ranks (default: one per core, at least 2)
  --hosts FILE    an Open MPI host file ("host slots=8", one a line); every host must see the same paths
  --program PATH  the executable (default: the newest of build/release and build/quickstart)
  --cores         print how many cores this machine offers, and end
  --which         print the executable that is the default, and end
Example: cluster/mpirun.sh -n 4 -- train configs/quickstart.toml --set train.steps=100
OMP_NUM_THREADS, threads per rank, is set to cores / ranks unless you set it or name hosts; there every rank takes its share of
its host's processors. The exit code is the job's.
TXT
}

# Physical cores that this process may use, by affinity and by the control group's quota.
cores() {
  local count physical quota period
  count=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) # which counts threads that OpenMP may have
  physical=$(lscpu -p=CORE,SOCKET 2>/dev/null | grep -v '^#' | sort -u | wc -l) || physical=0
  [ "$physical" -eq 0 ] || [ "$physical" -ge "$count" ] || count=$physical
  if read -r quota period 2>/dev/null </sys/fs/cgroup/cpu.max && [ "$quota" != max ]; then
    quota=$(((quota + period - 1) / period))
    [ "$quota" -ge "$count" ] || count=$quota
  fi
  echo "$count"
}

find_program() {
  local root candidate
  root=$(cd "$(dirname "$0")/.." && pwd)
  candidate=$(ls -t "$root"/build/{release,quickstart}/runtime/cartesian 2>/dev/null | head -n 1) || true
  [ -n "$candidate" ] || { echo "mpirun.sh: no build found; name the executable with --program" >&2; exit 1; }
  echo "$candidate"
}

ranks= hosts= program=
while [ $# -gt 0 ]; do
  case $1 in
    -n) ranks=${2:?-n needs a number}; shift 2 ;;
    --hosts) hosts=${2:?--hosts needs a file}; shift 2 ;;
    --program) program=${2:?--program needs a path}; shift 2 ;;
    --cores) cores; exit 0 ;;
    --which) find_program; exit 0 ;;
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    -*) usage >&2; exit 2 ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || { usage >&2; exit 2; }

available=$(cores)
if [ -z "$ranks" ]; then
  ranks=$((available > 2 ? available : 2))
fi
[[ $ranks =~ ^[1-9][0-9]*$ ]] || { echo "mpirun.sh: -n $ranks: must be a positive number" >&2; exit 2; }
[ -n "$program" ] || program=$(find_program)
[ -x "$(command -v "$program")" ] || { echo "mpirun.sh: $program is not a program" >&2; exit 1; }
command -v mpirun >/dev/null || { echo "mpirun.sh: no mpirun; install Open MPI: bash cluster/install.sh build" >&2; exit 1; }

# Threads are the program's to place, so ranks are not bound. On one machine Open MPI's explanations of a non-zero exit
# (--quiet drops them) would only bury the program's own sentence.
options=(--bind-to none)
if [ -n "$hosts" ]; then
  options+=(--hostfile "$hosts" ${OMP_NUM_THREADS:+-x OMP_NUM_THREADS})
elif [ "$ranks" -gt "$available" ]; then
  # Ranks that share a core must not spin while they wait.
  options+=(--quiet --oversubscribe --mca mpi_yield_when_idle 1)
else
  options+=(--quiet --oversubscribe)  # Open MPI may count fewer slots than there are cores
fi
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
if [ -z "$hosts" ]; then
  threads=$((available / ranks))
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 1 ? threads : 1))}
fi

# mpirun answers Ctrl-C and TERM by killing the ranks a second later. Ranks answer USR1, which mpirun passes on, by agreeing
# on a step to stop at and writing a checkpoint; so that is what they get, and only a second Ctrl-C ends them at once.
stop() {
  if [ -z "${stopping:-}" ]; then
    stopping=1
    ask_for_stop
    echo "mpirun.sh: stopping after a checkpoint; once more to stop at once" >&2 || true # the terminal may be gone
  else
    kill -TERM "$job" 2>/dev/null || true
  fi
}
# An mpirun that has not started its ranks yet would start none, and end with 0.
ask_for_stop() {
  local attempts=100
  until [ ! -e "/proc/$job/task/$job/children" ] || grep -qs . "/proc/$job/task/"*/children; do
    [ "$((--attempts))" -gt 0 ] || break
    sleep 0.05
  done
  kill -USR1 "$job" 2>/dev/null || true
}
job=
trap stop INT TERM HUP
trap ask_for_stop USR1
set -m  # a process group of its own, so that the terminal's Ctrl-C reaches only this script
mpirun -np "$ranks" "${options[@]}" "$program" "$@" </dev/null &
job=$!
# A signal ends a wait early; the job's exit code is that of the wait that finds it gone.
while :; do
  code=0
  wait "$job" || code=$?
  kill -0 "$job" 2>/dev/null || break
done
wait "$job" 2>/dev/null || code=$?
if [ "$code" -gt 128 ]; then
  echo "mpirun.sh: a rank was ended by signal $((code - 128)) ($(kill -l "$((code - 128))"))" >&2
elif [ "$code" -ne 0 ] && [ "$code" -ne 75 ]; then
  echo "mpirun.sh: the job failed (exit code $code)" >&2
fi
exit "$code"
