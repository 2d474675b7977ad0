
# In a transaction that cannot write nothing has an effect: not at a gateway, not on processes, not in the database.
# PostgREST runs GET and HEAD in such transactions, whatever function they name.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node start_workers add_gateway grant deliver);
use QuotaTest::Mock;
use QuotaTest::Wait qw(becomes_true);
use QuotaTest::Workers;
use Test::More;

my $node = delivery_node('read_only', "shared_preload_libraries = 'quota_manager'\nmax_worker_processes = 16\n");
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'k3y');

add_gateway($node, 'g', $mock, is_default => 'true', sole_writer => 'true');
start_workers($node);
$node->safe_psql('postgres', q{
	INSERT INTO quota_manager.user_info (id, vip) VALUES ('u1', 1), ('u2', 2);
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, enabled) VALUES ('once', 'single', 1, 'm', 'true()', false);
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, periodic_expr) VALUES ('yearly', 'periodic', 1, 'm', 'true()', '@yearly');
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, enabled) VALUES ('low', 'single', 1, 'm', 'quota-le("m", 5)', false);
	SELECT quota_test.make_grants('g', 3, ARRAY['u1', 'u2'])});
ok(becomes_true($node, q{SELECT count(*) = 2 FROM quota_manager.quota_execute WHERE status = 'completed'}), 'workers deliver');
$node->safe_psql('postgres', q{
	UPDATE quota_manager.quota_execute SET status = 'in_doubt', next_attempt_time = 'infinity' WHERE user_id = 'u1';
	INSERT INTO quota_manager.balance_suspension (gateway, reason) VALUES ('g', 'test')});

# Each function that may write, as it is called to do so; those that only read are called, too, and answer.
my $one = q{(SELECT id FROM quota_manager.quota_execute WHERE user_id = 'u1')};
my %call = (
	'scan(text)' => q{scan()},
	'resolve(bigint,boolean,text)' => "resolve($one, true)",
	'resolve(bigint[],boolean,text)' => "resolve(ARRAY[$one], true)",
	'retry(bigint,text)' => "retry($one)",
	'retry(bigint[],text)' => "retry(ARRAY[$one])",
	'cancel(bigint,text)' => "cancel($one)",
	'cancel(bigint[],text)' => "cancel(ARRAY[$one])",
	'reinstate(bigint,text)' => "reinstate($one)",
	'reinstate(bigint[],text)' => "reinstate(ARRAY[$one])",
	'correct(bigint,boolean,text)' => "correct($one, true)",
	'correct(bigint[],boolean,text)' => "correct(ARRAY[$one], true)",
	'reverse_run(bigint,text)' => q{reverse_run(1, 'note')},
	'reverse_strategy(text,text,timestamp with time zone,integer)' => q{reverse_strategy('once', 'note')},
	'reverse_grants(bigint[],text)' => "reverse_grants(ARRAY[$one], 'note')",
	'undo_reversal(bigint,text)' => q{undo_reversal(1, 'note')},
	'resolve_bulk(text,text[],boolean,text)' => q{resolve_bulk('key', NULL, true)},
	'correct_bulk(text,text[],boolean,text)' => q{correct_bulk('key', ARRAY['u1'], true)},
	'pause_all(text)' => q{pause_all('note')},
	'unpause_all(text)' => q{unpause_all('note')},
	'pause_gateway(text,text)' => q{pause_gateway('g', 'note')},
	'unpause_gateway(text,text)' => q{unpause_gateway('g', 'note')},
	'pause_strategy(text,text)' => q{pause_strategy('yearly', 'note')},
	'unpause_strategy(text,text)' => q{unpause_strategy('yearly', 'note')},
	'resume(text)' => q{resume('may_have_run')},
	'release_balances(text,text)' => q{release_balances('g', 'note')},
	'restart_schedule(text)' => q{restart_schedule('yearly')},
	'import_grants(text)' => q{import_grants('SELECT ''once'', ''u1'', now()')},
	'gateway_refresh(text,numeric,text)' => q{gateway_refresh('u1', 9)},
	'gateway_delta(text,numeric,text,text)' => q{gateway_delta('u1', 9, 'reason')},
	'set_credential(text,text)' => q{set_credential('g', 'other')},
	'start_workers()' => q{start_workers()},
	'stop_workers()' => q{stop_workers()},
	'wake_workers()' => q{wake_workers()},
	'set_user_source(regclass)' => q{set_user_source('quota_manager.user_info')},
	'create_access_time_index()' => q{create_access_time_index()},
	'grant_access(regrole,text)' => q{grant_access('quota_worker', 'admin')},
	'bulk_delta(text,text,text,bigint,bigint,bigint,bigint,bigint)' => undef,
	'retain(interval,text,integer,bigint,bigint,bigint,timestamp with time zone)' => undef,
	'deliver(bigint,bigint,bigint,bigint)' => undef,
	'tick(bigint,bigint)' => undef);
