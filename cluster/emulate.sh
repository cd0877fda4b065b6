#!/usr/bin/env bash
# An emulated cluster on one Linux machine: network namespaces are its nodes, joined by links of limited rate.
set -euo pipefail

usage() {
  cat <<'TXT'
usage: cluster/emulate.sh SUBCOMMAND ARGUMENT...

  up NODES [--rate RATE]                    make a cluster of NODES nodes
  run NODES RANKS_PER_NODE -- COMMAND...    run an MPI job on it, or on one that lives as long as the job
  enter NODE -- COMMAND...                  run a command on one node
  throttle NODE RATE                        give one node's link another rate, while a job runs too
  cut NODE, heal NODE                       drop all that a node sends and is sent; let it pass again
  bytes [--json]                            what each node's link has carried, by the kernel's counters
  down                                      end what runs on the cluster, and remove it
SUBCOMMAND --help says more.

A node has a network, a host name (node0, node1, ...) and shared memory of its own; files, processors and memory are the
machine's. Needs root, iproute2, util-linux and, to run jobs, Open MPI. Everything that it makes is named
`cartesian-...` (namespaces, one folder and one file in /run); CARTESIAN_CLUSTER=cartesian-NAME makes another cluster.
TXT
}

usage_of() {
  case $1 in
    up) cat <<'TXT'
usage: cluster/emulate.sh up NODES [--rate RATE]

Makes NODES nodes (1 to 200), each with a link to a switch that joins them, which carries RATE each way (a number and
kbit, mbit or gbit; 400mbit). An earlier cluster is removed first, or left alone if a job runs on it.
Examples: cluster/emulate.sh up 4
          cluster/emulate.sh up 2 --rate 1gbit
TXT
      ;;
    run) cat <<'TXT'
usage: cluster/emulate.sh run NODES RANKS_PER_NODE [--rate RATE] -- COMMAND...

Runs COMMAND by Open MPI's mpirun on the first NODES nodes, RANKS_PER_NODE ranks on each (1,3: one on node0, three on
node1). Ranks talk by shared memory inside a node and by TCP over the links between nodes. If no cluster is up, one is
made for the job (with links of RATE) and removed after it. The exit code is the job's. Ctrl-C and TERM end the job;
USR1 is passed on to the ranks, and asks `cartesian train` to stop with a checkpoint.
OMP_NUM_THREADS is cores / ranks unless you set it; what else you set for Open MPI and UCX is kept, but for the network.
Examples: cluster/emulate.sh run 2 2 -- build/release/runtime/cartesian train configs/quickstart.toml
          cluster/emulate.sh run 2 1,3 --rate 100mbit -- hostname
TXT
      ;;
    enter) cat <<'TXT'
usage: cluster/emulate.sh enter NODE -- COMMAND...

Runs COMMAND on a node: with its network, its host name and a /dev/shm of its own.
Examples: cluster/emulate.sh enter 0 -- ping -c 3 node1
          cluster/emulate.sh enter node1 -- bash
TXT
      ;;
    throttle) cat <<'TXT'
usage: cluster/emulate.sh throttle NODE RATE

Gives the link of NODE the rate RATE each way, at once.
Examples: cluster/emulate.sh throttle 1 50mbit      # a straggler
          cluster/emulate.sh throttle node1 400mbit
TXT
      ;;
    cut | heal) cat <<'TXT'
usage: cluster/emulate.sh cut NODE
       cluster/emulate.sh heal NODE

`cut` takes the link of NODE down, as if its cable were pulled: what it sends, and what is sent to it, is dropped and
nobody is told. `heal` lets packets pass again; connections that have not given up go on.
Examples: cluster/emulate.sh cut 1
          cluster/emulate.sh heal 1
TXT
      ;;
    bytes) cat <<'TXT'
usage: cluster/emulate.sh bytes [--json]

Prints each node's bytes sent to and received from other nodes since `up`, as its link's counters in the kernel have
them: payload and headers of all that runs there, mpirun's own messages (some KiB) included; rate, and link up or cut.
Examples: cluster/emulate.sh bytes
          cluster/emulate.sh bytes --json | python3 -m json.tool
TXT
      ;;
    down) cat <<'TXT'
usage: cluster/emulate.sh down

