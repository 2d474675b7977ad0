# shellcheck shell=bash disable=SC2154,SC2034 # work is of scripts/common.sh; report.sh and tap.sh use what is set
# The suites again with builds that watch themselves: sanitizers, and which lines were run.

# Where the suites are run (test_tree), where they put what they leave (test_output), and with which variables of make and
# of the environment (test_flags, test_environment) is set here.

# Makes a build with these flags in $work/NAME/src and has the suites use it.
instrumented_build()
{
	local folder=$work/$1

	shift
	as_user mkdir -p "$folder/tmp" && cp -a "$work/src" "$folder/src" &&
		as_user make -s -C "$folder/src" with_llvm=no clean &&
		as_user make -s -j2 -C "$folder/src" with_llvm=no COPT="$*" all mock &&
		as_user make -s -C "$folder/src" with_llvm=no COPT="$*" DESTDIR="$folder/install" install &&
		settings_of_install "$folder/install" >"$folder/staged.conf" || return
	test_tree=$folder/src
	test_output=$folder/tmp
	test_flags=("COPT=$*")
	export TEMP_CONFIG=$folder/staged.conf QUOTA_MANAGER_INSTALL=$folder/install
}

# Has the suites use the ordinary build.
plain_build()
{
	test_tree=$work/src
	test_output=$work/tmp
	test_flags=()
	test_environment=()
	export TEMP_CONFIG=$staged_settings QUOTA_MANAGER_INSTALL=$work/install
}

# A library of another constructor, whose malloc lets the address sanitizer start before anything holds a lock.
early_malloc()
{
	gcc -shared -fPIC -Wl,-z,initfirst -x c - -o "$1" <<-'C'
		#include <stdlib.h>
		__attribute__((constructor)) static void early(void) { free(malloc(1)); }
	C
}

no_reports()
{
	local report

	for report in "$work"/sanitized/reports/*; do
		[ -e "$report" ] || return 0
		head -40 "$report"
	done
	return 1
}

# All suites under the address and undefined-behaviour sanitizers.  What a server reports counts wherever a test looked.
sanitized_suites()
{
	local reports=$work/sanitized/reports

	one "build with sanitizers" instrumented_build sanitized '-fsanitize=address,undefined -fno-sanitize=alignment -O1 -g'
	early_malloc "$work/sanitized/early.so" && as_user mkdir -p "$reports"
	test_environment=("LD_PRELOAD=libasan.so.8 libubsan.so.1 $work/sanitized/early.so" "ASAN_OPTIONS=detect_leaks=0:log_path=$reports/address"
		"UBSAN_OPTIONS=print_stacktrace=1:log_path=$reports/undefined" PG_TEST_TIMEOUT_DEFAULT=600)
	regress_suite "regression tests, sanitized" installcheck ISOLATION=
	regress_suite "isolation tests, sanitized" installcheck REGRESS=
	tap_suite "TAP tests, sanitized"
	one "no report of a sanitizer" no_reports
	plain_build
}

# The share of lines that were run, in percent, and the files with the smallest shares; fails below 90.
enough_lines_run()
{
	local share

	(cd "$test_tree" && gcovr --root . --filter 'src/' --exclude-throw-branches --txt -s 2>/dev/null) >"$work/coverage.txt"
	grep -E '^src/' "$work/coverage.txt" | awk '$4 != "" { print $4, $1 }' | sort -n | head -10
	share=$(sed -n 's/^lines: \([0-9]*\)\..*/\1/p' "$work/coverage.txt")
	grep '^lines: ' "$work/coverage.txt"
	[ "${share:-0}" -ge 90 ]
}

covered_suites()
{
	one "build with coverage" instrumented_build covered '--coverage -O0 -g'
	regress_suite "regression tests, with coverage" installcheck ISOLATION=
	regress_suite "isolation tests, with coverage" installcheck REGRESS=
	tap_suite "TAP tests, with coverage"
	one "90 % of the lines of src/ are run" enough_lines_run
	# said also where it is enough
	grep -v '^$' "$work/step.log" | sed 's/^/        /'
	plain_build
}