# Where nothing is given that they could do, this is said all the same, and not what is wrong with it.
my @nothing = (
	q{resolve(0, true)}, q{resolve(NULL::bigint, NULL)}, q{resolve(ARRAY[]::bigint[], true)}, q{retry(0)}, q{cancel(NULL::bigint[])},
	q{reinstate(0)}, q{correct(NULL::bigint, NULL)}, q{reverse_run(0, 'note')}, q{reverse_strategy('none', NULL)}, q{reverse_grants(NULL, NULL)},
	q{undo_reversal(NULL, NULL)}, q{resolve_bulk('none', NULL, true)}, q{correct_bulk(NULL, NULL, NULL)}, q{pause_gateway('none')}, q{unpause_strategy(NULL)},
	q{restart_schedule('none')}, q{release_balances('none', NULL)}, q{import_grants(NULL)}, q{scan('none')},
	q{gateway_delta(NULL, NULL, NULL)}, q{gateway_refresh('u1', 9, 'none')});
# Nothing but POST, PATCH, PUT and DELETE changes anything: a query is a GET at the gateway, too.
my %reader = (
	'gateway_query(text,text)' => q{quota_manager.gateway_query('u1')},
	'audit_balances(text)' => q{count(*) FROM quota_manager.audit_balances()},
	'undecided(integer)' => q{count(*) FROM quota_manager.undecided((SELECT id FROM quota_manager.quota_strategy WHERE name = 'low'))},
	'schedule_now()' => q{quota_manager.schedule_now()});
# The same through the API.
my %api = (
	'scan(text)' => q{scan()},
	'resolve(bigint[],boolean,text)' => "resolve(ARRAY[$one], true)",
	'retry(bigint[],text)' => "retry(ARRAY[$one])",
	'cancel(bigint[],text)' => q{cancel(NULL)},
	'reinstate(bigint[],text)' => "reinstate(ARRAY[$one])",
	'correct(bigint[],boolean,text)' => "correct(ARRAY[$one], true)",
	'reverse_run(bigint,text)' => q{reverse_run(1, 'note')},
	'reverse_strategy(text,text,timestamp with time zone,integer)' => q{reverse_strategy('once', 'note')},
	'reverse_grants(bigint[],text)' => "reverse_grants(ARRAY[$one], 'note')",
	'undo_reversal(bigint,text)' => q{undo_reversal(0, NULL)},
	'enable(integer[])' => q{enable(ARRAY[1])},
	'disable(integer[])' => q{disable(ARRAY[0])},
	'archive(integer[])' => q{archive(NULL)},
	'gateway_query(text,text)' => undef,
	'gateway_refresh(text,numeric,text)' => q{gateway_refresh('u1', 9)},
	'resolve_bulk(text,text[],boolean,text)' => q{resolve_bulk('key', NULL, true)},
	'correct_bulk(text,text[],boolean,text)' => q{correct_bulk('key', NULL, NULL)},
	'gateway_delta(text,numeric,text,text)' => q{gateway_delta('u1', 9, 'reason')},
	'pause()' => q{pause()},
	'pause_all(text)' => q{pause_all('note')},
	'unpause_all(text)' => q{unpause_all('note')},
	'pause_gateway(text,text)' => q{pause_gateway('g', 'note')},
	'unpause_gateway(text,text)' => q{unpause_gateway('g', 'note')},
	'pause_strategy(text,text)' => q{pause_strategy('yearly', 'note')},
	'unpause_strategy(text,text)' => q{unpause_strategy('yearly', 'note')},
	'release_balances(text,text)' => q{release_balances('g', 'note')},
	'resume(text)' => q{resume()});
# These are functions of pg_cron at work, which is not here.
my %elsewhere = map { $_ => 1 } ('schedule_jobs(name,regrole)', 'unschedule_jobs(name)');

# A hash of every table of ours, the rights on them and the processes that serve the database.
sub fingerprint
{
	return $node->safe_psql('postgres', q{
		SELECT string_agg(c.oid::regclass || ' ' || coalesce(c.relacl::text, '') || md5(query_to_xml(format('SELECT t, t.xmin FROM %s t ORDER BY t::text', c.oid::regclass), false, true, '')::text), E'\n' ORDER BY c.oid)
			FROM pg_class c WHERE c.relnamespace IN ('quota_manager'::regnamespace, 'quota_internal'::regnamespace) AND c.relkind = 'r';
		SELECT kind, pid FROM quota_manager.worker_status ORDER BY 1;
		SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid IN (SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend');
		SELECT count(*) FROM pg_class}) . "\n" . join ' ', map { "$_->{user} $_->{amount}" } $mock->applied;
}

sub ask
{
	my ($sql) = @_;

	return $node->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ], on_error_stop => 0);
}

