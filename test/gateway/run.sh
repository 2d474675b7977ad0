#!/bin/bash
#
# Checks src/gateway by itself: no PostgreSQL, and no network but 127.0.0.1.
#
#   test/gateway/run.sh                 the checks
#   test/gateway/run.sh --sanitize      the same under the address and undefined-behaviour sanitizers
#   test/gateway/run.sh --valgrind      the same under valgrind
#   test/gateway/run.sh --bench [N]     N deltas (100000) at 16, 32 and 64 connections, and wrk for comparison
#
# Prints "N passed, N failed" and ends with 0 if nothing failed.  Left out, and it says so: the checks
# against aigateway-mock without libmicrohttpd's headers; those of trusted certificates unless it may
# lay its own authority over that of the system for the one process (root, in a mount namespace).

set -euo pipefail
cd "$(dirname "$0")/../.."

mode=${1:-}
count=${2:-}
work=$(mktemp -d)
servers=()

clean_up()
{
	for pid in "${servers[@]}"; do
		kill "$pid" 2>/dev/null || true
	done
	rm -rf "$work"
}
trap clean_up EXIT

cc=${CC:-gcc}
flags=(-std=gnu11 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare
	-Wno-missing-field-initializers -Isrc -Itest/gateway)
libs=(-lcurl -ljson-c -lpthread -ldl)
sources=(src/gateway/*.c)
tests=(test/gateway/{check,fault_server,main,mock_control,test_*}.c)

case $mode in
	--sanitize) flags+=(-O1 '-fsanitize=address,undefined' -fno-sanitize-recover=undefined) ;;
	*) flags+=(-O2) ;;
esac

# start_mock DIALECT sets url to where it listens
start_mock()
{
	local out=$work/$1.out

	"$mock" --dialect "$1" --key sk-very-secret-0123456789 --lifetime 600 >"$out" &
	servers+=($!)
	for _ in $(seq 200); do
		grep -qs '^listening on' "$out" && break
		sleep 0.02
	done
	url=http://$(sed -n 's/^listening on //p' "$out")
}

# make_certificate NAME HOST writes a key and a certificate for a host, signed by itself
make_certificate()
{
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$2" \
		-addext "subjectAltName=DNS:$2" -keyout "$work/$1.key" -out "$work/$1.pem" 2>"$work/$1.log"
}

# start_tls NAME OPTION... sets port to where a TLS server with that certificate listens
start_tls()
{
	local name=$1 out=$work/tls$RANDOM.out

	shift
	openssl s_server -accept 127.0.0.1:0 -www -key "$work/$name.key" -cert "$work/$name.pem" "$@" >"$out" 2>&1 &
	servers+=($!)
	for _ in $(seq 200); do
		grep -qs '^ACCEPT' "$out" && break
		sleep 0.02
	done
	port=$(sed -n 's/^ACCEPT.*:\([0-9]*\)$/\1/p' "$out")
}

# The mock is built here rather than by the Makefile, which needs PostgreSQL's.
mock=
if echo '#include <microhttpd.h>' | "$cc" -E - >"$work/probe" 2>&1; then
	mock=$work/aigateway-mock
	"$cc" -std=gnu11 -O2 -o "$mock" test/aigateway-mock/*.c -lmicrohttpd -ljson-c -lpthread -lm
fi

case $mode in
	--bench)
		"$cc" "${flags[@]}" -o "$work/bench" "${sources[@]}" test/gateway/{bench,check}.c "${libs[@]}"
		start_mock higress
		for connections in 16 32 64; do
			"$work/bench" higress "$url" "$connections" "${count:-100000}"
		done
		if command -v wrk >/dev/null; then
			cat >"$work/delta.lua" <<-'LUA'
				wrk.method = "POST"
				wrk.body = "consumer=user00000001&value=20"
				wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
				wrk.headers["Authorization"] = "Bearer sk-very-secret-0123456789"
			LUA
			echo -n "wrk, 32 connections: "
			wrk -t1 -c32 -d3s -s "$work/delta.lua" "$url/v1/chat/completions/quota/delta" |
				sed -n 's/^Requests\/sec: */requests a second: /p'
		fi
		;;
	'' | --sanitize | --valgrind)
		"$cc" "${flags[@]}" -o "$work/gateway-test" "${sources[@]}" "${tests[@]}" "${libs[@]}"
		run=("$work/gateway-test")
		if [ "$mode" = --valgrind ]; then
			run=(valgrind --quiet --leak-check=full '--show-leak-kinds=definite,indirect,possible'
				'--errors-for-leak-kinds=definite,indirect,possible' --error-exitcode=9 "${run[@]}")
		fi
		if [ -n "$mock" ]; then
			start_mock higress
			run+=("higress=$url")
			start_mock zgsm
			run+=("zgsm=$url")
		else
			echo "libmicrohttpd is not installed: the checks against aigateway-mock are left out"
		fi
		if command -v openssl >/dev/null; then
			make_certificate ours localhost
			make_certificate other localhost
			start_tls other
			run+=("untrusted=https://localhost:$port")
			authority=/etc/ssl/certs/ca-certificates.crt
			# shellcheck disable=SC2016 # the inner shell expands these
			in_namespace='mount --bind "$1" "$2" && shift 2 && exec "$@"'
			if unshare -m sh -c "$in_namespace" - "$work/ours.pem" "$authority" true 2>/dev/null; then
				start_tls ours
				run=(unshare -m sh -c "$in_namespace" - "$work/ours.pem" "$authority" "${run[@]}"
					"trusted=https://localhost:$port" "untrusted=https://127.0.0.1:$port")
				start_tls ours -tls1_1 -cipher ALL:@SECLEVEL=0
				run+=("untrusted=https://localhost:$port")
			else
				echo "not allowed to mount: the checks of trusted certificates are left out"
			fi
		fi
		"${run[@]}"
		;;
	*)
		echo "unknown option $mode" >&2
		exit 2
		;;
esac
