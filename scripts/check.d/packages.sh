# shellcheck shell=bash disable=SC2154 # work and root are of scripts/common.sh
# What is handed out: the archive for PGXN, Debian's packages, the container.

# The archive of what is committed can be built and installed.  Not every copy of the sources is a repository.
dist_builds()
{
	local version archive

	git -c safe.directory="$root" -C "$root" rev-parse --git-dir >/dev/null 2>&1 || { echo "no repository"; return; }
	version=$(sed -n "s/^default_version *= *'\(.*\)'/\1/p" "$root/quota_manager.control")
	archive=$work/dist/quota_manager-$version
	mkdir -p "$work/dist" &&
		make -s -C "$work/src" dist CHECKOUT="$root" DIST="$work/dist" &&
		(cd "$work/dist" && python3 -m zipfile -e "$archive.zip" .) &&
		[ -e "$archive/META.json" ] && [ -e "$archive/sql/quota_manager--$version.sql" ] || return
	[ "$(id -u)" != 0 ] || chown -R postgres: "$work/dist"
	as_user make -s -j2 -C "$archive" with_llvm=no all &&
		as_user make -s -C "$archive" with_llvm=no install DESTDIR="$work/dist/install" &&
		[ -e "$work/dist/install$("$PG_CONFIG" --pkglibdir)/quota_manager.so" ]
}
