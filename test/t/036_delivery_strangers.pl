
# What other sessions do - locks on tables and rows, locks with the sender's
# numbers, a synchronous standby that is gone - neither stops deliveries for
# good nor makes them guess.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery
  qw(delivery_node add_gateway grant deliver statuses delivered_once begin_call end_call log_part);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until);
use Test::More;

my $node = delivery_node('strangers');
my $mock = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key');
add_gateway($node, 'g', $mock, request_timeout => '5 min');

# Ends the session of that name.
sub end_session
{
	my ($name) = @_;

	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '$name'");
	wait_until($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = '$name')");
	return;
}

# A session that does something and then holds its locks until it is ended.
sub holder
{
	my (@statements) = @_;
	my $session = begin_call($node, "SET application_name = 'holder'",
		join('; ', 'BEGIN', @statements, "SET LOCAL application_name = 'holding'", 'SELECT pg_advisory_lock(7)'));

	wait_until($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'holding')");
	return $session;
}
# Its own session holds what they wait for.
my $barrier = $node->background_psql('postgres');
$barrier->query_safe('SELECT pg_advisory_lock(7)');

# A role without any right takes the numbers that the sender's lock is made of.
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN');
grant($node, 'g', 1, 'lock1');
my $id = $node->safe_psql('postgres', "SELECT id FROM quota_manager.quota_gateway WHERE name = 'g'");
my $stranger = holder('SET ROLE stranger', "SELECT pg_advisory_lock(x'716d6777'::int, $id)");
is(deliver($node), '1|0|0|0', 'a stranger cannot take the lock of the sender');
end_session('holding');
end_call($stranger);

my $call;
subtest 'the answer comes while a table is locked: it is read, and settled when the lock is gone' => sub {
	# The gateway stands still until then.
	grant($node, 'g', 1, 'table1', 'table2');
	my $log = -s $node->logfile;
	kill STOP => $mock->{pid};
	$call = begin_call($node, 'CALL quota_manager.deliver()');
	wait_until($node, "SELECT count(*) = 2 FROM quota_manager.quota_execute WHERE status = 'processing'");
	my $locker = holder('LOCK TABLE quota_manager.quota_execute IN SHARE MODE');
	kill CONT => $mock->{pid};
	$node->wait_for_log(qr/deliveries wait for another session/, $log);
	like(log_part($node, $log), qr/LOG:  deliveries wait for another session: canceling statement due to lock timeout/,
		'a lock is waited for, and the log says so');
	is(scalar(() = log_part($node, $log) =~ /deliveries wait/g), 1, 'once');
	end_session('holding');
	end_call($locker);
	is((end_call($call))[0], "2|0|0|0\n", 'what was answered meanwhile is completed');
	delivered_once($node, 'g', $mock, 'a locked table');
};

subtest 'without the synchronous standby a claim is not known to be there after a failover: nothing is sent' => sub {
	$mock->reset;
	$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run');
	grant($node, 'g', 1, map { "sync$_" } 1 .. 3);
	$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nowhere'");
	$node->reload;
	wait_until($node, 'SHOW synchronous_standby_names', result => 'nowhere');
	foreach my $how ('pg_cancel_backend', 'pg_terminate_backend')
	{
		my $cut = begin_call($node, "SET application_name = 'cut'", 'CALL quota_manager.deliver()');

		wait_until($node, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'cut' AND wait_event = 'SyncRep')");
		$node->safe_psql('postgres', "SELECT $how(pid) FROM pg_stat_activity WHERE application_name = 'cut'");
		end_call($cut);
		is(scalar($mock->applied), 0, "$how: nothing was sent without the standby");
		is(statuses($node, 'g'), 'pending 3', "$how: all go back");
	}
	$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$node->reload;
	wait_until($node, 'SHOW synchronous_standby_names', result => '');
	is(deliver($node), '3|0|0|0', 'then they are sent');
	delivered_once($node, 'g', $mock, 'without a standby');
};

$barrier->quit;
$mock->stop;
$node->stop;
done_testing();
