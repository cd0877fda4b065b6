#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that Cartesian needs and that are missing; does nothing, quickly, when all are there.
set -euo pipefail

usage() {
  cat <<'TXT'
usage: bash cluster/install.sh [build] [tests] [corpora] [browser]

Installs what is missing of the named sets of packages (the first three if none is named):
  build    compilers, libraries, Open MPI and UCX: what building and running `cartesian` needs
  tests    GoogleTest, Google Benchmark, METIS, clang-tidy, clang-format, git, Python, iproute2, Prometheus and Slurm
  corpora  Python and what reads the public-domain texts of cluster/corpora.sh
  browser  Chromium, in which a test opens the report's page; that test is skipped without it
Needs root or sudo only if something is missing. Made for Debian 12 and Ubuntu 24.04.
TXT
}

# A name with bars lists alternatives: any of them will do, the first that can be had is installed.
# The OpenCL loader is what the CMake package of libdnnl-dev looks for and its Debian package forgets.
build_packages=(g++ cmake ninja-build 'pkgconf|pkg-config' openmpi-bin libopenmpi-dev libucx-dev libdnnl-dev
  ocl-icd-opencl-dev libfmt-dev libspdlog-dev nlohmann-json3-dev libtomlplusplus-dev libcli11-dev libxxhash-dev
  libsentencepiece-dev libboost-dev libssl-dev prometheus-cpp-dev)
tests_packages=(libgtest-dev libbenchmark-dev libmetis-dev python3 python3-venv git iproute2 prometheus
  slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge 'libpmix2|libpmix2t64'
  'clang-tidy-16|clang-tidy-17|clang-tidy-18' 'clang-format-16|clang-format-17|clang-format-18')
corpora_packages=(python3 'libreadline8|libreadline8t64')
# Ubuntu's chromium packages only fetch a snap, which containers cannot run: there it is Chrome, if its archive was added.
browser_packages=('chromium|google-chrome-stable')

say() { printf 'install: %s\n' "$*"; }

is_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Prints the groups, of those given, of which no alternative is installed.
missing_groups() {
  local group name
  for group in "$@"; do
    for name in ${group//|/ }; do
      is_installed "$name" && continue 2
    done
    printf '%s\n' "$group"
  done
}

# Prints the first alternative of a group that apt knows, or fails.
choose() {
  local name
  for name in ${1//|/ }; do
    if apt-cache show --no-all-versions "$name" >/dev/null 2>&1; then
      printf '%s\n' "$name"
      return
    fi
  done
  return 1
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    env DEBIAN_FRONTEND=noninteractive "$@"
  else
    sudo env DEBIAN_FRONTEND=noninteractive "$@"
  fi
}

may_install() {
  [ "$(id -u)" -eq 0 ] && return
  command -v sudo >/dev/null || return
  sudo -n true 2>/dev/null || [ -t 0 ]
}

install_groups() {
  local group name names=()
  for group in "$@"; do
    name=$(choose "$group") || { say "apt knows no package '$group'"; return 1; }
    names+=("$name")
  done
  say "installing ${names[*]}"
  as_root apt-get -o DPkg::Lock::Timeout=300 -q -y --no-install-recommends install "${names[@]}" >"$log" 2>&1
}

main() {
  local set wanted=() missing=()
  [ $# -gt 0 ] || set -- build tests corpora
  for set in "$@"; do
    case $set in
      build) wanted+=("${build_packages[@]}") ;;
      tests) wanted+=("${tests_packages[@]}") ;;
      corpora) wanted+=("${corpora_packages[@]}") ;;
      browser) wanted+=("${browser_packages[@]}") ;;
      -h | --help) usage; exit 0 ;;
      *) usage >&2; exit 2 ;;
    esac
  done
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    say "no apt-get here: make sure yourself that these are installed: ${wanted[*]}"
    exit 0
  fi
  mapfile -t missing < <(missing_groups "${wanted[@]}" | sort -u)
  [ ${#missing[@]} -gt 0 ] || exit 0
  if ! may_install; then
    say "missing, and this is neither root nor a user who may use sudo; ask an administrator to run:" >&2
    say "  apt-get install --no-install-recommends ${missing[*]%%|*}" >&2
    exit 1
  fi
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  if ! install_groups "${missing[@]}"; then
    say "trying once more with fresh package lists"
    as_root apt-get -o DPkg::Lock::Timeout=300 -q update >>"$log" 2>&1 || true
    if ! install_groups "${missing[@]}"; then
      tail -n 15 "$log" >&2
      say "apt-get could not install: ${missing[*]}" >&2
      exit 1
    fi
  fi
}

main "$@"
