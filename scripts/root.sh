# shellcheck shell=bash
# Throw-away roots: a Debian of its own in a folder, in which packages can be installed without the machine's knowing.
# To be sourced after scripts/common.sh; needs root and mmdebstrap.

# Makes a root of a suite in a folder; what comes after is for mmdebstrap (hooks, packages to include, what dpkg leaves
# out).  Whatever is installed there starts no service.
make_root()
{
	local suite=$1 target=$2 mirror options

	shift 2
	[ ! -e "$target" ] || die "$target is there already"
	# The archive that the machine has its own packages from; its proxies and the like come along.
	# shellcheck disable=SC2016 # apt-get expands it
	mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' |
		awk '$2 !~ /security|updates|backports/ && $1 ~ /debian\/?$/ { print $1; exit }')
	[ -n "$mirror" ] || die "the apt of this machine names no archive of Debian"
	options=$(mktemp)
	apt-config dump --format '%F "%v";%n' Acquire::http Acquire::https Acquire::ForceIPv4 | grep -v ' "";$' >"$options" || true
	# What is under way, and a mirror that is late, has a Release file past its date.
	echo 'Acquire::Check-Valid-Until "false"; APT::Install-Recommends "false";' >>"$options"
	# shellcheck disable=SC2016 # mmdebstrap's shell expands it
	mmdebstrap --quiet --mode=root --variant=apt --aptopt="$options" \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--customize-hook='printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"; mkdir -p "$1/run/lock"' \
		"$@" "$suite" "$target" "$mirror"
}

# Runs a command in a root.  Its mounts and all its processes end with it.
in_root()
{
	local target=$1

	shift
	# shellcheck disable=SC2016 # the inner shell expands these
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive \
		unshare -m -p --fork --kill-child --propagation private sh -ec 'root=$1
		shift
		mount -t proc proc "$root/proc"
		mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
		mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
		exec chroot "$root" "$@"' - "$target" "$@"
}
