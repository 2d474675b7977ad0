# shellcheck shell=bash
# What the scripts share: packages, a build, and throw-away clusters.
# Sourced by scripts/demo and scripts/check; sets nothing on the machine but
# Debian packages and the installed extension.

# Clusters take their encoding from the environment, and a fresh machine has none.
export LANG=C.UTF-8 LC_ALL=C.UTF-8

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die()
{
	echo "$(basename "$0"): $*" >&2
	exit 1
}

# Runs a command as root, by sudo if need be.
as_root()
{
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "needs root or sudo to run: $*"
	fi
}

# Runs a command as a user that PostgreSQL runs under: never root.
as_user()
{
	if [ "$(id -u)" = 0 ]; then
		runuser -u postgres -- "$@"
	else
		"$@"
	fi
}

# The same for a command in the background: instead of the subshell, so that $! is what a signal reaches.
exec_as_user()
{
	if [ "$(id -u)" = 0 ]; then
		exec runuser -u postgres -- "$@"
	else
		exec "$@"
	fi
}

# Installs the Debian packages that are not there yet.
install_packages()
{
	local missing=()
	local package

	for package in "$@"; do
		dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
	done
	[ ${#missing[@]} = 0 ] && return
	echo "installing packages: ${missing[*]}"
	# A machine that never had PostgreSQL gets no cluster of its own from us.
	if ! [ -e /etc/postgresql-common ]; then
		as_root mkdir -p /etc/postgresql-common
		echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
	fi
	as_root apt-get update -qq >/dev/null || die "apt-get update failed"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		-o Dpkg::Options::=--force-confold "${missing[@]}" </dev/null >"$work/apt.log" 2>&1 ||
		{ tail -20 "$work/apt.log" >&2; die "could not install: ${missing[*]}"; }
}

# Sets pg_major: PG_MAJOR, or what this Debian has.
choose_major()
{
	command -v apt-get >/dev/null || die "needs Debian's apt-get"
	pg_major=${PG_MAJOR:-}
	if [ -z "$pg_major" ]; then
		apt-cache show postgresql >/dev/null 2>&1 || as_root apt-get update -qq >/dev/null || die "apt-get update failed"
		pg_major=$(apt-cache show postgresql | sed -n 's/^Depends:.*postgresql-\([0-9]\+\).*/\1/p' | sort -n | tail -1)
	fi
	[ -n "$pg_major" ] || die "cannot tell which PostgreSQL this Debian has; set PG_MAJOR"
}

# Installs what the build needs, and the packages given, for pg_major.
prepare_machine()
{
	# The server is named so that it is upgraded together with its headers.
	install_packages "postgresql-$pg_major" "postgresql-client-$pg_major" "postgresql-server-dev-$pg_major" \
		libcurl4-openssl-dev libjson-c-dev libmicrohttpd-dev gcc make libc6-dev curl "$@"
	pg_bin=/usr/lib/postgresql/$pg_major/bin
	[ -x "$pg_bin/initdb" ] || die "no PostgreSQL in $pg_bin"
	export PATH=$pg_bin:$PATH
	export PG_CONFIG=$pg_bin/pg_config
}

# Makes the work folder, removed when the script ends.
make_work_folder()
{
	work=$(mktemp -d "${TMPDIR:-/tmp}/quota_manager.XXXXXX")
	chmod 755 "$work"
}

# Copies the sources to $work/src, which the unprivileged user owns.
copy_sources()
{
	mkdir -p "$work/src"
	if git -c safe.directory="$root" -C "$root" rev-parse --git-dir >/dev/null 2>&1; then
		(cd "$root" && git -c safe.directory="$root" ls-files -z --cached --others --exclude-standard |
			while IFS= read -r -d '' file; do [ -e "$file" ] && printf '%s\0' "$file"; done |
			tar --null -T - -cf -) | tar -xf - -C "$work/src"
	else
		(cd "$root" && tar -cf - --exclude='*.o' --exclude='*.so' .) | tar -xf - -C "$work/src"
	fi
	if [ "$(id -u)" = 0 ]; then
		id postgres >/dev/null 2>&1 || die "there is no user postgres"
		chown -R postgres: "$work"
	fi
}

# Builds in $work/src and installs into PostgreSQL's folders.
build_and_install()
{
	as_user make -s -j2 -C "$work/src" with_llvm=no "$@" all mock >"$work/build.log" 2>&1 ||
		{ cat "$work/build.log" >&2; die "the build failed"; }
	as_root make -s -C "$work/src" with_llvm=no PG_CONFIG="$PG_CONFIG" install >"$work/install.log" 2>&1 ||
		{ cat "$work/install.log" >&2; die "make install failed"; }
}
