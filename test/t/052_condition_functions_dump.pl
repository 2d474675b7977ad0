
# Condition functions that operators add in SQL: they work at once, survive
# pg_dump and restore, and when one is gone its strategies alone are broken, also
# across dump and restore.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node add_gateway contents);
use Test::More;

my $node = scan_node('functions');
add_gateway($node, 'postgres');
$node->safe_psql('postgres', <<'SQL');
CREATE SCHEMA app;
CREATE TABLE app.tag (user_id text, tag text, PRIMARY KEY (user_id, tag));
INSERT INTO app.tag VALUES ('u1', 'beta'), ('u2', 'beta'), ('u2', 'gold');
INSERT INTO quota_manager.user_info (id, name, vip) VALUES ('u1', 'Li', 1), ('u2', 'Wang', 2), ('u3', NULL, NULL);

-- SQL with a body of its own, SQL as text, PL/pgSQL; with a default, a time and a list.
CREATE FUNCTION quota_condition.has_tag(s quota_manager.subject, tag text) RETURNS boolean
	LANGUAGE sql STABLE PARALLEL SAFE RETURN EXISTS (SELECT FROM app.tag t WHERE t.user_id = (s).id AND t.tag = has_tag.tag);
CREATE FUNCTION quota_condition.name_is(s quota_manager.subject, VARIADIC names text[]) RETURNS boolean
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT (s).name = ANY (names)';
CREATE FUNCTION quota_condition.longer_than(s quota_manager.subject, letters integer DEFAULT 2) RETURNS boolean
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$ BEGIN RETURN length((s).name) > letters; END $$;
CREATE FUNCTION quota_condition.changed_since(s quota_manager.subject, at timestamptz) RETURNS boolean
	LANGUAGE sql STABLE PARALLEL SAFE RETURN EXISTS (SELECT FROM quota_manager.user_info u WHERE u.id = (s).id AND u.update_time >= at);

INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES
	('tag', 'single', 1, 'm', 'has-tag("beta") and not has-tag(gold)'),
	('name', 'single', 1, 'm', 'name-is("Li", "Zhang")'),
	('letters', 'single', 1, 'm', 'longer-than() or longer-than(1)'),
	('since', 'single', 1, 'm', 'changed-since("2020-01-01 00:00:00")'),
	('built-in', 'single', 1, 'm', 'is-vip(1)');
SQL

my $matches = q{SELECT string_agg(t.name || ':' || (SELECT coalesce(string_agg(s.id, ',' ORDER BY s.id), '') FROM quota_manager.subject s
	WHERE s OPERATOR(quota_manager.@@) t.condition), ' ' ORDER BY t.name) FROM quota_manager.quota_strategy t};
my $expected = 'built-in:u1,u2 letters:u1,u2 name:u1 since:u1,u2,u3 tag:u1';
# What others have written is not run as a superuser.
$node->safe_psql('postgres', 'CREATE ROLE scanner IN ROLE pg_read_all_data');
my $scan = q{DO $$ BEGIN PERFORM quota_manager.grant_access('scanner', 'worker'); END $$; SET ROLE scanner;
	SELECT string_agg(strategy || ':' || granted || coalesce(' ' || error, ''), E'\n' ORDER BY strategy) FROM quota_manager.scan()};

is($node->safe_psql('postgres', $matches), $expected, 'the functions work at once');

my $folder;
subtest 'with the functions' => sub {
	$folder = $node->backup_dir;
	mkdir $folder;
	copy_database('postgres', 'whole');
	is($node->safe_psql('whole', $matches), $expected, 'and after dump and restore');
	is($node->safe_psql('whole', $scan), "built-in:2\nletters:2\nname:1\nsince:3\ntag:1", 'in scans too');
	isnt($node->psql('whole', q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('x', 'single', 1, 'm', 'has-tug("x")')}),
		0, 'they are checked as before');
	like($node->safe_psql('whole', q{EXPLAIN (COSTS off) SELECT s.id FROM quota_manager.subject s WHERE s OPERATOR(quota_manager.@@) 'name-is("Li")'}),
		qr/Filter: \(name = ANY/, 'and the planner sees through them');
};

subtest 'without: dropped, replaced by one that is not allowed, and with another signature' => sub {
	$node->safe_psql('postgres', <<'SQL');
DROP FUNCTION quota_condition.has_tag;
ALTER FUNCTION quota_condition.name_is VOLATILE;
DROP FUNCTION quota_condition.longer_than;
CREATE FUNCTION quota_condition.longer_than(s quota_manager.subject, letters text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE RETURN true;
SQL
	my $strategies = contents($node, 'postgres')->{quota_strategy};
	copy_database('postgres', 'broken');
	is(contents($node, 'broken')->{quota_strategy}, $strategies, 'every strategy survives dump and restore');
	foreach my $database ('postgres', 'broken')
	{
		my $answer = $node->safe_psql($database, $scan);

		like($answer, qr/^built-in:2$/m, "$database: what is whole runs");
		like($answer, qr/^since:3$/m, "$database: so does what only calls what is there");
		like($answer, qr/^tag:0 unknown condition function "has-tag"/m, "$database: a dropped function is named");
		like($answer, qr/^name:0 condition function "name-is" is volatile/m, "$database: so is one that is not allowed");
		like($answer, qr/^letters:0 .*longer-than/m, "$database: and one with other arguments");
		is( $node->safe_psql($database, q{SELECT string_agg(state, ',' ORDER BY strategy_id) FROM quota_manager.quota_run}),
			'failed,failed,failed,done,done', "$database: the runs tell");
	}
};

subtest q{a dump restored where the function's own schema is missing loses that function and nothing else} => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE partial TEMPLATE template0');
	command_ok([ 'pg_dump', '--exclude-schema=app', '--file', "$folder/partial.sql", $node->connstr('whole') ], 'dump without a schema');
	$node->command_ok([ 'psql', '-X', '-q', '-f', "$folder/partial.sql", $node->connstr('partial') ], 'restore what can be');
	like($node->safe_psql('partial', q{SET client_min_messages = warning; DO $$ BEGIN PERFORM quota_manager.resume('unchanged_since_dump'); END $$;
			TRUNCATE quota_manager.quota_execute; } . $scan),
		qr/\Abuilt-in:2\nletters:2\nname:1\nsince:3\ntag:0 unknown condition function "has-tag"/, 'the others are whole');
};

subtest 'DROP EXTENSION says what hangs on it' => sub {
	my ($code, $out, $error) = $node->psql('whole', 'DROP EXTENSION quota_manager');
	isnt($code, 0, 'DROP EXTENSION does not take functions of others along');
	like($error, qr/function quota_condition\.has_tag\(quota_manager\.subject,text\) depends on/, 'it names them');
	$node->safe_psql('whole', 'DROP EXTENSION quota_manager CASCADE');
	is($node->safe_psql('whole', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'quota_condition'}), 0, 'CASCADE leaves nothing behind');
	$node->safe_psql('whole', 'DROP SCHEMA IF EXISTS quota_manager; CREATE EXTENSION quota_manager');
	is($node->safe_psql('whole', 'SELECT count(*) FROM quota_manager.quota_strategy'), 0, 'it can be created anew');
};

$node->stop;
done_testing();

sub copy_database
{
	my ($from, $to) = @_;

	command_ok([ 'pg_dump', '--file', "$folder/$to.sql", $node->connstr($from) ], "dump $from");
	$node->safe_psql('postgres', "CREATE DATABASE $to TEMPLATE template0");
	command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$folder/$to.sql", $node->connstr($to) ],
		"restore into $to");
	return;
}
