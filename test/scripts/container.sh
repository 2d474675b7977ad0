#!/bin/bash
# Builds and starts what container/ describes, in roots: no engine for containers runs where the tests do.  The steps of
# container/Dockerfile are done one by one, each stage in a root of its own, and what the images start is started as
# their users, with the secrets, environment and health checks that container/compose.yaml gives them.
#
#   test/scripts/container.sh
#
# What that does not show: that an engine reads the two files, and that PostgREST's image starts.  Where there is a
# postgrest on the PATH, it is run with the settings of its image.  Needs root, mmdebstrap and iproute2.  Prints
# "N passed, N failed".

# shellcheck disable=SC2016,SC2317 # the roots' shells expand what is theirs; await calls functions by name
set -u
. "$(dirname "$0")/../../scripts/common.sh"
. "$root/scripts/root.sh"
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

finish()
{
	echo "$passed passed, $failed failed"
	exit $((failed > 0))
}

# COPY: what is a folder brings what is in it, as Docker has it.
copy()
{
	local from=$1 to=$2 name

	shift 2
	for name in "$@"; do
		name=$from/${name#/}
		if [ -d "$name" ]; then
			mkdir -p "$to" && cp -a "${name%/}/." "$to/" || return
		elif [[ $to == */ ]]; then
			mkdir -p "$to" && cp -a "$name" "$to/" || return
		else
			mkdir -p "$(dirname "$to")" && cp -a "$name" "$to" || return
		fi
	done
}

# Does the steps of the Dockerfile; what only describes an image is kept in $work/STAGE.NAME.
build_images()
{
	local step rest stage='' words from last

	while read -r step rest; do
		case $step in
			'' | \#*) continue ;;
			FROM)
				[[ $rest =~ ^debian:bookworm-slim\ AS\ ([a-z]+)$ ]] || { echo "not a base that is known: $rest"; return 1; }
				stage=${BASH_REMATCH[1]}
				cp -a "$work/base" "$work/$stage" || return
				: >"$work/$stage.env"
				;;
			COPY)
				from=$work/src
				read -ra words <<<"$rest"
				if [[ ${words[0]} == --from=* ]]; then
					from=$work/${words[0]#--from=}
					words=("${words[@]:1}")
				fi
				last=$((${#words[@]} - 1))
				[ "${words[0]}" != . ] || words[0]=
				copy "$from" "$work/$stage${words[last]}" "${words[@]:0:last}" || return
				;;
			RUN) in_root "$work/$stage" sh -ec "$rest" || return ;;
			ENV) echo "$rest" >>"$work/$stage.env" ;;
			USER) echo "$rest" >"$work/$stage.user" ;;
			HEALTHCHECK) grep -oP '(?<=\[").*(?="\])' <<<"$rest" >"$work/$stage.health" ;;
			ENTRYPOINT) grep -oP '(?<=\[").*(?="\])' <<<"$rest" >"$work/$stage.entrypoint" ;;
			VOLUME | STOPSIGNAL) ;;
			*) echo "no step that is known: $step"; return 1 ;;
		esac
	done <"$work/src/container/Dockerfile"
}

