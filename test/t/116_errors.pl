
# Whatever people give to what they may call, the error says whose it is: docs/operations.md lists the SQLSTATEs.
# An internal error, one of PL/pgSQL's own, one of the syntax of a statement or one that shows a row is a mistake of ours.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway);
use QuotaTest::Mock;
use Test::More;

# As documented; PGRST is how the API says what PostgREST would get wrong, with the code inside.
my %documented = map { $_ => 1 } qw(22001 22003 22004 22007 22008 22023 22P02 42804 42809 42704 P0002 23503 23505 55000 55P03 42P01
  3D000 08001 08004 08006 08007 53000 25006 25000 25001 42501 57014 55006 42P13 42725);

my $node = delivery_node('errors');
my $mock = QuotaTest::Mock->start(dialect => 'zgsm');
add_gateway($node, 'g', $mock, is_default => 'true', sole_writer => 'true');
$node->safe_psql('postgres', <<'SQL');
INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, request_timeout) VALUES ('dead', 'higress', 'http://127.0.0.1:1', '1 s');
INSERT INTO quota_manager.quota_model VALUES ('n', 'dead');
INSERT INTO quota_manager.user_info (id, email, vip) VALUES ('u1', 'hidden', 1);
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, enabled) VALUES ('once', 'single', 1, 'm', 'true()', false);
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, periodic_expr) VALUES ('daily', 'periodic', 1, 'm', 'true()', '@daily');
SELECT quota_test.make_grants('g', 3, ARRAY['u1', 'u2']);
CREATE ROLE admin LOGIN;
SELECT quota_manager.grant_access('admin', 'admin');
-- 22023: what it says instead of ok.
CREATE FUNCTION public.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS OR query_canceled THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN CASE WHEN SQLSTATE = 'PGRST' THEN SQLERRM::json ->> 'code' ELSE SQLSTATE END || ' ' || left(SQLERRM, 200) || ' ' || left(coalesce(detail, ''), 200);
END
$$;
-- Values that somebody may give, by type; those that the type itself refuses are not ours.
CREATE TABLE public.hostile (type text, value text);
INSERT INTO public.hostile
	SELECT 'text', v FROM unnest(ARRAY[NULL, '', 'none', 'once', 'daily', 'g', 'dead', 'u1', E'\n', '%s %', '''', '"', '\', '{', 'UTC', 'Mars', repeat('x', 2601),
		(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 3000) i), 'true()', '((', 'is-vip(x)', 'is-vip()', 'quota-le("nobody", 1)', 'SELECT', 'SELECT 1',
		'SELECT ''once'', ''u1'', now()', 'may_have_run', 'unchanged_since_dump', 'file:///etc/passwd', '*/5 * * * *', '99 * * * *', E'\u202e\u0001', 'scheduler', 'quota_manager.quota_gateway']) v
	UNION ALL SELECT 'integer', v FROM unnest(ARRAY[NULL, '0', '-1', '1', '2', '2147483647', '-2147483648']) v
	UNION ALL SELECT 'bigint', v FROM unnest(ARRAY[NULL, '0', '-1', '1', '9223372036854775807', '-9223372036854775808']) v
	UNION ALL SELECT 'numeric', v FROM unnest(ARRAY[NULL, '0', '-1', '1.5', '0.0000001', 'NaN', 'Infinity', '-Infinity', '1e1000', '9223372036854775808']) v
	UNION ALL SELECT 'double precision', v FROM unnest(ARRAY[NULL, '0', '-1', 'NaN', 'Infinity', '1e300']) v
	UNION ALL SELECT 'boolean', v FROM unnest(ARRAY[NULL, 'true', 'false']) v
	UNION ALL SELECT 'timestamp with time zone', v FROM unnest(ARRAY[NULL, 'infinity', '-infinity', '2024-02-29 00:00+00', '294276-12-31 23:59:59+00', '4713-01-01 00:00:00+00 BC', 'epoch']) v
	UNION ALL SELECT 'interval', v FROM unnest(ARRAY[NULL, '0', '-1 s', '1 us', '178000000 years']) v
	UNION ALL SELECT 'oid', v FROM unnest(ARRAY[NULL, '0', '1', '4294967295']) v
	UNION ALL SELECT 'regclass', v FROM unnest(ARRAY[NULL, '0', 'pg_class', '4294967295']) v
	UNION ALL SELECT 'regrole', v FROM unnest(ARRAY[NULL, '0', 'admin', '4294967295']) v
	UNION ALL SELECT 'name', v FROM unnest(ARRAY[NULL, '', 'postgres']) v
	UNION ALL SELECT 'jsonb', v FROM unnest(ARRAY[NULL, '{}', '[]', '1', 'null', '{"g": "x"}', '{"g": 1e999}']) v
	UNION ALL SELECT 'text[]', v FROM unnest(ARRAY[NULL, '{}', '{NULL}', '{g,none}', '{{g},{g}}']) v
	UNION ALL SELECT 'integer[]', v FROM unnest(ARRAY[NULL, '{}', '{NULL}', '{1,1,0}', '{{1},{2}}', '[5:6]={1,2}']) v
	UNION ALL SELECT 'bigint[]', v FROM unnest(ARRAY[NULL, '{}', '{NULL}', '{1,1,0}', '{{1},{2}}', '[5:6]={1,2}']) v
	UNION ALL SELECT 'quota_manager.condition', v FROM unnest(ARRAY[NULL, 'true()', 'nosuch()', 'is-vip("x")', 'is-vip()', 'quota-le("m", 1)', 'quota-le("nobody", 1)', 'access-after("soon")']) v
	UNION ALL SELECT 'quota_manager.cron', v FROM unnest(ARRAY[NULL, '@daily', '* * * * * *', '0 0 29 2 *', 'CRON_TZ=Mars * * * * *', '0 0 29 2 1']) v
	UNION ALL SELECT 'quota_manager.quota_strategy', v FROM unnest(ARRAY[NULL, '(,,,,,,,,,,,,,,,,,,,,)', (SELECT s::text FROM quota_manager.quota_strategy s WHERE s.name = 'daily')]) v
	UNION ALL SELECT 'quota_manager.subject', v FROM unnest(ARRAY[NULL, '(,,,,,,,,,,)', (SELECT s::text FROM quota_manager.subject s LIMIT 1)]) v;
-- A call of a function for each value of each argument, the others being ordinary.
CREATE FUNCTION public.calls(schema text) RETURNS SETOF text LANGUAGE sql AS $$
	WITH called AS (
		SELECT p.oid, p.prokind, format('%I.%I', n.nspname, p.proname) AS name, a.n, format_type(a.type, NULL) AS type, coalesce(p.proargnames[a.n], '') AS parameter
		FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace CROSS JOIN LATERAL unnest(p.proargtypes) WITH ORDINALITY a (type, n)
		WHERE n.nspname = schema AND has_function_privilege('admin', p.oid, 'EXECUTE') AND NOT p.prorettype = 'trigger'::regtype
	), ordinary AS (
		SELECT c.oid, c.n, c.type, coalesce(o.value, (SELECT h.value FROM public.hostile h WHERE h.type = c.type AND h.value IS NOT NULL LIMIT 1)) AS value
		FROM called c LEFT JOIN (VALUES ('text', 'user_id', 'u1'), ('text', 'gateway', 'g'), ('text', 'reason', 'why'), ('text', 'note', 'why'), ('text', 'strategy', 'daily'),
			('text', 'strategy_name', 'daily'), ('text', 'model', 'm'), ('text', 'zone', 'UTC'), ('text', 'time_zone', 'UTC'), ('text', 'policy', 'may_have_run'), ('text', 'dialect', 'zgsm'),
			('text', 'name', 'k'), ('text', 'secret', 's'), ('bigint', 'id', '1'), ('bigint[]', 'ids', '{1}'), ('integer[]', 'ids', '{1}'), ('integer', 'n', '3'), ('numeric', '', '1'),
			('timestamp with time zone', '', '2024-02-29 00:00+00'), ('quota_manager.quota_strategy', '', (SELECT s::text FROM quota_manager.quota_strategy s WHERE s.name = 'daily'))) o (type, name, value)
			ON o.type = c.type AND o.name IN (c.parameter, '')
	)
	SELECT format(CASE c.prokind WHEN 'p' THEN 'CALL %s(%s)' ELSE 'SELECT count(*) FROM (SELECT * FROM %s(%s) x LIMIT 10) y' END, c.name,
		(SELECT string_agg(format('%s::%s', quote_nullable(CASE WHEN o.n = c.n THEN h.value ELSE o.value END), o.type), ', ' ORDER BY o.n) FROM ordinary o WHERE o.oid = c.oid))
	FROM called c JOIN public.hostile h ON h.type = c.type
	WHERE NOT EXISTS (SELECT 1 FROM ordinary o WHERE o.oid = c.oid AND o.value IS NULL)
$$;
-- A write of a row for each value of each column that may be written, the others being ordinary.
CREATE FUNCTION public.writes() RETURNS SETOF text LANGUAGE sql AS $$
	WITH ordinary (relation, good) AS (VALUES
		('quota_strategy', '{"name": "new", "type": "single", "amount": "5", "model": "m", "condition": "true()"}'::jsonb), ('user_info', '{"id": "new"}'),
		('quota_gateway', '{"name": "new", "dialect": "zgsm", "base_url": "http://127.0.0.1:1"}'), ('quota_model', '{"model": "new", "gateway": "g"}'),
		('quota_credential', '{"name": "new", "secret": "s"}')
	), written AS (
		SELECT o.relation, o.good, a.attname, h.value, a.attnum, has_column_privilege('admin', a.attrelid, a.attnum, 'UPDATE') AS can_update
		FROM ordinary o JOIN pg_attribute a ON a.attrelid = ('quota_manager.' || o.relation)::regclass AND a.attnum > 0
			AND has_column_privilege('admin', a.attrelid, a.attnum, 'INSERT')
		JOIN public.hostile h ON h.type = format_type(a.atttypid, NULL)
	)
	SELECT format('INSERT INTO quota_manager.%s (%s) VALUES (%s)', w.relation, string_agg(quote_ident(k.key), ', '), string_agg(quote_nullable(k.value), ', '))
	FROM written w CROSS JOIN LATERAL jsonb_each_text(w.good || jsonb_build_object(w.attname, w.value)) k GROUP BY w.relation, w.attname, w.value
	UNION ALL SELECT format('UPDATE quota_manager.%s SET %I = %L', w.relation, w.attname, w.value) FROM written w WHERE w.can_update
$$;
CREATE TABLE public.statement AS
	SELECT source, s FROM unnest(ARRAY['quota_manager', 'quota_api', 'quota_internal']) source, public.calls(source) s
	UNION SELECT 'writes', s FROM public.writes() s;
GRANT SELECT ON public.statement TO admin;
SQL

# Runs the statements of a kind as an administrator, each in a transaction that is rolled back, and returns what was wrong with what was said.
sub wrong
{
	my ($source) = @_;
	my ($status, $answers, $err) = $node->psql('postgres', qq{
		SET client_min_messages = error;
		SET lock_timeout = '2s';
		SET statement_timeout = '3s';
		SELECT count(*) FROM public.statement WHERE source = '$source';
		SELECT 'BEGIN', format(\$q\$SELECT regexp_replace(left(%1\$L, 300) || ' => ' || t, E'\\n', ' ', 'g') FROM public.try(%1\$L) t WHERE t <> ''\$q\$, s), 'ROLLBACK'
			FROM public.statement WHERE source = '$source' ORDER BY s \\gexec},
		connstr => $node->connstr('postgres') . ' user=admin', on_error_stop => 0, timeout => 120);

	is($err, '', "$source: every error is caught");
	my ($count, @said) = split /\n/, $answers;

	note(join "\n", @said);
	note("$count statements, " . @said . ' errors');
	cmp_ok($count, '>', 50, "$source: so many statements");
	cmp_ok(scalar @said, '>', 10, "$source: so many errors");
	return grep { /=> (\w{5}) / && !$documented{$1} || /Failing row|hidden/ } @said;
}

foreach my $source (qw(quota_manager quota_api quota_internal writes))
{
	my @wrong = wrong($source);

	is(@wrong, 0, "$source: all errors are documented ones") or diag join "\n", @wrong[0 .. (@wrong > 30 ? 29 : $#wrong)];
}

$node->stop;

# Nothing is raised without saying what it is.
foreach my $file (glob("$FindBin::RealBin/../../sql/parts/*.sql"), glob("$FindBin::RealBin/../../src/*/*.c"))
{
	my $text = slurp_file($file);

	my @raised = $file =~ /sql$/ ? $text =~ /^\s*(RAISE EXCEPTION\b.*?;)$/gms : $text =~ /\b(ereport\(\s*ERROR\b.*?\);)$/gms;
	my @nameless = grep { !/ERRCODE|errcode\(/ } @raised;

	is(@nameless, 0, "$file: " . @raised . ' errors have codes') or diag join "\n", @nameless;
}
done_testing();
