
# What an update waits for, refuses and takes back: tables in use, objects that somebody has put in its way, default
# privileges.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Catalogue qw(catalogue differences);
use QuotaTest::Delivery qw(begin_session ask_session end_session);
use QuotaTest::ScanNode qw(scan_node);
use QuotaTest::Wait qw(becomes_true);
use Test::More;

my $node = scan_node('upgrade_guards');
my $fresh = catalogue($node, 'postgres');
my $update = 'ALTER EXTENSION quota_manager UPDATE';

$node->safe_psql('postgres', 'CREATE ROLE stranger');

my ($before, $reader, $waiting);
subtest 'a table is in use: the update waits without a lock, and gives up in time with everything as it was' => sub {
	old_database('used');
	$node->safe_psql('used', q{INSERT INTO quota_manager.user_info (id) VALUES ('one')});
	$before = catalogue($node, 'used');
	$reader = begin_session($node, 'used');

	ask_session($reader, 'BEGIN');
	ask_session($reader, 'SELECT count(*) FROM quota_manager.user_info');
	fails('used', "SET lock_timeout = '300ms'; $update", qr/^psql:<stdin>:1: ERROR:  tables of quota_manager are in use for longer than 00:00:00.3\n.*DETAIL:  .*"user_info"\n.*HINT:  .*lock_timeout/m,
		'an update that waits for longer than lock_timeout');
	is(scalar differences(catalogue($node, 'used'), $before), 0, 'nothing has changed');

	my ($out, $error) = ('', '');
	$waiting = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('used'), '-c', $update ], '<', '/dev/null', '>', \$out, '2>', \$error);
	ok(becomes_true($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE query = '$update' AND wait_event = 'PgSleep'", database => 'used'), 'an update waits');
	$node->safe_psql('used', q{SET statement_timeout = '60s'; UPDATE quota_manager.user_info SET name = 'x'; SELECT count(*) FROM quota_manager.strategy_due});
	pass('meanwhile the tables are read and written');
	is($node->safe_psql('used', q{SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.wait_event = 'PgSleep' AND l.relation IN (
			SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'quota_manager'::regnamespace)}), 0, 'it holds no lock of a table');
	ask_session($reader, 'COMMIT');
	IPC::Run::finish($waiting);
	is($error, '', 'it goes on when they are free');
	end_session($reader);
	is_fresh('used', 'it ends where it should');
};

subtest 'within a transaction, and taken back' => sub {
	old_database('undone');
	$before = catalogue($node, 'undone');
	$node->safe_psql('undone', "BEGIN; SAVEPOINT s; $update; ROLLBACK TO s; $update; ROLLBACK");
	is(scalar differences(catalogue($node, 'undone'), $before), 0, 'an update that is rolled back leaves nothing');
	$node->safe_psql('undone', "BEGIN; SAVEPOINT s; $update; COMMIT");
	is_fresh('undone', 'an update in a subtransaction');
};

subtest 'somebody has been there before' => sub {
	foreach my $obstacle (
		[ 'schema', 'CREATE SCHEMA quota_api AUTHORIZATION stranger', qr/ERROR:  schema "quota_api" already exists/ ],
		[ 'function', 'CREATE FUNCTION quota_internal.library_version() RETURNS text LANGUAGE sql RETURN 1', qr/ERROR:  function quota_internal.library_version\(\) is not a member of extension "quota_manager"/ ],
		[ 'trigger', 'CREATE TRIGGER keep_user_id BEFORE UPDATE ON quota_manager.user_info FOR EACH ROW EXECUTE FUNCTION quota_internal.set_update_time()',
			qr/ERROR:  trigger "keep_user_id" for relation "user_info" already exists/ ],
		[ 'column', 'ALTER TABLE quota_manager.grant_decision ADD said_by int', qr/ERROR:  column "said_by" of relation "grant_decision" already exists/ ],
		[ 'index', 'CREATE INDEX grant_decision_id ON quota_manager.grant_decision (note)', qr/ERROR:  relation "grant_decision_id" already exists/ ])
	{
		my ($kind, $statement, $message) = @$obstacle;

		old_database("obstacle_$kind");
		$node->safe_psql("obstacle_$kind", $statement);
		fails("obstacle_$kind", $update, $message, "a $kind is in its way");
		is($node->safe_psql("obstacle_$kind", q{SELECT extversion FROM pg_extension WHERE extname = 'quota_manager'}), '1.0.0', "nothing has changed ($kind)");
	}
};

# Names that somebody puts before ours, of whatever the script calls.
old_database('shadows');
$node->safe_psql('shadows', <<"SQL");
CREATE SCHEMA bad;
CREATE FUNCTION bad.boom() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION \$\$boom\$\$; END';
CREATE FUNCTION bad.format(text, VARIADIC oid[]) RETURNS text LANGUAGE sql RETURN bad.boom()::text;
CREATE FUNCTION bad.oideq(oid, oid) RETURNS boolean LANGUAGE sql RETURN bad.boom();
CREATE OPERATOR bad.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = bad.oideq);
CREATE FUNCTION bad.set_config(text, text, boolean) RETURNS text LANGUAGE sql RETURN bad.boom()::text;
CREATE FUNCTION bad.current_setting(text) RETURNS text LANGUAGE sql RETURN bad.boom()::text;
CREATE FUNCTION bad.current_setting(text, boolean) RETURNS text LANGUAGE sql RETURN bad.boom()::text;
SET search_path = bad, pg_catalog, pg_temp;
$update;
DROP SCHEMA bad CASCADE;
SQL
is_fresh('shadows', 'names of the caller\'s search_path count for nothing');

# Default privileges and settings of the database: what is new has the rights that it has everywhere.
foreach my $case ([ 'generous', "CREATE EXTENSION quota_manager VERSION '1.0.0'", $update ], [ 'generous_fresh', 'SELECT 1', 'CREATE EXTENSION quota_manager' ])
{
	my ($database, $first, $then) = @$case;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, <<"SQL");
$first;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC, stranger;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC, stranger;
ALTER DEFAULT PRIVILEGES GRANT ALL ON ROUTINES TO PUBLIC, stranger;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO stranger;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC, stranger;
CREATE TABLE public.next (number oid);
SQL
	# As if it was all there already.
	$node->safe_psql($database, <<'SQL');
DO $$
BEGIN
	EXECUTE format('ALTER DATABASE %I SET quota_upgrade.members = %L', current_database(), (SELECT array_agg(format('%s %s', c::oid, n))::text
		FROM generate_series((SELECT 'public.next'::regclass::oid::bigint), 'public.next'::regclass::oid::bigint + 3000) n,
			unnest('{pg_class,pg_proc,pg_type,pg_namespace}'::regclass[]) c));
END
$$
SQL
	$node->safe_psql($database, $then);
	# They are there where something was taken back, also if that left what would be there anyway.
	my @differences = grep { !/^[^\n]*, initial rights/ } differences(catalogue($node, $database), $fresh);

	is(scalar @differences, 0, "default privileges give nothing away: $then") or diag(join "\n", @differences);
}

$node->stop;
done_testing();

sub old_database
{
	my ($database) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, q{CREATE EXTENSION quota_manager VERSION '1.0.0'});
	return;
}

sub is_fresh
{
	my ($database, $name) = @_;
	my @differences = differences(catalogue($node, $database), $fresh);

	is(scalar @differences, 0, $name) or diag(join "\n", @differences);
	return;
}

sub fails
{
	my ($database, $statements, $message, $name) = @_;
	my (undef, undef, $stderr) = $node->psql($database, $statements);

	like($stderr, $message, $name);
	return;
}
