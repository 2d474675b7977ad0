#!/bin/bash
#
# Feeds random texts to what reads texts of others: libFuzzer over the real sources, without a server, under the
# address and undefined-behaviour sanitizers.
#
#   test/fuzz/run.sh [N [TARGET...]]     N executions (1000000) of each target: condition, cron, reply
#   test/fuzz/run.sh --keep N            the same, and what reached new code is kept in test/fuzz/corpus
#
# Prints "N passed, N failed", and what a target did not survive.  A corpus is a file of inputs, one a line, with \xNN
# for what is no printable ASCII.  Needs clang with libFuzzer, and PostgreSQL's headers and static libraries.

set -euo pipefail
cd "$(dirname "$0")/../.."

keep=
if [ "${1:-}" = --keep ]; then
	keep=1
	shift
fi
count=${1:-1000000}
[ $# -lt 1 ] || shift
targets=("$@")
[ $# -gt 0 ] || targets=(condition cron reply)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

pg_config=${PG_CONFIG:-pg_config}
libraries=$("$pg_config" --pkglibdir)
flags=(-std=gnu11 -g -O1 -fwrapv -D_GNU_SOURCE -Isrc -Itest/fuzz -Itest/gateway -isystem "$("$pg_config" --includedir-server)"
	'-fsanitize=fuzzer,address,undefined' -fno-sanitize-recover=undefined)
server=(test/fuzz/server.c "$libraries/libpgcommon.a" "$libraries/libpgport.a")

# What a target is made of, and the longest input it is given.
build()
{
	case $1 in
		condition) sources=(src/condition/{lexer,parse,print,error}.c "${server[@]}") longest=400 ;;
		cron) sources=(src/schedule/{cron_parse,cron_match,cron_describe,cron_words,local_time}.c "${server[@]}") longest=300 ;;
		reply) sources=(src/gateway/{amount,buffer,classify,dialect,reply_json,text}.c -ljson-c) longest=600 ;;
		*) echo "no target $1" >&2; exit 2 ;;
	esac
	clang "${flags[@]}" -o "$work/$1" "test/fuzz/fuzz_$1.c" "${sources[@]}"
}

# The inputs of a corpus as files, and back.
unpack()
{
	mkdir -p "$2"
	# shellcheck disable=SC2016 # Perl's own variables
	FOLDER=$2 perl -ne 'chomp; s/\\x(..)/chr hex $1/ge; open my $out, ">", "$ENV{FOLDER}/$." or die; print $out $_' "$1"
}

pack()
{
	# shellcheck disable=SC2016 # Perl's own variables
	perl -e 'foreach (@ARGV) { open my $in, "<", $_ or die; local $/; my $text = <$in> // ""; $text =~ s/([^ -\[\]-~])/sprintf "\\x%02x", ord $1/ge; print "$text\n"; }' \
		"$1"/* | LC_ALL=C sort -u
}

for target in "${targets[@]}"; do
	build "$target"
	unpack "test/fuzz/corpus/$target" "$work/$target.corpus"
	if "$work/$target" "$work/$target.corpus" -runs="$count" -max_len="$longest" -artifact_prefix="$work/$target.found." \
		-print_final_stats=1 >"$work/$target.log" 2>&1; then
		echo "$target: $(sed -n 's/^stat::number_of_executed_units: //p' "$work/$target.log") executions, $(
			sed -n 's/.* \(cov: [0-9]* ft: [0-9]*\).*/\1/p' "$work/$target.log" | tail -1)"
		passed=$((passed + 1))
		if [ -n "$keep" ]; then
			mkdir "$work/$target.least"
			"$work/$target" -merge=1 -max_len="$longest" "$work/$target.least" "$work/$target.corpus" >"$work/$target.merge" 2>&1
			pack "$work/$target.least" >"test/fuzz/corpus/$target"
		fi
	else
		tail -40 "$work/$target.log"
		head -c 300 "$work/$target".found.* | od -c
		failed=$((failed + 1))
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
