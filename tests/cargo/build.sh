#!/bin/bash
# build.sh REGISTERED LIST TARGETS CARGO_TEST...: builds the Rust test programs that TARGETS, options of cargo, chooses, and writes
# them to the file LIST, a line each: name, crate's folder, path. The tests inside a crate are CRATE.unit, those of its tests/FILE.rs
# are CRATE.FILE.
# The tests inside the crates are built first, two of them for as long as all others: cargo would begin them last as well.
#
# Fails when they are others than the names of the file REGISTERED: no test program is missed.
set -euo pipefail
registered=$1 list=$2
read -ra targets <<<"$3"
shift 3

readonly folder='.*"manifest_path":"([^"]*/([^"/]*))/Cargo.toml".*'
readonly program='"test":true\},"features".*"executable":"([^"]*)".*'
"$@" --no-run --lib
"$@" --no-run "${targets[@]}" --message-format=json-render-diagnostics | sed -nE \
  -e "s#$folder\"kind\":\[\"test\"\].*\"name\":\"([^\"]*)\".*$program#\2.\3\t\1\t\4#p" \
  -e "s#$folder\"kind\":\[\"(lib|bin|staticlib)\"\].*$program#\2.unit\t\1\t\4#p" | sort >"$list.new"
mv "$list.new" "$list"

if ! diff <(sort "$registered") <(cut -f1 "$list") >"$list.differences"; then
  sed -n 's/^</registered with ctest, not built:/p; s/^>/built, not registered with ctest:/p' "$list.differences"
  exit 1
fi
echo "$(wc -l <"$list") test programs"
