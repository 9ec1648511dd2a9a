#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# measure.sh COMPILER PROGRAMS [FLAG...]: compares what compiling the programs of pages, SOURCE.cpp in the folder
# PROGRAMS, takes with budgets.txt, and prints the table. User seconds in units of a file compiled in
# the same run, so that neither the machine nor what else runs on it counts for much. Exits with 77 where the
# compiler is not the one that the budgets were measured with.
set -euo pipefail
compiler=$1
programs=$2
shift 2
flags=(-std=c++20 -O3 -march=x86-64-v3 "$@")
here=$(dirname "${BASH_SOURCE[0]}")

if ! "$compiler" --version | head -n 1 | grep -q '^\(g++\|c++\|x86_64-linux-gnu-g++\).* 12\.' ||
  ! "$compiler" -dumpmachine | grep -q '^x86_64'; then
  echo "skipped: the budgets are of g++ 12 for x86-64, and this is $("$compiler" --version | head -n 1)"
  exit 77
fi

# User seconds of compiling a file once.
seconds() {
  local TIMEFORMAT=%U
  { time "$compiler" "${flags[@]}" -w -c -o /dev/null "$@" >&3 2>&1; } 3>&2 2>&1
}
median_of_3() {
  printf '%s\n' "$@" | sort -n | sed -n 2p
}
calculate() {
  awk "BEGIN { printf \"%.2f\", ($1) }"
}

declare -A unit_seconds
unit() {
  if [ -z "${unit_seconds[$1]:-}" ]; then
    local file=$here/$1.cpp
    unit_seconds[$1]=$(median_of_3 "$(seconds "$file")" "$(seconds "$file")" "$(seconds "$file")")
  fi
}

printf '%-32s %9s  %-17s %9s %7s %7s\n' source seconds unit seconds ratio budget
status=0
while read -r source unit budget; do
  unit "$unit"
  options=()
  [[ $source != *_with_compiled ]] || options=(-DNHA_COMPILED)
  file=$programs/page_${source%_with_compiled}_md_1.cpp
  taken=$(seconds "${options[@]}" "$file")
  ratio=$(calculate "$taken / ${unit_seconds[$unit]}")
  # Once is enough where it is within the budget; beyond it, the median of three decides.
  if [ "$(calculate "$ratio > 1.3 * $budget")" = 1.00 ]; then
    taken=$(median_of_3 "$taken" "$(seconds "${options[@]}" "$file")" "$(seconds "${options[@]}" "$file")")
    ratio=$(calculate "$taken / ${unit_seconds[$unit]}")
    if [ "$(calculate "$ratio > 1.3 * $budget")" = 1.00 ]; then
      status=1
    fi
  fi
  printf '%-32s %9s  %-17s %9s %7s %7s\n' "$source" "$taken" "$unit" "${unit_seconds[$unit]}" "$ratio" "$budget"
done < <(grep -v '^#' "$here/budgets.txt")
[ $status -eq 0 ] || echo "more than 1.3 times a budget of tests/compile_time/budgets.txt"
exit $status
