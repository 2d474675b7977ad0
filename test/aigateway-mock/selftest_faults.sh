# The part of selftest.sh about faults: what the client sees of each kind, whether the change was applied,
# and which requests are struck.  To be read by selftest.sh.
# shellcheck shell=bash disable=SC2154 # dir, base, port and pid are of selftest.sh

# arm FIELD...: arms a fault
arm()
{
	local field arguments=()
	for field; do arguments+=(--data-urlencode "$field"); done
	curl -s -o "$dir/arm" "${arguments[@]}" "$base/mock/fault"
}

# on_kept_connection PATH BODY HEADER: sends the request twice on one connection, the second time with
# the fault of the variable fault; prints how the second one ended: "closed", "reset", "silence" or
# what was received
on_kept_connection()
{
	local request line rest status
	request=$(printf 'POST %s HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: %d\r\n\r\n%s.' \
		"$1" "$3" "${#2}" "$2")
	request=${request%.}
	exec 3<> "/dev/tcp/127.0.0.1/$port"
	printf '%s' "$request" >&3
	while IFS= read -r -t 5 line <&3 && [ "$line" != $'\r' ]; do
		[[ $line == Content-Length:* ]] && rest=${line//[!0-9]/}
	done
	IFS= read -r -t 5 -N "$rest" line <&3
	arm "kind=$fault" match=delta
	printf '%s' "$request" >&3
	line=
	IFS= read -r -t 0.3 -N 1 line <&3 2> "$dir/error"
	status=$?
	exec 3>&-
	if [ -n "$line" ]; then
		echo "received $line"
	elif [ -s "$dir/error" ]; then
		echo reset
	elif [ $status -gt 128 ]; then
		echo silence
	else
		echo closed
	fi
}

# received: all that comes on descriptor 3 within 0.3 s, and whether it is still "open" or "closed"
received()
{
	local bytes status
	IFS= read -r -t 0.3 -N 100000 bytes <&3
	status=$?
	[ $status -gt 128 ] && printf 'open '
	[ $status -eq 1 ] && printf 'closed '
	printf '%s' "${bytes//$'\r'/}"
}

# exchange PATH BODY HEADER: sends the request on a connection that is new, or on descriptor 3 if that is
# open; prints what is received
exchange()
{
	local request
	request=$(printf 'POST %s HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: %d\r\n\r\n%s.' \
		"$1" "$3" "${#2}" "$2")
	{ : >&3; } 2> "$dir/error" || exec 3<> "/dev/tcp/127.0.0.1/$port"
	printf '%s' "${request%.}" >&3
	received
}

# wait_applied N: until so many changes are applied; prints how many are after 5 s at most
wait_applied()
{
	for _ in $(seq 100); do
		[ "$(applied)" = "$1" ] && break
		sleep 0.05
	done
	applied
}

# strike FIELD...: forgets everything and arms a fault, whose kind counts as checked
strike()
{
	curl -s -o /dev/null -X POST "$base/mock/reset"
	arm "$@"
	checked+=" ${1#kind=}"
}

# fault_checks PATH BODY HEADER: what both dialects share
fault_checks()
{
	local kind applies expected
	while read -r kind applies expected; do
		curl -s -o /dev/null -X POST "$base/mock/reset"
		checked+=" $kind"
		fault=$kind
		check "$kind: what the client sees" "$expected" "$(on_kept_connection "$1" "$2" "$3")"
		check "$kind: changes applied" "$((1 + applies))" "$(applied)"
		check "$kind: used up" '[]' "$(curl -s "$base/mock/fault")"
	done <<- KINDS
		close 0 closed
		apply_close 1 closed
		reset 0 reset
		apply_reset 1 reset
		hang 0 silence
		apply_hang 1 silence
	KINDS

	curl -s -o /dev/null -X POST "$base/mock/reset"
	arm kind=status status=429 retry_after=7 'body=slow down' content_type=text/plain
	check 'status: reply' '429 text/plain slow down' \
		"$(reply -D "$dir/headers" -H "$3" -d "$2" "$base$1")"
	check 'status: Retry-After' 'Retry-After: 7' "$(grep -i retry-after "$dir/headers" | tr -d '\r')"
	check 'status: not applied' 0 "$(applied)"
	arm kind=apply_status status=500 body=oops content_type=text/plain
	check 'apply_status: reply' '500 text/plain oops' "$(reply -H "$3" -d "$2" "$base$1")"
	check 'apply_status: applied' 1 "$(applied)"
	arm kind=html
	check 'html: reply' '200 text/html; charset=utf-8 <!DOCTYPE' \
		"$(reply -H "$3" -d "$2" "$base$1" | head -n 1 | cut -d ' ' -f 1-4)"
	check 'html: not applied' 1 "$(applied)"
	arm kind=slow delay_ms=200 match=write
	check 'slow: applied' 200 "$(reply -H "$3" -d "$2" "$base$1" | cut -d ' ' -f 1)"
	check 'faults counted' '"faults":4' "$(curl -s "$base/mock/stats" | grep -o '"faults":[0-9]*')"
	arm kind=close match=nothing
	check 'unknown match' 'match must be any, query, delta, grant, refresh or write' "$(cat "$dir/arm")"
	arm kind=nothing
	check 'unknown kind' 'no such kind; GET /mock/fault/kinds lists them' "$(cat "$dir/arm")"
	arm kind=close count=5
	curl -s -o /dev/null -X POST "$base/mock/fault/clear"
	check 'faults cleared' '[]' "$(curl -s "$base/mock/fault")"
	checked+=' status apply_status html slow'
}

# broken_checks PATH BODY HEADER SUCCESS FAILURE: replies that are cut, late, slow or too long.  SUCCESS and
# FAILURE are what the dialect says of a change, and of a scripted fault with that status
broken_checks()
{
	local kind applies expected started
	local extra=$'HTTP/1.1 429 Too Many Requests\nContent-Type: text/plain\nContent-Length: 5\n\nlater'

	while read -r kind applies; do
		strike kind="$kind"
		check "$kind: what is received" $'closed HTTP/1.1 200 OK\nContent-Type: '"${4%% *}"$'\nContent-Length' \
			"$(exchange "$1" "$2" "$3")"
		check "$kind: changes applied" "$applies" "$(applied)"
	done <<- KINDS
		half_header 0
		apply_half_header 1
	KINDS
	while read -r kind applies; do
		strike kind="$kind"
		check "$kind: what curl says" '18 200' "$(
			curl -s -o "$dir/body" -w '%{http_code}' -H "$3" -d "$2" "$base$1" > "$dir/code"
			echo "$? $(cat "$dir/code")")"
		expected=$(reply -H "$3" -d "$2" "$base$1" > "$dir/ignored"; cat "$dir/body")
		strike kind="$kind"
		check "$kind: half of the body" "${expected:0:$((${#expected} / 2))}" "$(
			curl -s -H "$3" -d "$2" "$base$1")"
		check "$kind: changes applied" "$applies" "$(applied)"
	done <<- KINDS
		cut_off 0
		apply_cut_off 1
	KINDS
	while read -r kind applies; do
		strike kind="$kind" 'body=220 ready, and nothing else'
		check "$kind: what is received" 'closed 220 ready, and nothing else' \
			"$(exchange "$1" "$2" "$3")"
		check "$kind: changes applied" "$applies" "$(applied)"
	done <<- KINDS
		raw 0
		apply_raw 1
	KINDS

	for kind in drip apply_drip; do
		applies=$([ $kind = drip ]; echo $?)
		expected=$([ $kind = drip ] && echo "503 $5" || echo "200 $4")
		strike kind=$kind delay_ms=2
		started=$(date +%s%N)
		check "$kind: the reply" "$expected" "$(reply -H "$3" -d "$2" "$base$1")"
		check "$kind: takes its time" yes "$(
			[ $(($(date +%s%N) - started)) -gt 200000000 ] && echo yes)"
		strike kind=$kind delay_ms=100
		check "$kind: starts at once, too slow" 'open HT' "$(exchange "$1" "$2" "$3" | head -c 7)"
		check "$kind: changes applied" "$applies" "$(applied)"
	done

	for kind in extra apply_extra; do
		applies=$([ $kind = extra ]; echo $?)
		expected=$([ $kind = extra ] && echo "503 $5" || echo "200 $4")
		strike kind=$kind match=delta
		exec 3<> "/dev/tcp/127.0.0.1/$port"
		exchange "$1" "$2" "$3" > "$dir/received"
		check "$kind: the status" "open HTTP/1.1 ${expected:0:3}" "$(head -c 17 "$dir/received")"
		check "$kind: what follows the reply" "${expected#* * }$extra" \
			"$(sed '1,/^$/d' "$dir/received")"
		check "$kind: the length does not count it" "Content-Length: $(printf %s "${expected#* * }" | wc -c)" \
			"$(sed '/^$/q' "$dir/received" | grep Content-Length)"
		check "$kind: changes applied" "$applies" "$(applied)"
		check "$kind: the connection goes on" 'open HTTP/1.1 200 OK' \
			"$(exchange "$1" "$2" "$3" | head -n 1)"
		exec 3>&-
		check "$kind: and applies" "$((applies + 1))" "$(applied)"
		strike kind=$kind extra=more
		check "$kind: other bytes" "${expected#* * }more" "$(exchange "$1" "$2" "$3" | sed '1,/^$/d')"
	done

	strike kind=apply_late delay_ms=300
	curl -s --max-time 0.3 -o /dev/null -H "$3" -d "$2" "$base$1"
	check 'apply_late: no reply' 28 $?
	started=$(date +%s%N)
	check 'apply_late: not at once' 0 "$(applied)"
	check 'apply_late: applied' 1 "$(wait_applied 1)"
	check 'apply_late: after a while' yes "$([ $(($(date +%s%N) - started)) -gt 250000000 ] && echo yes)"
	strike kind=apply_late
	curl -s --max-time 0.1 -o /dev/null -H "$3" -d "$2" "$base$1"
	check 'apply_late: without a delay' 1 "$(wait_applied 1)"

	strike kind=apply_late delay_ms=100
	curl -s --max-time 0.1 -o /dev/null -H "$3" -d "$2" "$base$1"
	curl -s -o /dev/null -X POST "$base/mock/reset"
	for _ in $(seq 100); do
		curl -s "$base/mock/stats" | grep -q '"open_connections":1}' && break
		sleep 0.05
	done
	check 'apply_late: not after a reset' 0 "$(applied)"

	for kind in huge apply_huge; do
		strike kind=$kind
		check "$kind: size" '200 100000000' "$(
			curl -s -o /dev/null -w '%{http_code} %{size_download}' -H "$3" -d "$2" "$base$1")"
		check "$kind: changes applied" "$([ $kind = huge ]; echo $?)" "$(applied)"
	done
	check 'huge: made while it is sent' yes \
		"$([ "$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status")" -lt 80000 ] && echo yes)"
	strike kind=huge size=200
	expected=${4#* }
	[ "${expected: -1}" = '}' ] && expected="${expected%\}},\"filler\":\""
	check 'huge: as large as asked for' "200 $expected" "$(
		curl -s -w '%{size_download}' -H "$3" -d "$2" "$base$1" |
			sed 's/\(.*[^0-9]\)\([0-9]*\)$/\2 \1/; s/xx*\("}\)\{0,1\}$//')"
}

