#!/bin/sh
# How long `put` and `get` of many small files take beside `cp -r`: medians of hyperfine, in one run.
#   tests/peer_bench/small_files.sh TOOL [FILES [RUNS [FOLDER]]]
# Files of 4 KiB, below FOLDER (/dev/shm: a tmpfs), with a server that runs already. Each command starts without its output.
set -eu
tool=$(realpath "$1") files=${2:-1000} runs=${3:-20} folder=${4:-/dev/shm}
work=$(mktemp -d "$folder/small-files.XXXXXX")
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
mkdir "$work/in" "$work/cp" "$work/served"
head -c "$((files * 4096))" /dev/urandom | split -b 4096 -a 6 -d - "$work/in/f"
"$tool" serve --port 0 "$work/served" </dev/null >"$work/address" &
server=$!
until address=$(awk '/^listening on / { print $3; found = 1; exit } END { exit !found }' "$work/address"); do sleep 0.05; done
hyperfine -N --warmup 1 --runs "$runs" --export-json "$work/times.json" \
    -n "cp -r" --prepare "rm -rf $work/cp/in" "cp -r $work/in $work/cp/" \
    -n put --prepare "rm -rf $work/served/in" "$tool put $work/in $address" \
    -n get --prepare "rm -rf $work/back" "$tool get in $address -o $work/back" >/dev/null
diff -r "$work/in" "$work/served/in"
diff -r "$work/in" "$work/back/in"
python3 - "$work/times.json" <<'END'
import json, sys
results = json.load(open(sys.argv[1]))["results"]
for result in results:
    median = result["median"]
    print(f"{result['command']:6} {median * 1e3:7.1f} ms  {median / results[0]['median']:.2f} of cp -r")
END
