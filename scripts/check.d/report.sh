# shellcheck shell=bash disable=SC2154 # work and root are of scripts/common.sh
# What scripts/check says of its gates and counts: one line each, the reasons under what failed, and how long it took.

passed=0
failed=0
# What failed, by name: told again at the end, since its reasons may be thousands of lines further up.
failures=()

# Says how a gate ended that passes or fails as a whole: its name, exit code, log and seconds.
verdict()
{
	if [ "$2" = 0 ]; then
		echo "ok      $1 ($4 s)"
		passed=$((passed + 1))
	else
		echo "FAILED  $1 ($4 s)"
		tail -40 "$3" | sed 's/^/        /'
		failed=$((failed + 1))
		failures+=("$1")
	fi
}

# Runs a gate that passes or fails as a whole.
one()
{
	local name=$1 begun=$SECONDS code

	shift
	"$@" >"$work/step.log" 2>&1
	code=$?
	verdict "$name" $code "$work/step.log" $((SECONDS - begun))
}

# Says that something was not run, which is no failure, and why.
not_run()
{
	echo "not run $1: $2"
}

# True if a tool has the version that the code is kept to: what another one finds and wants is something else.
has_version()
{
	local found

	found=$("$1" --version 2>&1 | grep -oE '[0-9]+(\.[0-9]+)+' | head -1)
	case $found in
		"$2" | "$2".*) ;;
		*) not_run "$3" "$1 is ${found:-missing}, and the code is kept to $2" && return 1 ;;
	esac
}

# one, and beside, with a tool of that version.
one_of()
{
	has_version "$1" "$2" "$3" && one "${@:3}"
}

beside_of()
{
	has_version "$1" "$2" "$3" && beside "${@:3}"
}

# The same beside what comes next, out of its way; join_gates says how they ended.
gates=()
beside()
{
	in_background "${@:2}"
	gates+=("$!:$background_log:$1")
}

# Runs what is no gate beside what comes next, out of its way; it is ended with all of this.
helpers=()
help_beside()
{
	in_background "$@"
	helpers+=("$!")
}

# Starts a command, $!, that leaves its output in background_log, and beside that its exit code and seconds.
backgrounds=0
in_background()
{
	background_log=$work/beside.$((backgrounds++))

	# a process group of its own: kill_gates ends all of it
	set -m
	(
		renice -n 15 "$BASHPID" >/dev/null
		begun=$SECONDS
		"$@" >"$background_log" 2>&1
		echo "$? $((SECONDS - begun))" >"$background_log.end"
	) &
	set +m
}

join_gates()
{
	local gate pid log name code seconds

	for gate in "${gates[@]}"; do
		IFS=: read -r pid log name <<<"$gate"
		wait "$pid"
		# a gate that was killed left no code
		read -r code seconds < <(cat "$log.end" 2>/dev/null || echo 1 0)
		verdict "$name" "$code" "$log" "$seconds"
	done
	gates=()
}

# Ends what runs beside.
kill_gates()
{
	local gate

	for gate in "${gates[@]}" "${helpers[@]}"; do
		kill -TERM -- "-${gate%%:*}" 2>/dev/null
	done
}

# Begins to count the seconds of a suite.
begin_suite()
{
	suite_begun=$SECONDS
}

# Says how a suite went by its log: how many passed and failed, and its exit code.
suite()
{
	local name=$1 code=$2 ok=$3 bad=$4

	# A suite that broke off, or that ran nothing, has failed whatever it counted.
	if [ "$bad" = 0 ] && { [ "$code" != 0 ] || [ "$ok" = 0 ]; }; then
		bad=1
	fi
	passed=$((passed + ok))
	failed=$((failed + bad))
	if [ "$bad" = 0 ]; then
		echo "ok      $name: $ok ($((SECONDS - suite_begun)) s)"
	else
		echo "FAILED  $name: $ok passed, $bad failed ($((SECONDS - suite_begun)) s)"
		grep -vE '^ok |^    ok ' "$work/step.log" | tail -60 | sed 's/^/        /'
		find "$test_tree" "$test_output" -name 'regression.diffs' -size +0 -exec head -80 {} \; 2>/dev/null | sed 's/^/        /'
		failures+=("$name")
	fi
}

# Names what failed, the first twenty; nothing if nothing has.
name_failures()
{
	[ ${#failures[@]} = 0 ] || printf 'failed: %s\n' "${failures[@]:0:20}" | cut -c1-200
}

# A suite whose last line is "N passed, N failed".
counted_suite()
{
	local name=$1 last code

	shift
	begin_suite
	(cd "$work/src" && "$@") >"$work/step.log" 2>&1
	code=$?
	last=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$work/step.log" | tail -1)
	suite "$name" $code "$(sed -n 's/ passed.*//p' <<<"${last:-0 passed}")" "$(sed -n 's/.*, \([0-9]*\) failed.*/\1/p' <<<"${last:-, 1 failed}")"
}

# pg_regress and pg_isolation_regress, in the words of PostgreSQL 15 and of 16 and up.
regress_suite()
{
	local name=$1 code

	shift
	begin_suite
	(cd "$test_tree" && as_user env "${test_environment[@]}" make -s with_llvm=no "${test_flags[@]}" TEMP_INSTANCE="$test_output" "$@") >"$work/step.log" 2>&1
	code=$?
	suite "$name" $code "$(grep -cE '^test .*\.\.\. ok|^ok [0-9]' "$work/step.log")" \
		"$(grep -cE '^test .*\.\.\. FAILED|^not ok' "$work/step.log")"
}