Ends the job and every process that runs on the cluster, and removes the cluster. Does nothing if there is none.
Example: cluster/emulate.sh down
TXT
      ;;
  esac
}

say() { printf 'emulate.sh: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }
misused() { say "$*" >&2; usage_of "$subcommand" >&2; exit 2; }

# attempt SENTENCE COMMAND...: fails with SENTENCE and what the command said.
attempt() {
  local sentence=$1 said
  shift
  said=$("$@" 2>&1) || fail "$sentence${said:+ ($(tail -n 1 <<<"$said"))}"
}

require_root() {
  [ "$(uname -s)" = Linux ] || fail "needs Linux"
  [ "$(id -u)" -eq 0 ] || fail "needs root, to make network namespaces: sudo $0 $subcommand ..."
}

require_programs() {
  local program
  for program in "$@"; do
    case $program in
      ip | tc) command -v "$program" >/dev/null || fail "needs $program: install iproute2" ;;
      mpirun) command -v mpirun >/dev/null || fail "needs Open MPI's mpirun: bash cluster/install.sh build" ;;
      *) command -v "$program" >/dev/null || fail "needs $program: install util-linux" ;;
    esac
  done
  [ "${1:-}" != ip ] || ip netns list >/dev/null 2>&1 || fail "needs an \`ip\` that knows \`ip netns\`: install iproute2"
}

namespace_of() { echo "$cluster-node$1"; }
node_count() { cat "$state/nodes" 2>/dev/null || echo 0; }

