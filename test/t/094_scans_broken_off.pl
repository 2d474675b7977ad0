# A scan that lasts can be stopped: a strategy that is put out of use does not wait for the scheduler's scan of it, other
# edits say whom they wait for, and stop_workers() ends a scheduler in the middle of one, and one that reads balances.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time);

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('broken_off', preload => 1);

QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', 3);

# A condition that lasts for as long as a session has the lock 42.
$node->safe_psql('postgres', q{
	CREATE FUNCTION quota_condition.held(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
	AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(42); RETURN true; END';
	GRANT EXECUTE ON FUNCTION quota_condition.held TO quota_worker});
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(42)');

my $by_scheduler = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'quota_manager scheduler'};

# Waits until the scheduler, or the process named, is in the middle of a scan; returns its pid.
sub await_scan
{
	my ($pid) = @_;

	$pid //= "($by_scheduler)";
	QuotaTest::Workers::await($node, 'postgres', qq{SELECT count(*) > 0 FROM pg_locks
		WHERE locktype = 'advisory' AND objid = 42 AND NOT granted AND pid = $pid});
	return $node->safe_psql('postgres', qq{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted AND pid = $pid});
}

# Runs a statement that is to end soon although the scan does not; returns what it says.
sub soon
{
	my ($name, $statement) = @_;
	my $since = time;
	my ($status, $out, $err) = $node->psql('postgres', "SET statement_timeout = '60s'; $statement");

	is($status, 0, "$name: it succeeds") or diag $err;
	note sprintf '%s: %.3f s', $name, time - $since;
	return $err;
}

sub strategy_is_idle
{
	my ($name) = @_;

	is($node->safe_psql('postgres', qq{SELECT count(*) FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
			WHERE s.name = '$name'}), 0, "$name: nothing was granted");
	return;
}

subtest 'put out of use, in each way' => sub {
	my %way = (
		disabled => 'UPDATE quota_manager.quota_strategy SET enabled = false WHERE name =',
		archived => 'UPDATE quota_manager.quota_strategy SET archived = true WHERE name =',
		deleted => 'DELETE FROM quota_manager.quota_strategy WHERE name =');
	foreach my $way (sort keys %way)
	{
		QuotaTest::Workers::strategy($node, 'postgres', name => $way, condition => 'held()');
		my $scheduler = await_scan();
		unlike(soon($way, "$way{$way} '$way'"), qr/waiting/, "$way: it does not wait");
		QuotaTest::Workers::strategy($node, 'postgres', name => "beside $way");
		QuotaTest::Workers::await_grants($node, 'postgres', "beside $way", 3);
		pass("$way: other strategies are run");
		is(QuotaTest::Workers::worker($node, 'postgres', 'scheduler'), $scheduler, "$way: by the same scheduler");
		strategy_is_idle($way);
	}
};

my ($scheduler, $status, $out, $err);
subtest 'edits that leave it in use wait, and say for whom' => sub {
	QuotaTest::Workers::strategy($node, 'postgres', name => 'edited', condition => 'held()');
	$scheduler = await_scan();
	($status, $out, $err) = $node->psql('postgres', q{SET statement_timeout = '2s'; UPDATE quota_manager.quota_strategy SET amount = 7 WHERE name = 'edited'});
	like($err, qr/NOTICE:  waiting for a scan of strategy "edited" to end\nDETAIL:  Process $scheduler has locked it, as role "quota_worker"\./,
		'an edit says whom it waits for');
	like($err, qr/canceling statement due to statement timeout/, 'and waits');
	soon('the scan is broken off', q{UPDATE quota_manager.quota_strategy SET enabled = false WHERE name = 'edited'});
};

my ($session, $pid);
subtest q{a session's scan is its own} => sub {
	$node->safe_psql('postgres', 'SELECT quota_manager.stop_workers()');
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_strategy SET enabled = true WHERE name = 'edited'});
	$session = $node->background_psql('postgres', on_error_stop => 0);
	$pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_safe('SET ROLE quota_worker');
	$session->query_until(qr/^$/, "SELECT granted FROM quota_manager.scan('edited');\n");
	await_scan($pid);
	($status, $out, $err) = $node->psql('postgres', q{SET statement_timeout = '2s'; UPDATE quota_manager.quota_strategy SET enabled = false WHERE name = 'edited'});
	like($err, qr/DETAIL:  Process $pid has locked it.*\nHINT:  SELECT pg_cancel_backend\($pid\) breaks it off/, 'who disables a strategy that a session scans is told');
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	soon('and can break it off', q{UPDATE quota_manager.quota_strategy SET enabled = false WHERE name = 'edited'});
};
$session->quit;

my $since;
subtest 'stop_workers() in the middle of a scan' => sub {
	$node->safe_psql('postgres', 'SELECT quota_manager.start_workers()');
	QuotaTest::Workers::strategy($node, 'postgres', name => 'stopped', condition => 'held()');
	$scheduler = await_scan();
	$since = time;
	$node->safe_psql('postgres', 'SELECT quota_manager.stop_workers()');
	cmp_ok(QuotaTest::Workers::seconds_to_end($scheduler, $since), '<', 10, 'stop_workers() ends a scheduler that scans');
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'quota_manager courier'});
	strategy_is_idle('stopped');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name = 'stopped'}),
		0, 'what was broken off has not failed');
	$holder->query_safe('SELECT pg_advisory_unlock(42)');
	$node->safe_psql('postgres', 'SELECT quota_manager.start_workers()');
	QuotaTest::Workers::await_grants($node, 'postgres', 'stopped', 3);
	pass('and is run when workers are started again');
};

subtest 'who edits a strategy and does not commit keeps no other waiting' => sub {
	$node->safe_psql('postgres', 'SELECT quota_manager.stop_workers()');
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'quota_manager scheduler'});
	QuotaTest::Workers::strategy($node, 'postgres', name => 'open');
	$holder->query_safe(q{BEGIN; UPDATE quota_manager.quota_strategy SET title = 'x' WHERE name = 'open'});
	$node->safe_psql('postgres', 'SELECT quota_manager.start_workers()');
	QuotaTest::Workers::strategy($node, 'postgres', name => 'beside open');
	QuotaTest::Workers::await_grants($node, 'postgres', 'beside open', 3);
	strategy_is_idle('open');
	$holder->query_safe('COMMIT');
	QuotaTest::Workers::await_grants($node, 'postgres', 'open', 3);
	pass('and it is run when that is over');
};

# stop_workers() while balances are read, from a gateway that accepts connections and says nothing.
my $silent = IO::Socket::INET->new(Listen => 128, LocalAddr => '127.0.0.1') or die "cannot listen: $!";
$node->safe_psql('postgres', sprintf q{
	INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, request_timeout) VALUES ('silent', 'higress', 'http://127.0.0.1:%d', '10 min');
	INSERT INTO quota_manager.quota_model VALUES ('silent', 'silent')}, $silent->sockport);
QuotaTest::Workers::strategy($node, 'postgres', name => 'low', condition => 'quota-le("silent", 1)');
QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) > 0 FROM quota_manager.user_balance WHERE gateway = 'silent' AND token IS NOT NULL});
$scheduler = QuotaTest::Workers::worker($node, 'postgres', 'scheduler');
$since = time;
$node->safe_psql('postgres', 'SELECT quota_manager.stop_workers()');
cmp_ok(QuotaTest::Workers::seconds_to_end($scheduler, $since), '<', 10, 'stop_workers() ends a scheduler that reads balances');

$holder->quit;
$node->stop;
done_testing();
