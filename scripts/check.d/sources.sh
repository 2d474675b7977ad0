# shellcheck shell=bash disable=SC2154 # work and root are of scripts/common.sh
# Gates that read the sources and run nothing of them.

c_files()
{
	(cd "$work/src" && find src test -name '*.[ch]' | sort)
}

# The sources of 1.0.0, of which a test builds the library, from the history of the checkout.  False: it is not at hand.
old_source()
{
	mkdir "$work/old" &&
		git -c safe.directory="$root" -C "$root" archive 5e6a3e3 Makefile quota_manager.control src sql 2>/dev/null | tar --no-same-owner -xf - -C "$work/old" 2>/dev/null
}

formatted()
{
	(cd "$work/src" && c_files | xargs clang-format --dry-run -Werror)
}

compiles_with()
{
	local copy=$work/compile-$1 flags

	cp -a "$work/src" "$copy"
	# PostgreSQL's own flags and headers are gcc's.
	case $1 in clang) flags='-Wno-ignored-optimization-argument -Wno-unknown-warning-option -Wno-ignored-attributes' ;; *) flags= ;; esac
	as_user make -s -j2 -C "$copy" with_llvm=no CC="$1" COPT="-Werror $flags" all mock &&
		as_user make -s -C "$copy" with_llvm=no CC="$1" COPT="-Werror $flags" CRASH_POINTS=1 src/common/crash_point.o
	local code=$?

	rm -rf "$copy"
	return $code
}

analysed()
{
	(cd "$work/src" && cppcheck --quiet --error-exitcode=1 --std=c11 --inline-suppr --enable=warning,portability \
		--suppress=missingInclude --suppress=unknownMacro -Isrc src test/aigateway-mock)
}

# The checks of .clang-tidy, some files at a time: it takes the longest of those that read C.
tidy()
{
	local server

	server=$("$PG_CONFIG" --includedir-server)
	# shellcheck disable=SC2016 # the inner shell expands these
	(cd "$work/src" && find src -name '*.c' | sort | xargs -P 2 -n 4 sh -c 'server=$1; shift
		clang-tidy --quiet "$@" -- -std=gnu99 -D_GNU_SOURCE -DCRASH_POINTS -DQUOTA_MANAGER_VERSION=\"0\" -Isrc -isystem "$server"' - "$server")
}

# Every shell script, by its first line or its name; .shellcheckrc says what is not asked.
shell_checked()
{
	(cd "$work/src" && find . -type f -not -path './.git/*' | while IFS= read -r file; do
		case $file in *.sh) echo "$file" && continue ;; esac
		head -c 80 "$file" | head -1 | grep -aqE '^#!.*\b(ba|da)?sh\b' && echo "$file"
	done | sort | xargs shellcheck)
}

# The tests' Perl, gently; .perlcriticrc says what is not asked.
perl_criticised()
{
	(cd "$work/src" && perlcritic --quiet --profile .perlcriticrc test scripts)
}

versions_agree()
{
	local version

	version=$(sed -n "s/^default_version *= *'\(.*\)'/\1/p" "$root/quota_manager.control")
	grep -q "\"version\": \"$version\"" "$root/META.json" &&
		grep -q "^## $version" "$root/CHANGELOG.md"
}

# The TAP tests have made the build for tests; what only debuggers read does not count.
crash_points_apart()
{
	local installed

	installed=$("$PG_CONFIG" --pkglibdir)/quota_manager.so
	objcopy --strip-debug "$work/tmp/tap/crash/install$installed" "$work/with.so" &&
		objcopy --strip-debug "$work/install$installed" "$work/without.so" &&
		grep -qiE 'crash_?point' "$work/with.so" && ! grep -qiE 'crash_?point' "$work/without.so"
}

# What clang needs for its sanitizers: Debian 12 has it under the name of a version alone.
sanitizer_package()
{
	if apt-cache show libclang-rt-dev >/dev/null 2>&1; then echo libclang-rt-dev; else echo libclang-rt-14-dev; fi
}
