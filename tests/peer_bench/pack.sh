#!/bin/sh
# pack.sh FOLDER PEERS LIBRARY_DIR: into FOLDER what measures this engine, UCX and the machine's limits on another machine,
# which needs Python 3.9 and libstdc++, and no network. PEERS holds the Python package libucx-cu12 in PEERS/ucx; LIBRARY_DIR
# is that of libflagcx_p2p.so. There: FOLDER/run.sh [ARGUMENTS OF run.py].
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: pack.sh FOLDER PEERS LIBRARY_DIR}
peers=${2:?usage: pack.sh FOLDER PEERS LIBRARY_DIR}
library=${3:?usage: pack.sh FOLDER PEERS LIBRARY_DIR}
mkdir -p "$folder/lib/ucx"
folder=$(cd "$folder" && pwd)

# The drivers find the libraries beside them.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$(cd "$peers" && pwd)/ucx" "$work/ucx"
RPATH="\$ORIGIN/lib" "$here/build.sh" "$work" "$library"
for program in limits ours libmeasure.so ucx_driver; do
    [ ! -e "$work/$program" ] || strip -o "$folder/$program" "$work/$program"
done
rm -f "$folder/ours_allocates"
[ ! -e "$work/ours_allocates" ] || cp "$work/ours_allocates" "$folder/"
strip -o "$folder/lib/libflagcx_p2p.so.0" "$library/libflagcx_p2p.so.0"

# UCX looks for the modules of its transports beside its libraries. Those of GPUs are left out.
packaged=$(echo "$peers"/ucx/lib/python3*/site-packages/libucx/lib)
for name in libucp.so.0 libuct.so.0 libucs.so.0 libucm.so.0 ucx/libuct_cma.so.0; do
    strip -o "$folder/lib/$name" "$packaged/$name"
done

cp "$here"/*.py "$folder/"
rm -f "$folder"/test_*.py
cat >"$folder/run.sh" <<'END'
#!/bin/sh
# Measures here: run.sh [--quick] [--json FILE]; --help tells more.
here=$(cd "$(dirname "$0")" && pwd)
# The libraries of UCX are for each other found here too.
export LD_LIBRARY_PATH="$here/lib"
exec python3 "$here/run.py" --build "$here" "$@"
END
chmod +x "$folder/run.sh"
