#!/usr/bin/env bash
# tool.sh SOURCE WORK CMAKE_OPTIONS...: builds the tool alone, installs it with its pages and completions, and compares them
# with the commands that it has.
set -euo pipefail
source=$1 work=$2
shift 2
rm -rf "$work/prefix"
cmake -S "$source" -B "$work/build" -G Ninja "$@" -DFLAGCX_P2P_TOOL=ON -DFLAGCX_P2P_BUILD_TESTS=OFF >/dev/null
cmake --build "$work/build" --target flagcx_p2p_tool
cmake --install "$work/build" --component tool --prefix "$work/prefix"

share=$work/prefix/share
bash=$share/bash-completion/completions/flagcx-p2p
commands=$("$work/prefix/bin/flagcx-p2p" --help |
  awk '/^Commands:/ { on = 1; next } /^$/ { on = 0 } on && /^  [a-z]/ && $1 != "help" { print $1 }')
[ "$(wc -w <<<"$commands")" -ge 9 ]
for command in $commands; do
  [ -s "$share/man/man1/flagcx-p2p-$command.1" ] || { echo "no manual page of $command"; exit 1; }
  for script in "$bash" "$share/zsh/site-functions/_flagcx-p2p" "$share/fish/vendor_completions.d/flagcx-p2p.fish"; do
    grep -q "$command" "$script" || { echo "$script does not know $command"; exit 1; }
  done
done
[ -s "$share/man/man1/flagcx-p2p.1" ]

# What bash makes of it: `flagcx-p2p do<TAB>`.
# shellcheck disable=SC1090 # the script under test
source "$bash"
COMP_WORDS=(flagcx-p2p "do") COMP_CWORD=1 COMPREPLY=()
"$(complete -p flagcx-p2p | sed 's/.*-F \([^ ]*\).*/\1/')" flagcx-p2p "do" flagcx-p2p
[ "${COMPREPLY[*]}" = doctor ] || { echo "bash completes to ${COMPREPLY[*]}"; exit 1; }
