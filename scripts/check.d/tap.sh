# shellcheck shell=bash disable=SC2154 # work and root are of scripts/common.sh
# The TAP tests, and why one of them failed or broke off.

# What a server's log says of its end.
tap_alarming='PANIC|TRAP|was terminated by|terminated abnormally|FATAL:.*could not|out of memory|Sanitizer|runtime error'

# Tells of one file why: what prove noticed, what the test wrote last, and what its servers did.
tap_reason()
{
	local file=$1 name log

	name=$(basename "$file" .pl)
	awk -v file="$file" 'index($0, file) == 1 { on = 1; print; next } /^[^ ]/ { on = 0 } on' \
		<(sed -n '/^Test Summary Report/,$p' "$work/step.log")
	log=$(find "$tap_folder" -name "regress_log_$name" | head -1)
	if [ -z "$log" ]; then
		echo "it left no log: it ended before it began to test"
		return
	fi
	echo "--- $(basename "$log")"
	grep -A6 -E '^(\[[^]]*\]\([^)]*\))? *(not ok|# +Failed test)' "$log" | head -40
	grep -vE '^(\[[^]]*\]\([^)]*\))? *ok ' "$log" | tail -25
	while IFS= read -r log; do
		echo "--- $(basename "$log")"
		grep -E "$tap_alarming" "$log" | tail -10
		tail -15 "$log"
	done < <(find "$tap_folder" -name "${name}_*.log" -size +0 | sort)
}

# Names the tests of a file that failed, innermost first; the file alone if it broke off.
tap_names()
{
	local name

	name=$(basename "$1")
	grep -hE '^(\[[^]]*\]\([^)]*\))? *not ok ' "$tap_folder/tmp_check/log/regress_log_${name%.pl}" 2>/dev/null | sed -E "s/.* not ok [0-9]+( - )?/$name: /" | grep . || echo "$name"
}

# Runs the TAP files, four at a time, and counts their tests, those in subtests and the subtests too; each file may take as long as QUOTA_MANAGER_TEST_LIMIT says.
tap_suite()
{
	local name=${1:-TAP tests} code file tap_failed

	begin_suite
	tap_folder=$test_output/tap

	(cd "$test_tree" && as_user env "${test_environment[@]}" make -s with_llvm=no "${test_flags[@]}" PROVE_OUTPUT="$tap_folder" PROVE_FLAGS='-v -j4 --timer' ${2:+PROVE_TESTS="$2"} prove) >"$work/step.log" 2>&1
	code=$?
	suite "$name" $code "$(grep -cE '^ *ok [0-9]' "$work/step.log")" "$(grep -cE '^ *not ok ' "$work/step.log")"
	[ "$code" != 0 ] || return
	tap_failed=$(sed -n '/^Test Summary Report/,$p' "$work/step.log" | sed -nE 's/^([^ ]+\.pl) +\(Wstat.*/\1/p')
	for file in $tap_failed; do
		echo "==== $file"
		tap_reason "$file"
	done | cut -c1-400 | sed 's/^/        /'
	for file in $tap_failed; do
		mapfile -t -O ${#failures[@]} failures < <(tap_names "$file")
	done
}
