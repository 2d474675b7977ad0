#!/bin/bash
# Checks that the mock answers as the gateways do: every documented reply and every fault, on one
# connection where that matters.  Needs curl.  Usage: selftest.sh [path of aigateway-mock]
set -u
export LC_ALL=C
mock=${1:-$(dirname "$0")/aigateway-mock}
dir=$(mktemp -d)
passed=0
failed=0
pid=
trap 'stop_mock; rm -rf "$dir"' EXIT

# start_mock OPTION...: starts a mock on a free port; sets pid, port and base
start_mock()
{
	local line
	: > "$dir/out"
	"$mock" --port 0 --lifetime 300 "$@" > "$dir/out" &
	pid=$!
	for _ in $(seq 100); do
		line=$(head -n 1 "$dir/out")
		[ -n "$line" ] && break
		sleep 0.05
	done
	port=${line##*:}
	[ "$line" = "listening on 127.0.0.1:$port" ] || { echo "the mock did not start: $line"; exit 1; }
	base=http://127.0.0.1:$port
	quota=$base/v1/chat/completions/quota
	: > "$dir/out"
}

# stop_mock: ends the mock, by its pid
stop_mock()
{
	[ -z "$pid" ] && return
	kill "$pid"
	wait "$pid"
	ended=$?
	pid=
}

# check NAME EXPECTED GOT
check()
{
	if [ "$2" = "$3" ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		printf 'FAILED: %s\n  expected: %s\n  got:      %s\n' "$1" "$2" "$3"
	fi
}

# reply CURL-ARGUMENT...: status, content type and body
reply()
{
	local kind
	kind=$(curl -s --max-time 10 -o "$dir/body" -w '%{http_code} %{content_type}' "$@")
	echo "$kind $(cat "$dir/body")"
}

# applied: how many changes were applied
applied()
{
	curl -s "$base/mock/applied.tsv" | sed 1d | wc -l
}

. "$(dirname "$0")/selftest_faults.sh"

higress_checks()
{
	local key='Authorization: Bearer secret'
	local denied='Request denied by ai quota check. consumer can'\''t be empty'

	start_mock --dialect higress --key secret
	check 'health' '200 text/plain ok' "$(reply "$base/health")"
	check 'no key' 401 "$(reply "$quota?consumer=u" | cut -c 1-3)"
	check 'wrong key' 403 "$(reply -H "${key}s" "$quota?consumer=u" | cut -c 1-3)"
	check 'elsewhere' 404 "$(reply -H "$key" "$base/v1/chat/completions" | cut -c 1-3)"
	check 'query of an unknown consumer' '200 application/json {"consumer":"u","quota":0}' \
		"$(reply -H "$key" "$quota?consumer=u")"
	check 'delta' '200 text/plain delta quota successful' \
		"$(reply -H "$key" -d 'consumer=u&value=5' "$quota/delta")"
	check 'negative delta' '200 text/plain delta quota successful' \
		"$(reply -H "$key" -H 'Idempotency-Key: k-1' -d 'consumer=u&value=-7' "$quota/delta")"
	check 'balance below zero' '200 application/json {"consumer":"u","quota":-2}' \
		"$(reply -H "$key" "$quota?consumer=u")"
	check 'refresh' '200 text/plain refresh quota successful' \
		"$(reply -H "$key" -d 'consumer=u&quota=20' "$quota/refresh")"
	check 'the first value wins' '200 application/json {"consumer":"u","quota":20}' \
		"$(reply -H "$key" "$quota?consumer=u&consumer=v")"
	check 'any bytes in a name' '200 application/json {"consumer":"a\u0026b \"ü\"\ufffd","quota":1}' \
		"$(reply -H "$key" -d 'consumer=a%26b+%22%C3%BC%22%FF&value=1' "$quota/delta" > "$dir/ignored"
		reply -H "$key" "$quota?consumer=a%26b+%22%C3%BC%22%FF")"
	check 'fraction' "403 text/plain $denied and value must be integer." \
		"$(reply -H "$key" -d 'consumer=u&value=1.5' "$quota/delta")"
	check 'refresh without number' "403 text/plain $denied and quota must be integer." \
		"$(reply -H "$key" -d 'consumer=u' "$quota/refresh")"
	check 'query without consumer' "403 text/plain $denied." "$(reply -H "$key" "$quota")"
	check 'balance set from outside' '{"user":"full","quota":"9223372036854775807","used":"0"}' \
		"$(curl -s -d 'user=full&quota=9223372036854775807' "$base/mock/balance")"
	check 'overflow' '503 text/plain redis error:ERR increment or decrement would overflow' \
		"$(reply -H "$key" -d 'consumer=full&value=1' "$quota/delta")"
	check 'overflow downwards' '503 text/plain redis error:ERR decrement would overflow' \
		"$(reply -H "$key" -d 'consumer=u&value=-9223372036854775808' "$quota/delta")"
	check 'key refusals ask for a key' 'Www-Authenticate: Key realm=MSE Gateway' \
		"$(curl -s -o "$dir/body" -D - -H "${key}s" "$quota?consumer=u" | tr -d '\r' | grep -i ^www-auth | sed 's/^WWW/Www/')"
	check 'other refusals do not' '' "$(curl -s -o "$dir/body" -D - -H "$key" "$quota" | grep -i ^www-auth)"
	check 'empty key' "401 text/plain Request denied by Key Auth check. No Key Authentication information found." \
		"$(reply -H 'Authorization;' "$quota?consumer=u")"
	check 'two keys' 403 "$(reply -H "$key" -H "$key" "$quota?consumer=u" | cut -c 1-3)"
	check 'two slashes before the path' 404 "$(reply --path-as-is -H "$key" "$base//v1/chat/completions/quota?consumer=u" | cut -c 1-3)"
	check 'two slashes and a host' 200 "$(reply --path-as-is -H "$key" "$base//a/v1/chat/completions/quota?consumer=u" | cut -c 1-3)"
	check 'bytes in the body' '404 ' "$(reply -H "$key" -H 'Content-Type: application/octet-stream' -d 'consumer=u&value=1' "$quota/delta" | cut -c 1-4)"
	check 'grpc in the body' '404 ' "$(reply -H "$key" -H 'Content-Type: application/grpc' -d 'consumer=u&value=1' "$quota/delta" | cut -c 1-4)"
	check 'the list as JSON' \
		'{"seq":2,"user":"u","action":"delta","amount":"-7","idempotency_key":"k-1","balance_after":"-2"},' \
		"$(curl -s "$base/mock/applied" | sed -n 3p)"
	check 'the list as COPY text' $'3\tu\trefresh\t20\t\\N\t20' \
		"$(curl -s "$base/mock/applied.tsv?from=3" | sed -n 2p)"
	check 'counters' '"by_action":{"query":{"200":5,"401":2,"403":5},"delta":{"200":3,"403":1,"404":2,"503":2},"refresh":{"200":1,"403":1},"other":{"404":2}}' \
		"$(curl -s "$base/mock/stats" | grep -o '"by_action":.*}}')"

	curl -s -o /dev/null -d on=1 "$base/mock/honour-idempotency"
	check 'repeated key' '200 text/plain delta quota successful' \
		"$(reply -H "$key" -H 'Idempotency-Key: k-1' -d 'consumer=u&value=-7' "$quota/delta")"
	check 'repeated key not applied' '{"user":"u","quota":"20","used":"0"}' \
		"$(curl -s "$base/mock/balance?user=u")"
	curl -s -o /dev/null -d key=other "$base/mock/key"
	check 'changed key' 403 "$(reply -H "$key" "$quota?consumer=u" | cut -c 1-3)"
	curl -s -o /dev/null -d key= "$base/mock/key"
	check 'removed key' 200 "$(reply "$quota?consumer=u" | cut -c 1-3)"
	head -c 9000000 /dev/zero | tr '\0' x > "$dir/large"
	check 'too large a body' '413 text/plain request body too large' \
		"$(reply -H Expect: --data-binary "@$dir/large" "$quota/delta")"
	head -c 1048576 "$dir/large" | sed 's/^/value=3\&consumer=/' > "$dir/megabyte"
	check 'an id of a megabyte' '200 text/plain delta quota successful' \
		"$(reply -H Expect: --data-binary "@$dir/megabyte" "$quota/delta")"

	curl -s -o /dev/null -d key=secret "$base/mock/key"
	local request=(/v1/chat/completions/quota/delta 'consumer=u&value=1' "$key")
	local query='/v1/chat/completions/quota?consumer=u'
	local success='text/plain delta quota successful'
	checked=
	fault_checks "${request[@]}"
	broken_checks "${request[@]}" "$success" 'text/plain redis error:scripted fault'
	garbled_checks "${request[@]}" "$query" '{"message":"delta quota successful",' '}' \
		'{"consumer":"u",' '}' 'delta quota successful'
	answer_checks "${request[@]}" "$success"
	choice_checks "${request[@]}" "$query"
	strike kind=refuse
	check 'refuse' "403 text/plain $denied and value must be integer." \
		"$(reply -H "$key" -d "${request[1]}" "$quota/delta")"
	strike kind=failure
	check 'failure' '200 text/plain redis error:scripted fault' \
		"$(reply -H "$key" -d "${request[1]}" "$quota/delta")"
	kind_checks
	stop_mock
	check 'ends cleanly' 0 "$ended"

	start_mock --dialect higress --model-header gpt-4 --admin-path /balance
	check 'model asked for' 404 "$(reply "$base/v1/chat/completions/balance?consumer=u" | cut -c 1-3)"
	check 'model given' 200 "$(reply -H 'x-higress-llm-model: gpt-4' \
		"$base/v1/chat/completions/balance?consumer=u" | cut -c 1-3)"
	stop_mock
}

higress_version_checks()
{
	local key='Authorization: Bearer secret'
	local denied='403 text/plain Request denied by ai quota check.'

	start_mock --dialect higress --key secret --other-key mine --group-pools
	check 'the key of somebody else' "$denied Unauthorized admin consumer." \
		"$(reply -H 'Authorization: Bearer mine' "$quota?consumer=u")"
	check 'group pools: no consumer' "$denied consumer or group must be set." "$(reply -H "$key" "$quota")"
	check 'group pools: delta of no number' "$denied value must be an integer." \
		"$(reply -H "$key" -d 'consumer=u&value=1.5' "$quota/delta")"
	check 'group pools: refresh of no number' "$denied quota must be an integer." \
		"$(reply -H "$key" -d 'consumer=u&quota=x' "$quota/refresh")"
	check 'group pools: delta of nobody' "$denied consumer or group must be set." \
		"$(reply -H "$key" -d 'value=1' "$quota/delta")"
	check 'group pools: delta' '200 text/plain delta quota successful' \
		"$(reply -H "$key" -d 'consumer=u&value=5' "$quota/delta")"
	stop_mock
}

# stored NUMBER: the quota as a query shows it after it was set
stored()
{
	curl -s -o "$dir/body" -H 'x-admin-key: secret' --data-urlencode "quota=$1" -d 'user_id=number' "$quota/refresh"
	curl -s --max-time 0.3 -H 'x-admin-key: secret' "$quota?user_id=number" | sed 's/.*"quota":\([^,]*\),.*/\1/'
}

# Numbers are float64, read and written as Go does.
zgsm_number_checks()
{
	local key='x-admin-key: secret'
	local number shown error

	start_mock --dialect zgsm --key secret
	while read -r number shown; do
		check "number $number" "$shown" "$(stored "$number")"
	done <<- NUMBERS
		0.0000001 1e-7
		1.1e-7 1.1e-7
		0.000001 0.000001
		1e-16 1e-16
		1e21 1e+21
		123456789012345678901 123456789012345680000
		9007199254740993 9007199254740992
		0.1234567 0.1234567
		0x1p-2 0.25
		0X1.8p1 3
		1_000 1000
		1_000.5_0 1000.5
		+5 5
		.5 0.5
		5. 5
		1e3 1000
		-0 0
	NUMBERS
	for number in '' 0x10 _1 1_ 1__0 1e 1e400 ten 0x1p 1,5 ' 1' +nan; do
		check "no number: '$number'" 400 "$(reply -H "$key" --data-urlencode "quota=$number" -d user_id=u "$quota/refresh" | cut -c 1-3)"
	done
	check 'a total of nan is not answered' '' "$(stored NaN)"
	check 'a total of infinity is not answered' '' "$(stored +Inf)"
	check 'others are' 200 "$(reply -H "$key" "$quota?user_id=other" | cut -c 1-3)"
	check 'nothing is added to it' 503 "$(reply -H "$key" -d 'user_id=number&value=1' "$quota/delta" | cut -c 1-3)"
	check 'it is shown' '{"user":"number","quota":"inf","used":"0"}' "$(curl -s "$base/mock/balance?user=number")"
	for number in nan:'value is not a valid float' inf:'increment would produce NaN or Infinity' \
		-Infinity:'increment would produce NaN or Infinity'; do
		error=${number#*:}
		check "delta of ${number%%:*}" "503 application/json {\"code\":\"ai-gateway.error\",\"message\":\"redis error:ERR $error" \
			"$(reply -H "$key" -d "user_id=u&value=${number%%:*}" "$quota/delta" | sed 's/\\u0000//; s/","success.*//')"
	done
	check 'a total below zero' 500 "$(reply -H "$key" -d 'user_id=below&value=-0.00000001' "$quota/delta" > "$dir/ignored"
		reply -H "$key" "$quota?user_id=below" | cut -c 1-3)"
	check 'too small to be seen' 1000000000000000 "$(stored 1e15)$(
		curl -s -o "$dir/body" -H "$key" -d 'user_id=number&value=0.02' "$quota/delta")"
	check 'and yet there' '{"user":"number","quota":"1000000000000000.02","used":"0"}' "$(curl -s "$base/mock/balance?user=number")"
	check 'and not read' '"quota":1000000000000000,' "$(reply -H "$key" "$quota?user_id=number" | grep -o '"quota":[^,]*,')"
	stop_mock

	start_mock --dialect zgsm --key secret --integers
	check 'integers: a fraction' \
		'400 application/json {"code":"ai-gateway.invalid_params","message":"Request denied by ai quota check. user_id can'\''t be empty and value must be integer.","success":false}' \
		"$(reply -H "$key" -d 'user_id=u&value=0.5' "$quota/delta")"
	check 'integers: an integer' 200 "$(reply -H "$key" -d 'user_id=u&value=5' "$quota/delta" | cut -c 1-3)"
	curl -s -o "$dir/body" -d 'user=u&quota=0.5' "$base/mock/balance"
	check 'integers: what the decimal version wrote' \
		'500 application/json {"code":"ai-gateway.invalid_quota_format","message":"Invalid total_quota format","success":false}' \
		"$(reply -H "$key" "$quota?user_id=u")"
	stop_mock
}