# garbled_checks PATH BODY HEADER QUERY BEFORE AFTER QUERY-BEFORE QUERY-AFTER: JSON that is wrong in one way.
# What stands before and after the success of a change, and before and after the quota 7 of a query
garbled_checks()
{
	local kind change query prefix usual=$9
	while IFS='|' read -r kind change query; do
		for prefix in '' apply_; do
			strike kind="$prefix$kind"
			check "$prefix$kind: change" "200 application/json $change" "$(reply -H "$3" -d "$2" "$base$1")"
			check "$prefix$kind: changes applied" "${prefix:+1}" "$(applied | sed s/^0//)"
			strike kind="$prefix$kind"
			curl -s -o /dev/null -d user=u -d quota=7 "$base/mock/balance"
			check "$prefix$kind: query" "200 application/json $query" "$(reply -H "$3" "$base$4")"
		done
	done <<- KINDS
		unparsable|$5"success" true$6|$7"quota" 7$8
		truncated|${usual%?}|$7"quota":7${8%?}
		duplicate_key|$5"success":false,"success":true$6|$7"quota":1000000,"quota":7$8
		quoted_number|$5"success":"true"$6|$7"quota":"7"$8
		exponent|$5"success":1e400$6|$7"quota":1e400$8
		long_number|$5"success":12345678901234567890$6|$7"quota":12345678901234567890$8
		not_utf8|{"bytes":"$(printf '\xff\xc0\x80')",${5#\{}"success":true$6|{"bytes":"$(printf '\xff\xc0\x80')",${7#\{}"quota":7$8
	KINDS
	for prefix in '' apply_; do
		strike kind="${prefix}nested"
		curl -s -o "$dir/body" -H "$3" -d "$2" "$base$1"
		check "${prefix}nested: depth" '100000 100000' \
			"$(tr -cd '[' < "$dir/body" | wc -c) $(tr -cd ']' < "$dir/body" | wc -c)"
		check "${prefix}nested: the rest" "{\"nested\":,${5#\{}\"success\":true$6" "$(tr -d '[]' < "$dir/body")"
		check "${prefix}nested: changes applied" "${prefix:+1}" "$(applied | sed s/^0//)"
	done
}

# answer_checks PATH BODY HEADER SUCCESS: whole replies of other kinds
answer_checks()
{
	strike kind=redirect location=http://elsewhere.example/x
	check 'redirect' '307 http://elsewhere.example/x' \
		"$(curl -s -o /dev/null -w '%{http_code} %{redirect_url}' -H "$3" -d "$2" "$base$1")"
	strike kind=redirect status=302
	check 'redirect: by itself' '302 http://127.0.0.2:9/' \
		"$(curl -s -o /dev/null -w '%{http_code} %{redirect_url}' -H "$3" -d "$2" "$base$1")"
	check 'redirect: not applied' 0 "$(applied)"
	strike kind=apply_wrong_type
	check 'apply_wrong_type' "200 image/png ${4#* }" "$(reply -H "$3" -d "$2" "$base$1")"
	check 'apply_wrong_type: applied' 1 "$(applied)"
	strike kind=apply_html content_type=application/json
	check 'apply_html' '200 application/json <!DOCTYPE' \
		"$(reply -H "$3" -d "$2" "$base$1" | head -n 1 | cut -d ' ' -f 1-3)"
	check 'apply_html: applied' 1 "$(applied)"
}

# choice_checks PATH BODY HEADER QUERY: which requests are struck
choice_checks()
{
	local first second
	strike kind=status status=429 match=query probability=0.3 seed=7 count=0
	check 'probability: listed' '"left":0,"probability":0.3,"status":429' \
		"$(curl -s "$base/mock/fault" | grep -o '"left.*429')"
	first=$(curl -s -o /dev/null -w '%{http_code} ' -H "$3" "$base$4[1-200]")
	strike kind=status status=429 match=query probability=0.3 seed=7 count=0
	second=$(curl -s -o /dev/null -w '%{http_code} ' -H "$3" "$base$4[1-200]")
	check 'probability: the same seed' "$first" "$second"
	check 'probability: about that share' yes "$(
		echo "$first" | grep -o 429 | wc -l | awk '{ print ($1 > 35 && $1 < 85) ? "yes" : $1 }')"
	strike kind=status status=429 match=query probability=0.3 seed=8 count=0
	second=$(curl -s -o /dev/null -w '%{http_code} ' -H "$3" "$base$4[1-200]")
	check 'probability: another seed' yes "$([ "$first" != "$second" ] && echo yes)"
	strike kind=status status=429 match=query probability=0.3 seed=7 count=5
	second=$(curl -s -o /dev/null -w '%{http_code} ' -H "$3" "$base$4[1-200]")
	check 'probability: up to the count' 5 "$(echo "$second" | grep -o 429 | wc -l)"
	check 'probability: the same ones' "$(echo "$first" | cut -d 9 -f 1-5)" \
		"$(echo "$second" | cut -d 9 -f 1-5)"
	strike kind=status match=query probability=0
	check 'probability: never' 200 "$(reply -H "$3" "$base$4" | cut -c 1-3)"
	arm kind=status probability=1.5
	check 'probability: not a share' 'probability must be a number from 0 to 1' "$(cat "$dir/arm")"

	strike kind=status match=write count=0
	check 'count 0: writes fail' '503 503 503 ' \
		"$(curl -s -o /dev/null -w '%{http_code} ' -H "$3" -d "$2" "$base$1?[1-3]")"
	check 'count 0: reads work' 200 "$(reply -H "$3" "$base$4" | cut -c 1-3)"
	check 'count 0: nothing applied' 0 "$(applied)"

	strike kind=status match=grant
	check 'grant: a delta of 0 is spared' 200 "$(reply -H "$3" -d "${2%1}0" "$base$1" | cut -c 1-3)"
	check 'a delta of 0 is listed' '0 0' \
		"$(curl -s "$base/mock/applied.tsv" | sed -n 2p | cut -f 4,6 | tr '\t' ' ')"
	check 'grant: any other is struck' 503 "$(reply -H "$3" -d "$2" "$base$1" | cut -c 1-3)"
	check 'grant: used up' '[]' "$(curl -s "$base/mock/fault")"
}

# kind_checks: every kind was checked
kind_checks()
{
	local kind
	for kind in $(curl -s "$base/mock/fault/kinds" | tr -d '[]"' | tr ',' ' '); do
		case " $checked " in
			*" $kind "*) ;;
			*) check "kind $kind is checked" yes no ;;
		esac
	done
}