my $before = fingerprint();
is($node->safe_psql('postgres', q{
	SELECT string_agg(f, ', ' ORDER BY f) FROM (SELECT replace(p.oid::regprocedure::text, 'quota_manager.', '') AS f FROM pg_proc p
		WHERE p.pronamespace = 'quota_manager'::regnamespace AND p.provolatile = 'v' AND p.prorettype <> 'trigger'::regtype) x}),
	join(', ', sort { $a cmp $b } keys %call, keys %reader, keys %elsewhere), 'each function that may write is known here');

is($node->safe_psql('postgres', q{
	SELECT string_agg(f, ', ' ORDER BY f) FROM (SELECT replace(p.oid::regprocedure::text, 'quota_api.', '') AS f FROM pg_proc p
		WHERE p.pronamespace = 'quota_api'::regnamespace AND p.provolatile = 'v') x}),
	join(', ', sort keys %api), 'and each of the API');

foreach my $how ('BEGIN READ ONLY', 'SET default_transaction_read_only = on', q{BEGIN; SELECT set_config('transaction_read_only', 'on', true)})
{
	foreach my $call ((map { $call{$_} ? "quota_manager.$call{$_}" : () } sort keys %call), (map { "quota_manager.$_" } @nothing), map { $api{$_} ? "quota_api.$api{$_}" : () } sort keys %api)
	{
		my ($status, $out, $err) = ask("$how; SELECT $call; COMMIT");

		like($err, qr/ERROR:  25006: /, "$how: $call");
	}
}
foreach my $procedure ('deliver()', 'tick()', q{retain('90 days')}, q{bulk_delta('SELECT ''u1'', 9, ''reason''', 'key')})
{
	my ($status, $out, $err) = ask("SET default_transaction_read_only = on; CALL quota_manager.$procedure");

	like($err, qr/ERROR:  25006: /, $procedure);
}
is(fingerprint(), $before, 'nothing has changed: tables, rights, workers, locks, quotas at the gateway');

foreach my $reader (map { $reader{$_} } sort keys %reader)
{
	my ($status, $out, $err) = ask("SET client_min_messages = warning; BEGIN READ ONLY; SELECT $reader; COMMIT");

	is($err, '', "answers: $reader");
}
is(fingerprint(), $before, 'and has changed nothing');

subtest 'whoever may not write does not have workers of another database step aside, either' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE served');
	$node->safe_psql('served', q{CREATE EXTENSION quota_manager; SELECT quota_manager.grant_access('quota_worker', 'worker')});
	my @workers = map { QuotaTest::Workers::await_worker($node, 'served', $_) } qw(scheduler courier);
	foreach my $command ('DROP DATABASE served', 'DROP DATABASE served WITH (FORCE)', 'ALTER DATABASE served RENAME TO other', 'CREATE DATABASE copy TEMPLATE served')
	{
		my ($status, $out, $err) = ask("SET default_transaction_read_only = on; $command");

		like($err, qr/ERROR:  25006: /, $command);
	}
	is(join(' ', map { QuotaTest::Workers::worker($node, 'served', $_) } qw(scheduler courier)), join(' ', @workers), 'its workers go on');
};

my $standby;
subtest 'a standby: what only reads works there, and so does the view of the workers, who are not there' => sub {
	$node->backup('backup');
	$standby = PostgreSQL::Test::Cluster->new('read_only_standby');
	$standby->init_from_backup($node, 'backup', has_streaming => 1);
	$standby->start;
	foreach my $call ((map { $call{$_} // () } sort keys %call), @nothing)
	{
		my ($status, $out, $err) = $standby->psql('postgres', "SELECT quota_manager.$call", extra_params => [ '-v', 'VERBOSITY=verbose' ]);

		like($err, qr/ERROR:  25006: /, "a standby: $call");
	}
	is($standby->safe_psql('postgres', 'SELECT string_agg(state, $$, $$) FROM quota_manager.worker_status'), 'not running, not running, not running', 'a standby: worker_status');
	is($standby->safe_psql('postgres', q{SELECT quota_manager.gateway_query('u2')}), 3, 'a standby: a query');
	$standby->stop;
	is(fingerprint(), $before, 'nothing has changed');
};

$node->stop;
done_testing();
