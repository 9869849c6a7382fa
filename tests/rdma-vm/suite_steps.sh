# shellcheck shell=bash disable=SC2154 # programs: the suites
# Steps of the suites that run in a guest. Sourced by suite.sh and suite_arm64.sh, which set `programs`: a file of lines `name path`.

failed=()

report() {
  local name=$1 status=$2 seconds=$3
  echo "=== $name: $([ "$status" = 0 ] && echo passed || echo "FAILED ($status)"), $seconds s"
  [ "$status" = 0 ] || failed+=("$name")
}

# step NAME SECONDS COMMAND...: runs it within a limit and reports it.
step() {
  local name=$1 limit=$2 start=$SECONDS status=0
  shift 2
  echo "=== $name"
  timeout -k 5 "$limit" "$@" || status=$?
  report "$name" "$status" $((SECONDS - start))
}

path_of() {
  sed -n "s/^$1 //p" "$programs"
}

# A pair of verbs' own example programs: shows that the guest's devices work, independently of this engine.
pingpong() {
  local options=(-d rxe0 -g 1 -s 65536 -n 200) server status=0
  ibv_rc_pingpong "${options[@]}" >/dev/null &
  server=$!
  # An emulated guest may take seconds to start a program.
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    sleep 1
    status=0
    ibv_rc_pingpong "${options[@]}" 127.0.0.1 || status=$?
    if [ $status = 0 ] || ! kill -0 "$server" 2>/dev/null; then break; fi
  done
  wait "$server" || status=$?
  return "$status"
}

# rust_suite PROGRAM [FILTER...]. Tests that need something else print "not run" and the reason, one line each; at least one
# test must run.
rust_suite() {
  local output passed absent status=0
  output=$("$@" --test-threads=1 --show-output 2>&1) || status=$?
  # The last one: some tests run this program again.
  passed=$(sed -n 's/^test result: ok. \([0-9]*\) passed.*/\1/p' <<<"$output" | tail -n 1)
  absent=$(grep -c '^not run' <<<"$output")
  if [ "$status" = 0 ] && [ "${passed:-0}" -le "$absent" ]; then
    echo "no test ran"
    status=1
  fi
  if [ "$status" = 0 ]; then
    grep -E '^test result|^not run' <<<"$output"
    grep -oE '\| .* \|$' <<<"$output" # the chaos suite's table
    echo "ran: $((passed - absent)), not run: $absent"
  else
    echo "$output"
  fi
  return "$status"
}

gtest_suite() {
  local output status=0
  output=$("$1" 2>&1) || status=$?
  if [ "$status" = 0 ] && ! grep -q 'PASSED  \] [1-9]' <<<"$output"; then
    echo "no test ran"
    status=1
  fi
  if [ "$status" = 0 ]; then
    grep -E 'PASSED|SKIPPED' <<<"$output"
  else
    grep -A 3 -E ': Failure|^\[  FAILED' <<<"$output"
    tail -n 40 <<<"$output"
  fi
  return "$status"
}

export -f pingpong rust_suite gtest_suite

# all_passed: prints the result.
all_passed() {
  if [ ${#failed[@]} -gt 0 ]; then
    echo "=== failed: ${failed[*]}"
    return 1
  fi
  echo "=== all passed"
}
