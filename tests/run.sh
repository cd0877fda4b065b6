#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test and check through ctest.
set -euo pipefail

usage() {
  cat <<'TXT'
usage: bash tests/run.sh [--full] [--filter REGEX] [--jobs N]

  --full          also build with ASan/UBSan and with TSan and run the unit tests there, fuzz for long, use many seeds,
                  run the slowest lint checks
  --filter REGEX  run only the ctest entries whose names match
  --jobs N        build and test with N processes (default: this machine's cores)
The tests against PyTorch need what tests/python_env.sh installs into build/; where it cannot be had they are skipped.
Skipped tests are listed; a skip that tests/skip_allowlist.txt does not allow fails the run.
TXT
}

cd "$(dirname "$0")/.."
full= filter= jobs=$(nproc)
while [ $# -gt 0 ]; do
  case $1 in
    --full) full=1; shift ;;
    --filter) filter=${2:?--filter needs a regular expression}; shift 2 ;;
    --jobs) jobs=${2:?--jobs needs a number}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done

say() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

configure_and_build() {
  local preset=$1
  shift
  say "build: $preset"
  # An option once given stays in the build folder's cache, so each is given every time.
  cmake --preset "$preset" -DCARTESIAN_TESTS=ON "$@" >"$logs/configure-$preset.txt" 2>&1 ||
    { cat "$logs/configure-$preset.txt"; return 1; }
  cmake --build "build/$preset" -- -j"$jobs" >"$logs/build-$preset.txt" 2>&1 ||
    { grep -E -A15 'FAILED|error' "$logs/build-$preset.txt" | head -n 200; return 1; }
}

# run_ctest PRESET [ctest arguments]: leaves what ctest printed in $logs/ctest-PRESET.txt, what the tests printed in
# $logs/output-PRESET.txt.
run_ctest() {
  local preset=$1
  shift
  say "test: $preset"
  ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -j"$jobs" \
    --test-output-size-passed 10000000 --output-log "$logs/ctest-$preset.txt" "$@" || failed=1
  cp "build/$preset/Testing/Temporary/LastTest.log" "$logs/output-$preset.txt"
}

logs=$PWD/build/test-logs
mkdir -p "$logs"
rm -f "$logs"/*
failed=
select=(${filter:+-R "$filter"})

bash cluster/install.sh build tests
say "PyTorch, for the tests that compare with it"
bash tests/python_env.sh || [ $? -eq 77 ]
bash cluster/install.sh browser || echo "no browser: the test that opens the report's page is skipped"
configure_and_build release -DCARTESIAN_TIMEOUT_SCALE=$((${full:-0} ? 20 : 1))
if [ -n "$full" ]; then
  export CARTESIAN_FULL=1 CARTESIAN_FUZZ_RUNS=${CARTESIAN_FUZZ_RUNS:-2000000}
fi
run_ctest release "${select[@]}"

if [ -n "$full" ]; then
  unset CARTESIAN_FULL CARTESIAN_FUZZ_RUNS
  for preset in asan tsan; do
    configure_and_build "$preset" -DCARTESIAN_TIMEOUT_SCALE=10
  done
  run_ctest asan -L unit "${select[@]}"
  # TSan does not see how OpenMP's runtime synchronises, so there each rank has one thread; ranks are threads themselves.
  OMP_THREAD_LIMIT=1 UCX_MEM_MMAP_HOOK_MODE=none run_ctest tsan -L unit "${select[@]}"
fi

say "skipped"
CARTESIAN_FULL=${full:+1} python3 tests/list_skipped.py tests/skip_allowlist.txt "$logs"/{ctest,output}-*.txt || failed=1
say "done"
grep -h 'tests passed' "$logs"/ctest-*.txt
[ -z "$failed" ]