# The index of a node that the user names: 1 or node1.
node_index() {
  local index=${1#node} count
  count=$(node_count)
  [ "$count" -gt 0 ] || fail "no cluster is up: cluster/emulate.sh up NODES"
  [[ $index =~ ^(0|[1-9][0-9]{0,2})$ ]] || misused "$1: not a node"
  [ "$index" -lt "$count" ] || fail "there is no node $index: the cluster has $count nodes, from 0"
  echo "$index"
}

check_node_count() {
  [[ $1 =~ ^[1-9][0-9]{0,2}$ ]] && [ "$1" -le 200 ] || misused "NODES $1: must be 1 to 200"
}

check_rate() {
  [[ $1 =~ ^[0-9]+(\.[0-9]+)?[kmg]bit$ && $1 =~ [1-9] ]] || misused "rate $1: must be a number and kbit, mbit or gbit"
}

# Holds the cluster for this process until it ends. Children that may outlive it for long must not inherit descriptor 9;
# one that does for a moment is why nobody gives up at once.
lock() {
  while :; do
    exec 9>>"$lock_file"
    flock "$@" 9 || return 1
    [ ! "$lock_file" -ef /dev/fd/9 ] || break # else its last holder has removed it
  done
  echo "$$" >"$lock_file"
}

set_traps() {
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'checkpoint=1' USR1
  trap clean_up EXIT
}

lock_or_fail() {
  set_traps
  lock -w 2 || fail "in use by process $(cat "$lock_file"); \`cluster/emulate.sh down\` ends it"
}

existing_namespaces() {
  ip netns list 2>/dev/null | awk '{print $1}' | grep -E "^$cluster-(switch|node[0-9]+)\$" || true
}

all_processes() {
  local namespace
  for namespace in $(existing_namespaces); do
    ip netns pids "$namespace" 2>/dev/null || true
  done
}

# end all_processes | end job_processes
end() {
  local pids attempts=100
  while [ "$attempts" -gt 0 ]; do
    mapfile -t pids < <("$1")
    [ ${#pids[@]} -gt 0 ] || return 0
    kill -KILL "${pids[@]}" 2>/dev/null || true
    sleep 0.1
    attempts=$((attempts - 1))
  done
  say "these processes do not end: ${pids[*]}" >&2
}

# Removes whatever is there of the cluster, complete or not. Links go with the namespaces that they are in.
remove_cluster() {
  local namespace
  rm -f "$state/nodes"
  end all_processes
  for namespace in $(existing_namespaces); do
    ip netns delete "$namespace" || true
  done
  rm -rf "$state"
}

# Runs when a script that changes the cluster ends, however that is.
clean_up() {
  trap '' INT TERM
  [ -z "$builder" ] || { kill -TERM "$builder" && wait "$builder"; } 2>/dev/null || true
  [ -z "$job" ] || end job_processes
  [ -z "$temporary" ] || remove_cluster
  # It stays if another process holds it, or has made it anew.
  if [ "$lock_file" -ef /dev/fd/9 ] && flock -n 9; then rm "$lock_file"; fi
}

make_namespace() {
  attempt "this kernel or container does not let root make network namespaces" ip netns add "$1"
  # Without IPv6, nothing is sent but what jobs send.
  # shellcheck disable=SC2016  # for the inner shell
  ip netns exec "$1" sh -c 'for which in all default; do echo 1 >"/proc/sys/net/ipv6/conf/$which/disable_ipv6"; done' \
    2>/dev/null || true
}

make_node() {
  local index=$1 namespace
  namespace=$(namespace_of "$index")
  make_namespace "$namespace"
  attempt "this kernel cannot link namespaces (veth)" \
    ip -n "$cluster-switch" link add "port$index" type veth peer name eth0 netns "$namespace"
  ip -n "$cluster-switch" link set "port$index" master switch up
  ip -n "$namespace" link set lo up
  ip -n "$namespace" address add "$network.$((index + 1))/24" dev eth0
  ip -n "$namespace" link set eth0 up
  shape "$index" "$2"
  echo "$network.$((index + 1)) node$index" >>"$state/hosts"
}

# shape INDEX RATE: limits a node's link in both directions. A bucket holds 5 ms, and at least one packet of the largest size.
shape() {
  local index=$1 rate=$2 burst
  burst=$(awk -v rate="$rate" 'BEGIN {
    factor["k"] = 1e3; factor["m"] = 1e6; factor["g"] = 1e9
    bytes = rate * factor[substr(rate, length(rate) - 3, 1)] / 8 * 0.005
    printf "%d", (bytes > 70000 ? bytes : 70000)
  }')
  set -- root tbf rate "$rate" burst "$burst" latency 50ms
  attempt "this kernel cannot limit rates (sch_tbf)" tc -n "$(namespace_of "$index")" qdisc replace dev eth0 "$@"
  attempt "this kernel cannot limit rates (sch_tbf)" tc -n "$cluster-switch" qdisc replace dev "port$index" "$@"
  echo "$rate" >"$state/rate.$index"
}

# The kernel takes up to a second to let packets pass once a link has its carrier.
await_link() {
  local attempts=100
  until [ "$(ip netns exec "$(namespace_of "$1")" cat /sys/class/net/eth0/operstate)" = up ]; do
    [ "$((--attempts))" -gt 0 ] || fail "the link of node $1 does not come up"
    sleep 0.05
  done
}

# build_cluster() in the background: a shell that waits in the foreground may miss a Ctrl-C. As long as `temporary` is set,
# clean_up() removes the cluster.
make_cluster() {
  temporary=1
  (trap 'exit 1' TERM; build_cluster "$@") &
  builder=$!
  wait "$builder" || exit
  builder=''
}

build_cluster() {
  local nodes=$1 rate=$2 index
  remove_cluster
  mkdir -m 700 "$state" "$state/tmp"
  touch "$state/temporary"
  echo "127.0.0.1 localhost" >"$state/hosts"
  # What mpirun starts on other nodes by: AGENT HOST COMMAND, the command being a line for a shell.
  # shellcheck disable=SC2016  # for the agent
  printf 'host=$1; shift; exec bash %q enter "$host" -- sh -c "$*"\n' "$self" >"$state/agent"
  make_namespace "$cluster-switch"
  attempt "this kernel cannot join links (bridge)" ip -n "$cluster-switch" link add switch type bridge mcast_snooping 0
  ip -n "$cluster-switch" link set switch up
  for ((index = 0; index < nodes; ++index)); do
    kill -0 $$ 2>/dev/null || exit 1 # it has been killed
    make_node "$index" "$rate"
  done
  for ((index = 0; index < nodes; ++index)); do
    await_link "$index"
  done
  echo "$nodes" >"$state/nodes"
}

up() {
  local nodes=${1:-} rate=$default_rate
  check_node_count "$nodes"
  shift
  [ "${1:-}" != --rate ] || { rate=${2:?--rate needs a rate}; shift 2; }
  [ $# -eq 0 ] || misused "$1: not understood"
  check_rate "$rate"
  require_programs ip tc flock unshare
  lock_or_fail
  make_cluster "$nodes" "$rate"
  rm "$state/temporary"
  temporary=''
  say "$nodes nodes are up, node0 to node$((nodes - 1)), $rate each way"
}

down() {
  [ $# -eq 0 ] || misused "$1: not understood"
  require_programs ip flock
  set_traps
  if ! lock -w 2; then
    kill -TERM "$(cat "$lock_file")" 2>/dev/null || true
    lock -w 30 || fail "process $(cat "$lock_file") does not end"
  fi
  temporary=1 # for clean_up()
}

throttle() {
  local index
  [ $# -eq 2 ] || misused "needs NODE and RATE"
  check_rate "$2"
  require_programs ip tc
  index=$(node_index "$1")
  shape "$index" "$2"
}

# set_link NODE up|down: the switch's end; the node sees that it has no carrier.
set_link() {
  local index
  [ $# -eq 2 ] || misused "needs NODE"
  require_programs ip
  index=$(node_index "$2")
  ip -n "$cluster-switch" link set "port$index" "$1"
  [ "$1" = down ] || await_link "$index"
}

# Prints, a line a node: index, rate, up or cut, bytes sent, bytes received.
counters() {
  local index count values
  count=$(node_count)
  for ((index = 0; index < count; ++index)); do
    # shellcheck disable=SC2016  # for the inner shell
    values=$(ip netns exec "$(namespace_of "$index")" sh -c 'cd /sys/class/net/eth0 &&
      echo $([ "$(cat carrier)" = 1 ] && echo up || echo cut) $(cat statistics/tx_bytes statistics/rx_bytes)')
    echo "$index $(cat "$state/rate.$index") $values"
  done
}

bytes() {
  local format=table
  [ "${1:-}" != --json ] || { format=json; shift; }
  [ $# -eq 0 ] || misused "$1: not understood"
  require_programs ip
  node_index 0 >/dev/null
  counters | "print_$format"
}

print_table() {
  local index rate link sent received
  printf '%-8s %10s %5s %15s %15s\n' node rate link 'bytes sent' 'bytes received'
  while read -r index rate link sent received; do
    printf '%-8s %10s %5s %15d %15d\n' "node$index" "$rate" "$link" "$sent" "$received"
  done
}

print_json() {
  local index rate link sent received between=''
  printf '['
  while read -r index rate link sent received; do
    printf '%s{"node": %d, "host": "node%d", "rate": "%s", "link": "%s", "sent_bytes": %d, "received_bytes": %d}' \
      "$between" "$index" "$index" "$rate" "$link" "$sent" "$received"
    between=$',\n '
  done
  printf ']\n'
}

# Replaces this process by a command on a node.
enter() {
  local index
  [ $# -ge 3 ] && [ "$2" = -- ] || misused "needs NODE, -- and a command"
  index=$(node_index "$1")
  shift 2
  require_programs ip unshare
  # shellcheck disable=SC2016  # for the inner shell
  exec ip netns exec "$(namespace_of "$index")" unshare --uts --ipc -- sh -euc '
    hostname "$1"
    mount --bind "$2" /etc/hosts
    mount -t tmpfs -o mode=1777 shm /dev/shm
    shift 2
    exec "$@"' sh "node$index" "$state/hosts" "$@"
}

self=$(realpath "$0")
# shellcheck source=cluster/emulate_job.sh
source "${self%/*}/emulate_job.sh"
cluster=${CARTESIAN_CLUSTER:-cartesian}
[[ $cluster =~ ^cartesian(-[a-z0-9]+)*$ ]] || fail "CARTESIAN_CLUSTER=$cluster: must be cartesian or cartesian-NAME"
state=/run/$cluster-emulated
lock_file=$state.lock
network=10.77.0 default_rate=400mbit
mark=CARTESIAN_EMULATED_JOB # in the environment of what a job starts
job='' builder='' temporary='' stopped='' checkpoint=''
subcommand=${1:-}
[ $# -gt 0 ] || { usage >&2; exit 2; }
shift
case $subcommand in
  up | run | enter | throttle | cut | heal | bytes | down) ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac
case ${1:-} in -h | --help) usage_of "$subcommand"; exit 0 ;; esac
require_root
case $subcommand in
  cut) set_link down "$@" ;;
  heal) set_link up "$@" ;;
  *) "$subcommand" "$@" ;;
esac