zgsm_checks()
{
	local key='x-admin-key: secret'
	local denied='{"code":"ai-gateway.invalid_params","message":"Request denied by ai quota check. user_id can'\''t be empty'
	local path code

	start_mock --dialect zgsm --key secret
	check 'no key' '403 application/json {"code":"ai-gateway.unauthorized","message":"Request denied by ai quota check. Unauthorized admin operation.","success":false}' \
		"$(reply "$quota?user_id=u")"
	while read -r path code; do
		check "$path" "200 application/json {\"code\":\"ai-gateway.$code\",\"message\":" \
			"$(reply -H "$key" -d 'user_id=u&value=1.5&quota=2.000001' "$quota/$path" |
				sed 's/\("message":\).*/\1/')"
	done <<- PATHS
		delta deltaquota
		used/delta deltausedquota
		used/refresh refreshusedquota
	PATHS
	check 'refresh' '200 application/json {"code":"ai-gateway.refreshquota","message":"refresh quota successful","success":true}' \
		"$(reply -H "$key" -d 'user_id=v&quota=-1' "$quota/refresh")"
	check 'total' '200 application/json {"code":"ai-gateway.queryquota","message":"query quota successful","success":true,"data":{"quota":1.5,"type":"total_quota","user_id":"u"}}' \
		"$(reply -H "$key" "$quota?user_id=u")"
	check 'used' '200 application/json {"code":"ai-gateway.queryquota","message":"query quota successful","success":true,"data":{"quota":2.000001,"type":"used_quota","user_id":"u"}}' \
		"$(reply -H "$key" "$quota/used?user_id=u")"
	check 'total below zero' '500 application/json {"code":"ai-gateway.invalid_quota_value","message":"Invalid total_quota value","success":false}' \
		"$(reply -H "$key" "$quota?user_id=v")"
	check 'no number' "400 application/json $denied and value must be a valid number.\",\"success\":false}" \
		"$(reply -H "$key" -d 'user_id=u&value=much' "$quota/delta")"
	check 'no user' "400 application/json $denied.\",\"success\":false}" "$(reply -H "$key" "$quota")"
	check 'exact sums' '{"user":"cents","quota":"0.3","used":"0"}' \
		"$(for _ in 1 2 3; do
			curl -s -o /dev/null -H "$key" -d 'user_id=cents&value=0.1' "$quota/delta"
		done; curl -s "$base/mock/balance?user=cents")"
	check 'list' $'8\tu\tused_delta' "$(
		curl -s -o /dev/null -H "$key" -d 'user_id=u&value=1' "$quota/used/delta"
		curl -s "$base/mock/applied.tsv?from=8" | sed -n 2p | cut -f 1-3)"
	local request=(/v1/chat/completions/quota/delta 'user_id=u&value=1' "$key")
	local query='/v1/chat/completions/quota?user_id=u'
	local envelope='{"code":"ai-gateway.deltaquota","message":"delta quota successful",'
	local failure='{"code":"ai-gateway.error","message":"redis error:scripted fault","success":false}'
	local success="application/json $envelope\"success\":true}"
	checked=
	fault_checks "${request[@]}"
	broken_checks "${request[@]}" "$success" "application/json $failure"
	garbled_checks "${request[@]}" "$query" "$envelope" '}' \
		'{"code":"ai-gateway.queryquota","message":"query quota successful","success":true,"data":{' \
		',"type":"total_quota","user_id":"u"}}' "${success#* }"
	answer_checks "${request[@]}" "$success"
	choice_checks "${request[@]}" "$query"
	strike kind=refuse
	check 'refuse' "400 application/json $denied and value must be a valid number.\",\"success\":false}" \
		"$(reply -H "$key" -d "${request[1]}" "$quota/delta")"
	strike kind=failure
	check 'failure' "200 application/json $failure" "$(reply -H "$key" -d "${request[1]}" "$quota/delta")"
	kind_checks
	stop_mock
	check 'ends cleanly' 0 "$ended"
}

