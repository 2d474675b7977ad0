# shellcheck shell=bash
# What the scripts share: packages, a build, and throw-away clusters.
# Sourced by scripts/demo, scripts/check and the benchmarks.  What they leave on
# the machine is the Debian packages that they name; everything else is in the
# work folder, the installed extension too.

# Clusters take their encoding from the environment, and a fresh machine has none.
export LANG=C.UTF-8 LC_ALL=C.UTF-8

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

umask 022

# What the caller has set for sessions and a repository of his own is not for ours.
for variable in ${!PG@}; do
	case $variable in PG_*) ;; *) unset "$variable" ;; esac
done
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

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

# The same for a command in the background: instead of the subshell, so that $! is what a signal reaches.  runuser would
# stay in between, and for two seconds longer.
exec_as_user()
{
	if [ "$(id -u)" = 0 ]; then
		exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"
	else
		exec "$@"
	fi
}

# A server's package makes a cluster and starts it; this setting of
# postgresql-common, there while packages are installed, has it make none.
cluster_setting=/etc/postgresql-common/createcluster.d/quota_manager.$$.conf
setting_folders=()

forbid_clusters()
{
	local folder

	for folder in /etc/postgresql-common /etc/postgresql-common/createcluster.d; do
		if ! [ -d "$folder" ]; then
			as_root mkdir "$folder"
			setting_folders=("$folder" "${setting_folders[@]}")
		fi
	done
	printf '%s\n' '# Of quota_manager/scripts, for as long as they install packages.' 'create_main_cluster = false' |
		as_root tee "$cluster_setting" >/dev/null
}

# Ends that; what packages have put beside it stays.
allow_clusters()
{
	[ ! -e "$cluster_setting" ] || as_root rm -f "$cluster_setting"
	[ ${#setting_folders[@]} = 0 ] || as_root rmdir --ignore-fail-on-non-empty "${setting_folders[@]}" 2>/dev/null || true
	setting_folders=()
}

# Installs the Debian packages that are not there yet.
install_packages()
{
	local missing=() clusters package

	for package in "$@"; do
		dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
	done
	[ ${#missing[@]} = 0 ] && return
	echo "installing packages, which stay: ${missing[*]}"
	clusters=$(ls -d /etc/postgresql/*/* 2>/dev/null) || true
	forbid_clusters
	as_root apt-get update -qq >/dev/null || die "apt-get update failed"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		-o Dpkg::Options::=--force-confold "${missing[@]}" </dev/null >"$work/apt.log" 2>&1 ||
		{ tail -20 "$work/apt.log" >&2; die "could not install: ${missing[*]}"; }
	allow_clusters
	# Where this machine's createcluster.conf does not include createcluster.d.
	[ "$clusters" = "$(ls -d /etc/postgresql/*/* 2>/dev/null)" ] ||
		echo "the packages made a cluster, which stays: $(pg_lsclusters -h | tr -s ' ' | cut -d ' ' -f 1,2 | paste -sd ,)"
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

# Makes the work folder, which end_work removes; temporary files of everybody
# are in it.
make_work_folder()
{
	local parent=${TMPDIR:-/tmp}

	# Root's own temporary folder is of no use to the unprivileged user.
	if [ "$(id -u)" = 0 ] && ! setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$parent/."; then
		parent=/tmp
	fi
	work=$(mktemp -d "$parent/quota_manager.XXXXXX")
	chmod 755 "$work"
	mkdir -m 1777 "$work/t"
	# The unprivileged user may be unable to enter the caller's folder; nothing is taken from the caller's home.
	cd /
	export TMPDIR=$work/t HOME=$work
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
}

# For the EXIT trap of a script: puts everything back as it was.
end_work()
{
	allow_clusters
	# another user's files may be in it
	rm -rf "$work" 2>/dev/null || as_root rm -rf "$work"
}

# Copies the sources to $work/src, which the unprivileged user owns.
copy_sources()
{
	copy_tree
	if [ "$(id -u)" = 0 ]; then
		id postgres >/dev/null 2>&1 || die "there is no user postgres"
		chown -R postgres: "$work"
	fi
}

# Copies what belongs to the sources, and nothing that was built of them, to $work/src.
copy_tree()
{
	mkdir -p "$work/src"
	if git -c safe.directory="$root" -C "$root" rev-parse --git-dir >/dev/null 2>&1; then
		(cd "$root" && git -c safe.directory="$root" ls-files -z --cached --others --exclude-standard |
			while IFS= read -r -d '' file; do [ -e "$file" ] && printf '%s\0' "$file"; done |
			tar --null -T - -cf -) | tar --no-same-owner -xf - -C "$work/src"
	else
		(cd "$root" && tar -cf - --exclude='*.o' --exclude='*.so' --exclude='*.bc' --exclude=./.git --exclude='./tmp_check*' \
			--exclude=./test/aigateway-mock/aigateway-mock .) | tar --no-same-owner -xf - -C "$work/src"
	fi
}

# Builds in $work/src and installs into $work/install: PostgreSQL's own folders,
# where there may be a quota_manager in use, stay as they are.  Sets
# staged_settings, a file of settings with which a server has this build.
build_and_install()
{
	as_user make -s -j2 -C "$work/src" with_llvm=no "$@" all mock >"$work/build.log" 2>&1 ||
		{ cat "$work/build.log" >&2; die "the build failed"; }
	as_user make -s -C "$work/src" with_llvm=no DESTDIR="$work/install" install >"$work/install.log" 2>&1 ||
		{ cat "$work/install.log" >&2; die "make install failed"; }
	staged_settings=$work/staged.conf
	settings_of_install "$work/install" >"$staged_settings" || die "this PostgreSQL cannot load an extension from elsewhere"
}

# Workers name the library without a path, functions name it in $libdir: for
# these there is a setting of Debian's, and one of PostgreSQL's own from 18 on.
settings_of_install()
{
	local settings

	settings=$(as_user postgres --describe-config) || return
	echo "dynamic_library_path = '$1$("$PG_CONFIG" --pkglibdir):\$libdir'"
	if grep -q $'^extension_destdir\t' <<<"$settings"; then
		echo "extension_destdir = '$1'"
	elif grep -q $'^extension_control_path\t' <<<"$settings"; then
		echo "extension_control_path = '$1$("$PG_CONFIG" --sharedir):\$system'"
	else
		return 1
	fi
}
