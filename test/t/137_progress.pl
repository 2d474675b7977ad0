
# How far a scan and a delivery are, for others to see while they run, and nothing of them afterwards.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver begin_call end_call kill_call);
use QuotaTest::Mock;
use QuotaTest::Wait qw(becomes_true);
use Test::More;

use constant USERS => 5000;

my $node = delivery_node('progress', "shared_preload_libraries = 'quota_manager'\nrestart_after_crash = on\n");
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'key');
my $scan_rows = q{SELECT count(*) FROM quota_manager.stat_progress_scan};
my $delivery_rows = q{SELECT count(*) FROM quota_manager.stat_progress_deliver};

sub sql { return $node->safe_psql('postgres', $_[0]); }

add_gateway($node, 'g', $mock, is_default => 'true');
sql('INSERT INTO quota_manager.user_info (id, vip) SELECT \'user\' || n, n % 10 FROM generate_series(1, ' . USERS . q{) n;
	ANALYZE quota_manager.user_info;
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('all', 'single', 1, 'm', 'true()'), ('some', 'single', 1, 'm', 'is-vip(5)');
	CREATE ROLE colleague LOGIN; SELECT quota_manager.grant_access('colleague', 'viewer');
	CREATE ROLE monitor LOGIN IN ROLE pg_monitor});
is(sql("$scan_rows UNION ALL $delivery_rows"), "0\n0", 'nothing runs');

my ($holder, $scan);
subtest q{a trigger of a site's stops the scan while it writes} => sub {
	sql(q{CREATE TABLE quota_test.stop (); CREATE FUNCTION quota_test.wait_here() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF NEW.user_id = 'user4000' THEN
				PERFORM pg_advisory_xact_lock(7);
			END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER wait_here BEFORE INSERT ON quota_manager.quota_execute FOR EACH ROW EXECUTE FUNCTION quota_test.wait_here()});
	$holder = $node->background_psql('postgres');
	$holder->query('SELECT pg_advisory_lock(7)');
	$scan = begin_call($node, "SET application_name = 'victim'", 'SELECT count(*) FROM quota_manager.scan()');
	ok(becomes_true($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'victim' AND wait_event_type = 'Lock'}), 'a scan is stopped while it writes');
	my $row = q{SELECT p.datname, p.phase, p.runs_total, p.runs_done, s.name, p.users_total, p.users_done BETWEEN 0 AND 5000, p.grants_written >= 0,
		p.started BETWEEN a.query_start - interval '1 s' AND clock_timestamp()
		FROM quota_manager.stat_progress_scan p JOIN pg_stat_activity a ON a.pid = p.pid LEFT JOIN quota_manager.quota_strategy s ON s.id = p.strategy_id};
	is(sql($row), 'postgres|writing grants|2|0|all|' . USERS . '|t|t|t', 'and the view tells where');
	my $visible = q{SELECT pid IS NOT NULL, datname, phase FROM quota_manager.stat_progress_scan};
	is(sql("SET SESSION AUTHORIZATION colleague; $visible"), 't|postgres|', 'another role sees that it runs');
	is(sql("SET SESSION AUTHORIZATION monitor; $visible"), 't|postgres|writing grants', 'who monitors sees all of it');
	$holder->query('SELECT pg_advisory_unlock(7)');
	is((end_call($scan))[0], "2\n", 'the scan goes on');
	is(sql($scan_rows), 0, 'and is no more to be seen');
};

my $session;
subtest 'errors leave nothing behind, in an open transaction either' => sub {
	sql(q{UPDATE quota_manager.quota_strategy SET archived = name <> 'again';
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('again', 'single', 1, 'm', 'true()')});
	$session = $node->background_psql('postgres', on_error_stop => 0);
	$session->query('BEGIN; SAVEPOINT s; SELECT count(*) FROM quota_manager.scan()');
	is(sql($scan_rows), 0, 'a scan is over before its transaction is');
	$session->query('ROLLBACK TO s');
	$holder->query('SELECT pg_advisory_lock(7)');
	$session->query("SET LOCAL statement_timeout = '500ms'; SELECT count(*) FROM quota_manager.scan()");
	like($session->{stderr}, qr/canceling statement due to statement timeout/, 'a scan fails in a savepoint');
	is(sql($scan_rows), 0, 'and is over');
	$session->query('ROLLBACK');
	$scan = begin_call($node, "SET application_name = 'victim'", 'SELECT count(*) FROM quota_manager.scan()');
	ok(becomes_true($node, q{SELECT count(*) = 1 FROM quota_manager.stat_progress_scan WHERE phase = 'writing grants'}), 'a scan writes');
	sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'});
	end_call($scan);
	is(sql($scan_rows), 0, 'one that was cancelled is over');
	$scan = begin_call($node, "SET application_name = 'victim'", 'SELECT count(*) FROM quota_manager.scan()');
	ok(becomes_true($node, q{SELECT count(*) = 1 FROM quota_manager.stat_progress_scan WHERE phase = 'writing grants'}), 'another one writes');
	sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'});
	end_call($scan);
	ok(becomes_true($node, q{SELECT count(*) = 0 FROM quota_manager.stat_progress_scan}), 'one whose session was ended is over');
	$scan = begin_call($node, "SET application_name = 'victim'", 'SELECT count(*) FROM quota_manager.scan()');
	ok(becomes_true($node, q{SELECT count(*) = 1 FROM quota_manager.stat_progress_scan WHERE phase = 'writing grants'}), 'and another one');
	kill_call($node, $scan, 'victim');
	is(sql($scan_rows), 0, 'one whose process was killed is over');
	sql('DROP TRIGGER wait_here ON quota_manager.quota_execute');
};

my $call;
subtest 'a delivery' => sub {
	$mock->fault(kind => 'hang', match => 'delta', count => 100);
	$call = begin_call($node, "SET application_name = 'victim'", 'CALL quota_manager.deliver()');
	ok(becomes_true($node, q{SELECT count(*) = 1 FROM quota_manager.stat_progress_deliver WHERE grants_in_flight > 0}), 'a delivery has grants in flight');
	is(sql(q{SELECT datname, phase IN ('looking for work', 'delivering'), gateways_total, gateways_served, gateways_open, grants_completed, grants_failed, started < clock_timestamp()
		FROM quota_manager.stat_progress_deliver}), 'postgres|t|1|1|1|0|0|t', 'and the view tells of it');
	is(sql('SET SESSION AUTHORIZATION colleague; SELECT datname, phase FROM quota_manager.stat_progress_deliver'), 'postgres|', 'to others less');
	sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'});
	end_call($call);
	is(sql($delivery_rows), 0, 'one that was cancelled is over');
	$mock->clear_faults;
	deliver($node);
	is(sql($delivery_rows), 0, 'one that is done is over');
};

$node->stop;
done_testing();