# What was answered before kill -9 is there afterwards, what was cut off is not, and it goes on.
journal_checks()
{
	local key='x-admin-key: secret'
	local expected

	start_mock --dialect zgsm --key secret --journal "$dir/journal"
	curl -s -o /dev/null -H "$key" -d 'user_id=before&value=1' "$quota/delta"
	curl -s -o /dev/null -X POST "$base/mock/reset"
	curl -s -o /dev/null -d on=1 "$base/mock/honour-idempotency"
	curl -s -o /dev/null -d 'user=u&quota=0.5' "$base/mock/balance"
	curl -s -o /dev/null -H "$key" -H 'Idempotency-Key: k-1' -d 'user_id=u&value=1.5' "$quota/delta"
	curl -s -o /dev/null -H "$key" -d 'user_id=%09a%0A%FF&value=-0.25' "$quota/used/delta"
	expected=$(curl -s "$base/mock/applied.tsv")
	check 'journal: something to lose' 3 "$(wc -l <<< "$expected")"
	kill -KILL "$pid"
	wait "$pid" 2> /dev/null
	tail -c 40 "$dir/journal" > "$dir/torn"
	cat "$dir/torn" >> "$dir/journal"

	start_mock --dialect zgsm --key secret --journal "$dir/journal"
	check 'journal: the list after kill -9' "$expected" "$(curl -s "$base/mock/applied.tsv")"
	check 'journal: a balance after kill -9' '{"user":"u","quota":"2","used":"0"}' "$(curl -s "$base/mock/balance?user=u")"
	check 'journal: a key from before kill -9' 200 \
		"$(reply -H "$key" -H 'Idempotency-Key: k-1' -d 'user_id=u&value=1.5' "$quota/delta" | cut -c 1-3)"
	check 'journal: is not applied again' 2 "$(applied)"
	curl -s -o /dev/null -H "$key" -d 'user_id=u&value=1' "$quota/delta"
	expected=$(curl -s "$base/mock/applied.tsv")
	stop_mock

	start_mock --dialect zgsm --key secret --journal "$dir/journal"
	check 'journal: goes on after a clean end too' "3 $expected" "$(applied) $(curl -s "$base/mock/applied.tsv")"
	stop_mock
	echo 'some other file' > "$dir/other"
	"$mock" --dialect zgsm --journal "$dir/other" > "$dir/out" 2> "$dir/error"
	check 'journal: another file is refused' "1 aigateway-mock: $dir/other is no journal" "$? $(cat "$dir/error")"
	check 'journal: and left alone' 'some other file' "$(cut -c 1-15 "$dir/other")"
}

option_checks()
{
	local arguments
	while read -r arguments; do
		# shellcheck disable=SC2086
		"$mock" $arguments > "$dir/out" 2> "$dir/error"
		check "refused: $arguments" '2 aigateway-mock' "$? $(head -n 1 "$dir/error" | cut -d : -f 1)"
	done <<- OPTIONS

		--dialect other
		--dialect zgsm --port 65536
		--dialect zgsm --model-header m
		--dialect higress --key-header k
		--dialect higress --integers
		--dialect zgsm --group-pools
		--dialect zgsm --other-key k
		--dialect higress --unknown
	OPTIONS
}

higress_checks
higress_version_checks
zgsm_checks
zgsm_number_checks
journal_checks
option_checks
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
