
# The library with the SQL of 1.0.0, as it is in each database until ALTER EXTENSION UPDATE: everything works; and an
# update while workers run, which they do not notice but for what worker_status says.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run ();
use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;

my $notice = qr/^version 1\.0\.0 waits for ALTER EXTENSION quota_manager UPDATE to \d/;
my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('old_sql', preload => 1);
my $version = $node->safe_psql('postgres', q{SELECT default_version FROM pg_available_extensions WHERE name = 'quota_manager'});

QuotaTest::Workers::database($node, 'postgres', $gateway, version => '1.0.0');

# What the script of 1.0.0 names is in the library.
is( sql(q{
		SELECT string_agg(p.proname, ', ') FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'c',
			LATERAL fmgr_c_validator(p.oid) WHERE p.probin = '$libdir/quota_manager' AND p.prosrc IS NULL}),
	'', 'every function of 1.0.0 in C is in the library');

subtest 'workers scan and deliver, and say that an update is waiting' => sub {
	QuotaTest::Workers::users($node, 'postgres', 20);
	QuotaTest::Workers::strategy($node, 'postgres', name => 'all');
	QuotaTest::Workers::await_grants($node, 'postgres', 'all', 20);
	is(scalar $gateway->applied, 20, 'workers scan and deliver');
	foreach my $kind ('scheduler', 'courier')
	{
		QuotaTest::Workers::await($node, 'postgres',
			"SELECT state = 'idle' AND activity LIKE 'version 1.0.0 waits%' FROM quota_manager.worker_status WHERE kind = '$kind'");
		like(sql("SELECT activity FROM quota_manager.worker_status WHERE kind = '$kind'"), $notice, "worker_status of a $kind says that an update waits");
	}
	is( QuotaTest::Workers::log_count($node,
			qr/database "postgres" is at version 1.0.0 and is served by the library of version \Q$version\E\n.*HINT: .*ALTER EXTENSION quota_manager UPDATE/),
		1, 'so does the log, once');
};

subtest 'by hand' => sub {
	sql('SELECT quota_manager.stop_workers()');
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(pid) = 0 FROM quota_manager.worker_status WHERE kind <> 'launcher'});
	sql(q{CREATE ROLE operator; SELECT quota_manager.grant_access('operator', 'operator')});
	sql(q{INSERT INTO quota_manager.user_info (id, vip, github_star) SELECT 'later' || i, i, 'zgsm, x' FROM generate_series(1, 10) i});
	is(sql('SELECT granted FROM quota_manager.scan()'), 10, 'scan()');
	$gateway->fault('apply_close', user => "later$_", count => 3) foreach 1 .. 3;
	is(as_operator('CALL quota_manager.deliver()'), '7|0|3|0', 'deliver()');
	is( as_operator(q{SELECT quota_manager.resolve(id, true, 'it was') FROM quota_manager.quota_execute WHERE user_id = 'later1'; SELECT quota_manager.resolve(array_agg(id), false)
			FROM quota_manager.quota_execute WHERE user_id IN ('later2', 'later3');
		SELECT string_agg(status, ' ' ORDER BY user_id) FROM quota_manager.quota_execute WHERE user_id IN ('later1', 'later2', 'later3')}),
		"\n2\ncompleted pending pending", 'resolve()');
	sql(q{UPDATE quota_manager.quota_execute SET status = 'failed', last_error = 'as if refused' WHERE user_id = 'later3'});
	is(as_operator(q{SELECT quota_manager.cancel(id, 'no') FROM quota_manager.quota_execute WHERE user_id = 'later2';
		SELECT quota_manager.retry(id) FROM quota_manager.quota_execute WHERE user_id = 'later3'}), "\n", 'cancel() and retry()');
	$gateway->mend;
	is(as_operator('CALL quota_manager.deliver()'), '1|0|0|0', 'what is tried again is delivered');
	sql(q{INSERT INTO quota_manager.user_info (id) VALUES ('poor')});
	QuotaTest::Workers::strategy($node, 'postgres', name => 'low', condition => 'quota-le("m", 3)', amount => 100);
	is(as_operator('CALL quota_manager.tick()'), '1|1', 'tick() reads balances');
	is(as_operator(q{SELECT quota_manager.gateway_query('user1')}), 5, 'gateway_query()');
	is(as_operator(q{SELECT quota_manager.gateway_delta('user1', 2, 'a gift')}), 'applied', 'gateway_delta()');
	is(as_operator(q{SELECT quota_manager.gateway_refresh('user2', 50)}), 'applied', 'gateway_refresh()');
	is(as_operator(q{SELECT imported FROM quota_manager.import_grants($$VALUES ('low', 'user3', now())$$)}), 1, 'import_grants()');
	is(sql(q{SET search_path = quota_manager; SELECT count(*) FROM subject s WHERE s @@ 'github-star("zgsm") and is-vip(5)'}), 6, 'conditions');
	is(sql(q{SELECT quota_manager.describe('30 8 * * 1'), quota_manager.next_firing('30 8 * * 1', '2025-01-01 UTC', 'UTC')}),
		'at 08:30 on Monday|2025-01-06 08:30:00+00', 'schedules');
	sql(q{SELECT * FROM quota_manager.strategy_due; SELECT * FROM quota_manager.upcoming(); SELECT * FROM quota_manager.delivery_status;
		SELECT * FROM quota_manager.known_balance; SELECT * FROM quota_manager.worker_status; SELECT * FROM quota_manager.resume();
		SELECT quota_manager.create_access_time_index(); SELECT * FROM quota_manager.undecided(1); SELECT quota_manager.set_credential('k', 's')});
	sql(q{CREATE VIEW public.people AS SELECT * FROM quota_manager.user_info; SELECT * FROM quota_manager.set_user_source('public.people');
		SELECT * FROM quota_manager.set_user_source()});
	sql(q{UPDATE quota_manager.quota_gateway SET sole_writer = true; SELECT * FROM quota_manager.audit_balances('gateway')});
	sql('CALL quota_manager.deliver()');
};

