#!/bin/bash
#
# Checks the circuit breaker and the rate limit of src/delivery by themselves: PostgreSQL's headers,
# and no server.
#
#   test/circuit/run.sh                 the checks
#   test/circuit/run.sh --sanitize      the same under the address and undefined-behaviour sanitizers
#
# Prints "N passed, N failed" and ends with 0 if nothing failed.

set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

flags=(-std=gnu11 -g -O2 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare
	-Wno-missing-field-initializers -Isrc -isystem "$("${PG_CONFIG:-pg_config}" --includedir-server)")
[ "${1:-}" != --sanitize ] || flags+=('-fsanitize=address,undefined' -fno-sanitize-recover=undefined)

"${CC:-gcc}" "${flags[@]}" -o "$work/circuit-test" test/circuit/*.c \
	src/common/backoff.c src/delivery/circuit.c src/endpoint/rate_limit.c
"$work/circuit-test"
