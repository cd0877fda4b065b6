#!/usr/bin/env bash
# The MPI jobs of cluster/emulate.sh, which reads this file: starting one, waiting for it, ending it, however it goes.
# `cluster/emulate.sh run --help` says how to use it.
# shellcheck disable=SC2154  # variables of cluster/emulate.sh
set -euo pipefail

# The processes of the cluster that a `run` has started.
job_processes() {
  local files
  mapfile -t files < <(all_processes | sed 's|.*|/proc/&/environ|')
  [ ${#files[@]} -eq 0 ] || grep -lzs "^$mark=1\$" "${files[@]}" | cut -d / -f 3 || true
}

# A cluster that is whole, and not what a killed `run` has left.
is_up() {
  local namespaces
  mapfile -t namespaces < <(existing_namespaces)
  [ -e "$state/nodes" ] && [ ! -e "$state/temporary" ] && [ ${#namespaces[@]} -eq $(($(node_count) + 1)) ]
}

# ranks_of NODES RANKS_PER_NODE: prints the number of ranks of every node.
ranks_of() {
  local nodes=$1 sizes=() index
  [[ $2 =~ ^[1-9][0-9]*(,[1-9][0-9]*)*$ ]] || misused "RANKS_PER_NODE $2: must be a number, or a list like 1,3"
  IFS=, read -ra sizes <<<"$2"
  [ ${#sizes[@]} -eq 1 ] || [ ${#sizes[@]} -eq "$nodes" ] ||
    misused "RANKS_PER_NODE $2: must be one number, or one for each of $nodes nodes"
  for ((index = 0; index < nodes; ++index)); do
    echo "${sizes[index]:-${sizes[0]}}"
  done
}

# What Open MPI, UCX and NCCL are told by the environment; what the user has set stays, but for the network.
export_defaults() {
  local threads=$(($(nproc) / $1))
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 1 ? threads : 1))}
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  export OMPI_MCA_pml=${OMPI_MCA_pml-ob1} OMPI_MCA_btl=${OMPI_MCA_btl-self,vader,tcp}
  # Ranks that share a core must not spin while they wait.
  export OMPI_MCA_mpi_yield_when_idle=${OMPI_MCA_mpi_yield_when_idle-1}
  export OMPI_MCA_btl_tcp_if_include=eth0 OMPI_MCA_oob_tcp_if_include=eth0 OMPI_MCA_orte_tmpdir_base=$state/tmp
  export UCX_NET_DEVICES=eth0 NCCL_SOCKET_IFNAME=eth0 "$mark=1"
}

# start_job RANKS... -- COMMAND...: leaves mpirun's process id in `job`.
start_job() {
  local hosts='' index=0 ranks=0
  while [ "$1" != -- ]; do
    hosts+=${hosts:+,}node$index:$1
    ranks=$((ranks + $1))
    index=$((index + 1))
    shift
  done
  shift
  export_defaults "$ranks"
  set -m # a process group of its own, so that the terminal's Ctrl-C reaches only this script
  # Daemons that stay attached are missed by mpirun if they die.
  enter 0 -- mpirun --quiet --leave-session-attached --mca plm rsh --mca plm_rsh_agent "bash $state/agent" \
    --mca plm_rsh_no_tree_spawn 1 --host "$hosts" --map-by slot --oversubscribe --bind-to none "$@" </dev/null 9>&- &
  job=$!
  set +m
}

# Are there processes of the job other than Open MPI's own?
ranks_run() {
  local files
  mapfile -t files < <(job_processes | sed 's|.*|/proc/&/environ|')
  [ ${#files[@]} -gt 0 ] && grep -qzs '^OMPI_COMM_WORLD_RANK=' "${files[@]}"
}

# stop CODE: the first signal asks mpirun to end the job, the second ends it.
stop() {
  if [ -z "$stopped" ]; then
    stopped=$1 patience=5
    kill -TERM "$job" 2>/dev/null || true
  else
    end job_processes
  fi
}

# Once a second: passes USR1 on, and says whether the job is to be ended. Where a node has been cut off, mpirun waits for
# ever for a word from there; so it is ended when all ranks have, or when it does not answer a signal.
is_over() {
  if [ -z "$stopped" ] && ranks_run; then
    patience=5 idle=0 # seconds
    # Not earlier: mpirun would start no ranks, and exit with 0.
    [ -z "$checkpoint" ] || kill -USR1 "$job" 2>/dev/null || true
    checkpoint=''
    return 1
  fi
  idle=$((idle + 1))
  [ "$idle" -gt "$patience" ]
}

# Returns the job's exit code.
wait_for_job() {
  local idle=0 patience=30 code=0 ticks=0
  while kill -0 "$job" 2>/dev/null; do
    sleep 0.1
    ticks=$(((ticks + 1) % 10))
    if [ "$ticks" -eq 0 ] && is_over; then
      [ -n "$stopped" ] || say "the ranks have ended, mpirun has not: ending it" >&2
      { end job_processes; wait "$job" || true; } 2>/dev/null # else bash says that it was killed
      return "${stopped:-1}"
    fi
  done
  wait "$job" || code=$?
  return "${stopped:-$code}"
}

run() {
  local nodes=${1:-} sizes rate='' code=0
  [ $# -ge 2 ] || misused "needs NODES and RANKS_PER_NODE"
  check_node_count "$nodes"
  sizes=$(ranks_of "$nodes" "$2")
  shift 2
  [ "${1:-}" != --rate ] || { rate=${2:?--rate needs a rate}; check_rate "$rate"; shift 2; }
  [ "${1:-}" = -- ] && [ $# -ge 2 ] || misused "needs -- and a command"
  require_programs ip tc flock unshare mpirun
  type -P "$2" >/dev/null || fail "$2 is not a program"
  lock_or_fail
  if ! is_up; then
    make_cluster "$nodes" "${rate:-$default_rate}"
  else
    [ "$nodes" -le "$(node_count)" ] || fail "the cluster has $(node_count) nodes, fewer than $nodes: make another (up)"
    [ -z "$rate" ] || fail "a cluster is up: its rates are those of \`up\` and \`throttle\`"
    end job_processes # of a `run` that was killed
  fi
  trap 'stop 130' INT
  trap 'stop 143' TERM
  # shellcheck disable=SC2086  # a list
  start_job $sizes "$@"
  wait_for_job || code=$?
  exit "$code"
}