my $dump;
subtest 'a dump of it goes into the version that there is now' => sub {
	$dump = $node->backup_dir;
	mkdir $dump;
	command_ok([ 'pg_dump', '--file', "$dump/old.sql", $node->connstr('postgres') ], 'pg_dump');
	$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
	command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dump/old.sql", $node->connstr('restored') ], 'it is restored');
	is( $node->safe_psql('restored', q{
			SELECT (SELECT extversion FROM pg_extension WHERE extname = 'quota_manager'), (SELECT count(*) FROM quota_manager.quota_execute)}),
		"$version|" . sql('SELECT count(*) FROM quota_manager.quota_execute'), 'into the newest version');
	$node->safe_psql('postgres', 'DROP DATABASE restored');
};

my $load;
subtest 'an update while workers scan and deliver, of users who keep coming.  Some requests are being answered all the time' => sub {
	sql(q{UPDATE quota_manager.quota_strategy SET enabled = false WHERE name = 'low'; SELECT quota_manager.start_workers()});
	my @workers = map { QuotaTest::Workers::await_worker($node, 'postgres', $_) } 'scheduler', 'courier';
	QuotaTest::Workers::set($node, 'quota_manager.scan_interval', '1s');
	$gateway->fault('slow', delay_ms => 50, match => 'delta');
	append_to_file("$dump/load.sql", "\\set n :n + 1\nINSERT INTO quota_manager.user_info (id) SELECT 'new' || :n || '_' || i FROM generate_series(1, 10) i;\n");
	my $error = '';
	# At most a hundred a second, so that they are not all there before the update begins.
	$load = IPC::Run::start(
		[ 'pgbench', '--no-vacuum', '--transactions=200', '--rate=100', '--define=n=0', '--file', "$dump/load.sql", $node->connstr('postgres') ],
		'>', '/dev/null', '2>', \$error);

	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) > 100 FROM quota_manager.quota_execute WHERE user_id LIKE 'new%' AND status = 'completed'});
	is(sql('ALTER EXTENSION quota_manager UPDATE; SELECT extversion FROM pg_extension WHERE extname = $$quota_manager$$'), $version, 'an update while workers run');
	ok(sql(q{SELECT count(*) < 2000 FROM quota_manager.quota_execute WHERE user_id LIKE 'new%' AND status = 'completed'}) eq 't', 'in the middle of it');
	IPC::Run::finish($load);
	is($error, '', 'who writes users meets no error');
	$gateway->mend;
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 2000 FROM quota_manager.quota_execute WHERE user_id LIKE 'new%' AND status = 'completed'});
	my %times;
	$times{ $_->{user} }++ foreach grep { $_->{user} =~ /^new/ } $gateway->applied;
	is(scalar keys %times, 2000, 'every user has got it');
	is(scalar(grep { $_ != 1 } values %times), 0, 'nobody twice');
	is_deeply([ map { QuotaTest::Workers::worker($node, 'postgres', $_) } 'scheduler', 'courier' ], \@workers, 'the workers are the same processes');
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 0 FROM quota_manager.worker_status WHERE activity LIKE 'version %'});
	pass('the notice is gone');
	is(sql('SELECT count(*) FROM quota_manager.worker_status WHERE last_error IS NOT NULL'), 0, 'nothing went wrong');
};

$node->stop;
done_testing();

sub sql
{
	my ($query) = @_;

	return $node->safe_psql('postgres', $query);
}

sub as_operator
{
	my ($query) = @_;

	return $node->safe_psql('postgres', "SET ROLE operator; $query");
}
