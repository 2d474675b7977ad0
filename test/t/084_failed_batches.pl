# A batch of a sender that fails, because somebody has locked a table, leaves nothing behind that the next one would take
# for its own; and whatever happened, a due grant is found.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery
  qw(delivery_node start_workers add_gateway grant statuses delivered_once begin_call end_call begin_session ask_session end_session log_part);
use QuotaTest::Mock;
use QuotaTest::Wait qw(becomes_true happens);
use Test::More;
use Time::HiRes qw(usleep);

my $node = delivery_node('failed_batches', "shared_preload_libraries = 'quota_manager'\n");
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'key');

add_gateway($node, 'g', $mock, max_connections => 4);

subtest 'a sender in the middle of its work meets a lock for longer than it waits, at each of its tables' => sub {
	foreach my $case (
		[ 'quota_execute', 'SHARE' ],
		[ 'quota_execute', 'ACCESS EXCLUSIVE' ],
		[ 'quota_run', 'ACCESS EXCLUSIVE' ],
		[ 'quota_gateway', 'ACCESS EXCLUSIVE' ],
		[ 'user_balance', 'ACCESS EXCLUSIVE' ])
	{
		my ($table, $mode) = @$case;
		my $log = -s $node->logfile;

		$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run');
		$mock->reset;
		$mock->fault(kind => 'slow', match => 'delta', delay_ms => 100, count => 0);
		grant($node, 'g', 1, map { "user$_" } 1 .. 60);
		my $call = begin_call($node, 'CALL quota_manager.deliver()');
		ok(becomes_true($node, q{SELECT count(*) >= 4 FROM quota_manager.quota_execute WHERE status = 'completed'}), "$table: it is sending");
		my $session = begin_session($node);
		ask_session($session, "BEGIN; LOCK TABLE quota_manager.$table IN $mode MODE");
		$node->wait_for_log(qr/deliveries wait for another session/, $log);
		my $applied = () = $mock->applied;
		# what it had claimed is answered meanwhile, and must be settled by a batch that claims nothing
		ok(becomes_quiet($mock), "$table: what was in flight is answered");
		ask_session($session, 'COMMIT');
		end_session($session);
		my ($out, $err) = end_call($call);
		is($out, "60|0|0|0\n", "$table locked in $mode mode: all is delivered");
		is($err, '', 'without a word');
		delivered_once($node, 'g', $mock, $table);
		unlike(log_part($node, $log), qr/terminated by signal|you don't own a lock|their sender ended/, 'nothing is wrong in the log');
	}
};

subtest 'a batch that has just become the sender fails: the next one becomes it, and no message says that a sender has ended' => sub {
	{
		my $log = -s $node->logfile;

		$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run');
		$mock->reset;
		grant($node, 'g', 1, map { "user$_" } 1 .. 12);
		$node->safe_psql('postgres', q{UPDATE quota_manager.quota_execute SET status = 'processing', claim_number = 1});
		my $session = begin_session($node);
		ask_session($session, 'BEGIN; LOCK TABLE quota_manager.quota_execute IN SHARE MODE');
		my $call = begin_call($node, 'CALL quota_manager.deliver()');
		$node->wait_for_log(qr/deliveries wait for another session/, $log);
		ok(becomes_true($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ 'deliver' AND wait_event_type = 'Lock'}), 'it tries again');
		ask_session($session, 'COMMIT');
		end_session($session);
		my ($out, $err) = end_call($call);
		is($out, "0|0|12|0\n", 'what another sender left is in doubt once');
		is($err, '', 'and the client is not told of locks');
		my $messages = () = log_part($node, $log) =~ /their sender ended/g;
		is($messages, 1, 'the log tells it once');
		is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = x'716d6777'::int}), '0', 'no lock is left');
	}
};

# Many small runs under a rate, and a gateway that is in trouble for a moment after the worker has sent for longer than
# three seconds: what was claimed and goes back is found again, within the bound that is promised.
start_workers($node);
foreach my $trouble ([ 'refused connections', 'stop' ], [ 'a pause asked for', 'throttle' ])
{
	my ($what, $how) = @$trouble;

	$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run;
		UPDATE quota_manager.quota_gateway SET rate_limit = 24, max_connections = 16');
	$mock->reset;
	grant($node, 'g', 1, map { "user$_" } 1 .. 12) foreach 1 .. 20;
	ok(becomes_true($node, q{SELECT count(*) >= 110 FROM quota_manager.quota_execute WHERE status = 'completed'}), "$what: it has sent for a while");
	if ($how eq 'stop')
	{
		$mock->stop;
		ok(becomes_true($node, q{SELECT state = 'closed' FROM quota_manager.quota_gateway}), 'its gateway is closed');
		$mock->start_again;
	}
	else
	{
		$mock->fault(kind => 'status', status => 429, match => 'delta', count => 20);
		ok(becomes_true($node, q{SELECT state = 'closed' FROM quota_manager.quota_gateway}), 'its gateway is closed');
		$mock->clear_faults;
	}
	$node->safe_psql('postgres', 'UPDATE quota_manager.quota_gateway SET rate_limit = NULL');
	ok(becomes_true($node, q{SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE status IN ('pending', 'processing')}), "$what: nothing stays pending");
}

$mock->stop;
$node->stop;
done_testing();

# Waits until a mock has answered what it was sent; returns whether it has in time.
sub becomes_quiet
{
	my ($mock) = @_;
	my $before = -1;

	return happens(
		sub {
			my $now = () = $mock->applied;

			return 1 if $now == $before;
			$before = $now;
			usleep(300_000);
			return 0;
		});
}
