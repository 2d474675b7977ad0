# shellcheck shell=bash disable=SC2154 # work, root and pg_major are of scripts/common.sh
# The same tests with other majors of PostgreSQL: each in a root of its own, that scripts/pg-root makes.

# What the default run adds ends within about so many seconds.
majors_seconds=${QUOTA_MANAGER_MAJORS_SECONDS:-300}

# Finds or makes the root of a major, within some seconds: sets major_root, or problem.
find_root()
{
	local folder=${QUOTA_MANAGER_ROOTS:-$work/roots}

	major_root=$folder/$1
	problem=
	[ ! -d "$major_root" ] || return 0
	if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
		problem='needs root'
	elif ! as_root unshare -m true 2>/dev/null; then
		problem='nothing can be mounted here'
	else
		command -v mmdebstrap >/dev/null || install_packages mmdebstrap
		as_root mkdir -p "$folder"
		# whatever becomes of it, it has mounted nothing that others see
		as_root timeout -k 5 "$2" unshare -m -p --fork --kill-child --propagation private --mount-proc \
			"$root/scripts/pg-root" "$1" "$major_root" >"$work/root.log" 2>&1
		case $? in
			0) ;;
			124 | 137) problem="no root within $2 s" ;;
			*) problem=$(tail -1 "$work/root.log") ;;
		esac
	fi
	[ -z "$problem" ]
}

# Runs scripts/check in major_root: MAJOR, all or brief, other options.  Sees the root as it was made, and a copy of the
# sources; all of its processes and mounts end with it.
run_in_root()
{
	local place=$work/in-$1

	as_root rm -rf "$place"
	mkdir -p "$place/srv"
	mkdir -m 1777 "$place/tmp"
	cp -R "$work/src" "$place/srv/quota_manager"
	find "$place/srv" \( -name '*.o' -o -name '*.so' \) -delete
	# shellcheck disable=SC2016 # the inner shell expands these
	as_root unshare -m -p --fork --kill-child --propagation private sh -c '
		root=$1 place=$2 major=$3 kind=$4
		shift 4
		mount --bind "$root" "$root" && mount -t proc proc "$root/proc" && mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm" &&
			mount --bind "$place/srv" "$root/srv" && mount --bind "$place/tmp" "$root/tmp" &&
			exec env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb PG_MAJOR="$major" \
				${QUOTA_MANAGER_OLDER:+QUOTA_MANAGER_OLDER="$QUOTA_MANAGER_OLDER"} \
				chroot "$root" /srv/quota_manager/scripts/check --inside "$kind" "$@"' \
		- "$major_root" "$place" "$@"
	local code=$?

	as_root rm -rf "$place"
	return $code
}

# For scripts/check --pg: all that depends on the server.
check_in_root()
{
	case $1 in '' | *[!0-9]*) die "--pg wants a major version, as 17" ;; esac
	find_root "$1" 1800 || die "PostgreSQL $1: $problem"
	run_in_root "$@"
}

# The majors that Debian has, but the one that is tested.
name_other_majors()
{
	local major

	for major in 15 17 18; do
		[ "$major" = "$pg_major" ] || echo "$major"
	done
}

# Makes the roots of these while other tests run: most of that is waiting for the network.
make_other_roots()
{
	local major

	for major in $(name_other_majors); do
		find_root "$major" "$majors_seconds"
	done
}

# Regression and isolation tests with the other majors, for as long as there is time.
other_majors()
{
	local major left begun=$SECONDS

	for major in $(name_other_majors); do
		left=$((majors_seconds - (SECONDS - begun)))
		if [ $left -lt 60 ]; then
			not_run "PostgreSQL $major" "no time is left of $majors_seconds s"
		elif find_root "$major" "$left"; then
			counted_suite "PostgreSQL $major, regression and isolation tests" run_in_root "$major" brief
		else
			not_run "PostgreSQL $major" "$problem"
		fi
		[ -n "${QUOTA_MANAGER_ROOTS:-}" ] || as_root rm -rf "$work/roots/$major"
	done
}
