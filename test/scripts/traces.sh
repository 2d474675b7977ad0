#!/bin/bash
# Checks that scripts/demo runs from checkouts that only their owners can read, as root, by sudo and as a user without
# any rights, also when it is interrupted, and that each time the machine is then as it was: the same files with the
# same contents, owners and times, and no process.
#
#   test/scripts/traces.sh
#
# The packages that the demo needs are installed already.  Without root it tries what needs none.  Prints "N passed,
# N failed" and ends with 0 if nothing failed.

set -u
sources=$(cd "$(dirname "$0")/../.." && pwd)

# Root sees a /tmp of its own, so that what others put there meanwhile is not taken for ours.
if [ "$(id -u)" = 0 ] && [ -z "${TRACES_FOLDER:-}" ]; then
	TRACES_FOLDER=$(mktemp -d /var/tmp/quota_manager_traces.XXXXXX) || exit
	export TRACES_FOLDER
	trap 'rm -rf "$TRACES_FOLDER"' EXIT
	trap 'exit 130' INT TERM
	cp -a "$sources" "$TRACES_FOLDER/sources"
	# shellcheck disable=SC2016 # the inner shell expands it
	unshare -m --propagation private sh -c 'mount -t tmpfs -o mode=1777 tmpfs /tmp && exec bash "$0"' "$TRACES_FOLDER/sources/test/scripts/traces.sh"
	exit
fi
folder=${TRACES_FOLDER:-$(mktemp -d)} || exit
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
chmod 755 "$folder"
unset TMPDIR
passed=0
failed=0

check()
{
	if [ "$2" = "$3" ]; then
		passed=$((passed + 1))
		echo "ok      $1"
	else
		failed=$((failed + 1))
		printf 'FAILED  %s\n        expected: %s\n        found:    %s\n' "$1" "$2" "$3"
	fi
}

# Makes a checkout that only its owner can enter.
checkout()
{
	mkdir -m 700 "$folder/$1"
	(cd "$sources" && tar -cf - --exclude=./.git --exclude='./tmp*' --exclude='*.o' --exclude='*.so' .) | tar -xf - -C "$folder/$1"
	if [ "$2" = git ] && command -v git >/dev/null; then
		git -C "$folder/$1" init -q && git -C "$folder/$1" add -A
	fi
	chmod -R go= "$folder/$1"
	[ -z "${3:-}" ] || chown -R "$3" "$folder/$1"
}

# Everything that a script could have left, with its time; that of a folder for temporary files changes with what comes
# and goes.
traces()
{
	find /etc /usr/lib/postgresql /usr/share/postgresql /var/lib/postgresql /run/postgresql "$folder"/* \
		-path "$folder/log" -prune -o -path "$folder/t*" -print -o -printf '%p %y %m %u %s %T@\n' 2>/dev/null | sort
	if [ "$(id -u)" = 0 ]; then find /tmp -mindepth 1 2>/dev/null | sort; fi
}

# demo NAME CHECKOUT COMMAND...: runs the demo in a checkout by a command that gets its path; $signal interrupts it once
# it has printed $until.
demo()
{
	local name=$1 place=$2 code work pid

	shift 2
	traces >"$folder/log/before"
	(cd "$folder/$place" && exec "$@" ./scripts/demo) >"$folder/log/out" 2>&1 &
	pid=$!
	if [ -n "${signal:-}" ]; then
		until grep -q "$until" "$folder/log/out" || ! kill -0 $pid 2>/dev/null; do sleep 0.1; done
		kill -"$signal" $pid
	fi
	wait $pid
	code=$?
	check "$name: ends as it should" "${expected:-0}" $code
	[ $code = "${expected:-0}" ] || tail -20 "$folder/log/out" | sed 's/^/        /'
	check "$name: came to a cluster" 1 "$(grep -c "$until" "$folder/log/out")"
	traces >"$folder/log/after"
	check "$name: leaves every file as it was" '' "$(diff "$folder/log/before" "$folder/log/after" | head -20)"
	work=$(sed -n 's/^PostgreSQL in \([^,]*\),.*/\1/p' "$folder/log/out")
	check "$name: leaves no process" '' "$(pgrep -af "${work:-no work folder}")"
	check "$name: installs nothing" 0 "$(grep -c '^installing' "$folder/log/out")"
	check "$name: complains of no folder" '' "$(grep -iE 'could not (change|identify).*directory|permission denied' "$folder/log/out")"
}

mkdir -p "$folder/log" "$folder/bin"
# What asks for rights is told no, and found out.
printf '#!/bin/sh\necho "sudo $*" >>"%s"\nexit 1\n' "$folder/log/sudo" >"$folder/bin/sudo"
chmod 755 "$folder/bin/sudo"
: >"$folder/log/sudo"
chmod 666 "$folder/log/sudo"
until='^== Who would get what: '
export PGPORT=1 PGUSER=somebody PGOPTIONS='-c work_mem=nothing'

if [ "$(id -u)" = 0 ]; then
	checkout of_user git nobody:nogroup
	mkdir -m 700 "$folder/home"
	chown nobody "$folder/home"
	demo 'by sudo, from a checkout of the user alone' of_user env HOME="$folder/home" SUDO_UID="$(id -u nobody)" \
		SUDO_GID="$(id -g nobody)" SUDO_USER=nobody

	checkout of_root tree
	mkdir -m 700 "$folder/t"
	# shellcheck disable=SC2016 # the inner shell expands these
	signal=TERM expected=143 demo 'root interrupted, in a checkout of root alone' of_root \
		sh -c 'umask 077; TMPDIR=$1 exec "$2"' - "$folder/t"

	mkdir -m 1777 "$folder/tmp"
	demo 'a user without rights' of_user setpriv --reuid=nobody --regid=nogroup --clear-groups \
		env HOME=/nonexistent PATH="$folder/bin:$PATH" TMPDIR="$folder/tmp"
else
	checkout of_user git
	mkdir "$folder/tmp"
	demo 'a user without rights' of_user env PATH="$folder/bin:$PATH" TMPDIR="$folder/tmp"
	signal=TERM expected=143 demo 'a user without rights, interrupted' of_user env PATH="$folder/bin:$PATH" TMPDIR="$folder/tmp"
fi
check 'nobody asked for rights' '' "$(cat "$folder/log/sudo")"

echo "$passed passed, $failed failed"
[ $failed = 0 ]