# Runs in a stage, as its user, with its environment and what else is given before "--".
in_container()
{
	local stage=$1 environment=()

	shift
	while [ "$1" != -- ]; do environment+=("$1"); shift; done
	shift
	mapfile -t -O ${#environment[@]} environment <"$work/$stage.env"
	exec env -i "${environment[@]}" /usr/sbin/chroot --userspec="$(cat "$work/$stage.user")" "$work/$stage" "$@"
}

# Waits until a health check passes.
await()
{
	local tries=0

	until "$@" >"$work/health.log" 2>&1; do
		tries=$((tries + 1))
		if [ $tries -ge 600 ] || ! kill -0 "${pids[@]}" 2>/dev/null; then
			cat "$work/health.log"
			return 1
		fi
		sleep 0.1
	done
}
healthy() { (in_container "$1" -- "$(cat "$work/$1.health")"); }

sql()
{
	(in_container db -- psql -X -q -At -h /run/postgresql -U postgres -d quota -c "$1" 2>&1)
}

start()
{
	local stage=$1

	(in_container "$@" -- "$(cat "$work/$stage.entrypoint")") >>"$work/$stage.log" 2>&1 &
	pids[$stage]=$!
}

stop()
{
	kill -"$2" "${pids[$1]}"
	wait "${pids[$1]}"
	ended=$?
	unset "pids[$1]"
}

# The services, in a network and among processes of their own.
run_services()
{
	local database=(POSTGRES_PASSWORD_FILE=/run/secrets/postgres_password AUTHENTICATOR_PASSWORD_FILE=/run/secrets/authenticator_password
		QUOTA_GATEWAY_URL=http://127.0.0.1:8080)
	local uri
	declare -A pids

	ip link set lo up || exit
	for stage in db mock; do
		mount -t proc proc "$work/$stage/proc" && mount -t tmpfs -o mode=1777 tmpfs "$work/$stage/dev/shm" || exit
		# One by one, as an engine does it: the folder is its owner's alone.
		mkdir -p "$work/$stage/run/secrets"
		for secret in "$work"/secrets/*; do
			: >"$work/$stage/run/secrets/${secret##*/}"
			mount --bind "$secret" "$work/$stage/run/secrets/${secret##*/}" || exit
		done
	done
	check 'the compose file names the secrets that are made' "$(ls "$work/secrets")" \
		"$(sed -n 's|^ *file: secrets/||p' "$work/src/container/compose.yaml" | sort)"

	start db "${database[@]:1}"
	wait "${pids[db]}"
	code=$?
	unset 'pids[db]'
	check 'without a password there is no cluster' "1 start-db: set POSTGRES_PASSWORD_FILE or POSTGRES_PASSWORD" "$code $(tail -1 "$work/db.log")"

	start mock QUOTA_GATEWAY_KEY_FILE=/run/secrets/gateway_key
	start db "${database[@]}"
	await healthy mock
	check 'the mock gateway is healthy' 0 $?
	await healthy db
	check 'the database is healthy' 0 $?
	check 'it runs as a user of its own' 999 "$(stat -c %u "/proc/${pids[db]}")"
	check 'the password is in no environment' '' "$(tr '\0' '\n' <"/proc/${pids[db]}/environ" | grep -F -f "$work/secrets/postgres_password")"
	check 'the extension is there' "$(sed -n "s/^default_version *= *'\(.*\)'/\1/p" "$root/quota_manager.control")" \
		"$(sql "SELECT extversion FROM pg_extension WHERE extname = 'quota_manager'")"
	check 'there is nothing but the loopback interface' '127.0.0.1' "$(sql 'SHOW listen_addresses')"

	sql "INSERT INTO quota_manager.user_info (id) VALUES ('ada'), ('bob');
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('all', 'single', 20, 'm', 'true()')"
	sql 'SELECT quota_manager.scan()' >"$work/scan.log"
	delivered() { [ "$(sql "SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'completed'")" = 2 ]; }
	await delivered
	check 'workers deliver to the gateway, with the key of its secret' 0 $?

	uri=$(cat "$work/secrets/postgrest_uri")
	check 'PostgREST logs in with its secret' authenticator "$(in_container db -- psql -X -At "$uri" -c 'SELECT current_user' 2>&1)"
	check 'and may do nothing by itself' 'ERROR:  permission denied for schema quota_api' \
		"$(in_container db -- psql -X -At "$uri" -c 'SELECT * FROM quota_api.strategies' 2>&1 | head -1)"
	check 'but become who the token names' 'SET:all' "$(in_container db -- psql -X -At "$uri" -c 'SET ROLE quota_viewer' -c 'SELECT name FROM quota_api.strategies' 2>&1 | paste -sd :)"
	if command -v postgrest >/dev/null; then run_postgrest; else echo "no postgrest on the PATH: the requests are left out"; fi

	stop db INT
	check 'it ends when it is asked to' 0 $ended
	start db "${database[@]}"
	await healthy db
	check 'a volume that is there is used' 2 "$(sql 'SELECT count(*) FROM quota_manager.quota_execute')"
	kill -KILL "${pids[db]}"
	wait "${pids[db]}" 2>/dev/null
	start db "${database[@]}"
	await healthy db
	check 'also after a crash' 2 "$(sql 'SELECT count(*) FROM quota_manager.quota_execute')"
	stop db INT
	check 'it ends again' 0 $ended
	find "$work/db/var/lib/postgresql/data" -mindepth 1 -delete
	mkdir -p "$work/db/var/lib/postgresql/data/new/base" "$work/db/var/lib/postgresql/data/base"
	chown -R 999:999 "$work/db/var/lib/postgresql/data"
	start db "${database[@]}"
	await healthy db
	check 'a first start that broke off is begun anew' 0 "$(sql 'SELECT count(*) FROM quota_manager.quota_execute')"
	stop db INT
	stop mock TERM
	finish
}

# With the settings of its image in the compose file.
run_postgrest()
{
	PGRST_DB_URI="@$work/secrets/postgrest_uri" PGRST_JWT_SECRET="@$work/secrets/jwt_secret" \
		postgrest "$work/src/examples/http/postgrest.conf" >"$work/postgrest.log" 2>&1 &
	pids[postgrest]=$!
	await curl -q -sSf --noproxy '*' http://127.0.0.1:3001/ready
	check 'PostgREST is ready' 0 $?
	check 'and asks for a token' 401 "$(curl -q -s --noproxy '*' -o /dev/null -w '%{http_code}' http://127.0.0.1:3000/strategies)"
	stop postgrest TERM
}

if [ "${1:-}" = services ]; then
	work=$2
	run_services
fi
make_work_folder
trap end_work EXIT
[ "$(id -u)" = 0 ] || die "needs root: it makes roots of its own"
install_packages mmdebstrap iproute2
copy_tree
make_root bookworm "$work/base" >"$work/root.log" 2>&1
check 'a root' 0 $?
build_images >"$work/build.log" 2>&1
code=$?
check 'the images are built' 0 $code
[ $code = 0 ] || { tail -40 "$work/build.log"; finish; }
check 'no compiler is in the images' '' "$(ls "$work"/{db,mock}/usr/bin/{gcc,make} 2>/dev/null)"
check 'the mock gateway is in its own image alone' "$work/mock/usr/local/bin/aigateway-mock" "$(ls "$work"/{db,mock}/usr/local/bin/aigateway-mock 2>/dev/null)"
bash "$work/src/container/make-secrets" "$work/secrets"
check 'secrets are their owner'"'"'s' 700 "$(stat -c %a "$work/secrets")"
# Ports and processes are apart from the machine's, and end with this.
unshare -m -n -p --fork --kill-child --mount-proc --propagation private bash "$root/test/scripts/container.sh" services "$work" | tee "$work/services.log"
read -r more _ bad _ < <(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$work/services.log" || echo 0 passed, 1 failed)
passed=$((passed + more))
failed=$((failed + bad))
if [ $failed != 0 ]; then tail -20 "$work/db.log" "$work/mock.log"; fi
finish
