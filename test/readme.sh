#!/bin/bash
# Does what README says under "Five minutes": scripts/playground test/readme.sh
#
# Each block of SQL goes to psql and each of shell commands to bash, in order; those over HTTP only where the playground has a
# postgrest.  At the end the gateway must have got what README promises.
set -eu

readme=$(dirname "$0")/../README.md
blocks=$(mktemp -d)
trap 'rm -rf "$blocks"' EXIT

# Writes each block of the section to a file, NN.sql or NN.sh.
awk -v folder="$blocks" '
	/^## / { inside = $0 == "## Five minutes" }
	inside && /^### More/ { inside = 0 }
	inside && /^```$/ { file = "" }
	file != "" { print > file }
	inside && /^```(sql|sh)$/ { file = sprintf("%s/%02d.%s", folder, ++n, substr($0, 4)) }
' "$readme"

commands=0
for block in "$blocks"/*; do
	case $block in
		*.sql)
			psql -X -v ON_ERROR_STOP=1 -P pager=off -f "$block"
			commands=$((commands + $(grep -c ';$' "$block")))
			;;
		*.sh)
			! grep -q '^scripts/playground$' "$block" || continue
			if grep -q API "$block" && [ -z "${API:-}" ]; then
				echo "not run, since there is no postgrest: $(grep -c '^curl' "$block") commands over HTTP"
				continue
			fi
			bash -eu -c "curl() { command curl -sS --fail-with-body \"\$@\"; echo; }; . '$block'"
			commands=$((commands + $(grep -c '^curl' "$block")))
			;;
	esac
done
[ "$commands" -ge 10 ] || { echo "README has only $commands commands"; exit 1; }

applied=$(curl -sS "$GATEWAY/mock/applied.tsv" | cut -f2,4 | sort | tr '\n\t' ' =')
case $applied in
	*'ada=20 '*) echo "$commands commands, none failed; the gateway applied: $applied" ;;
	*) echo "the gateway applied: $applied"; exit 1 ;;
esac
