#!/usr/bin/env bash
# Runs the findings that are named, or all, one after another, and says of each whether it is still so.
# Exit codes: 0 all are, 1 one has changed, 2 one could not be tried.
set -euo pipefail

cd "$(dirname "$0")/.."
worst=0
for finding in ${@:-*.sh}; do
    name=${finding%.sh}
    status=0
    output=$(bash "$name.sh" 2>&1) || status=$?
    case $status in
    0) echo "still so   $name" ;;
    2) echo "not tried  $name" ;;
    *) echo "CHANGED    $name" ;;
    esac
    sed 's/^/           /' <<<"$output"
    if [ "$status" = 2 ]; then [ "$worst" = 1 ] || worst=2; elif [ "$status" != 0 ]; then worst=1; fi
done
exit "$worst"
