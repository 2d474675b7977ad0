# A grant that is due at a gateway that works is claimed within the bound that docs/delivery.md states: also where somebody
# has locked its table when the sender begins, and where an operator decides about a grant that is being proven.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery
  qw(delivery_node start_workers add_gateway grant statuses delivered_once begin_call end_call begin_session ask_session end_session log_part);
use QuotaTest::Mock;
use QuotaTest::Wait qw(becomes_true);
use Test::More;
use Time::HiRes qw(time);

# What is promised, and what a busy machine may add.
my $bound = 10;
my $slack = 5;

my $node = delivery_node('due_is_claimed', <<'CONF');
shared_preload_libraries = 'quota_manager'
quota_manager.linger = 60s
CONF
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'key');
my $zgsm = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key');

add_gateway($node, 'g', $mock, max_connections => 4);
add_gateway($node, 'z', $zgsm, max_connections => 4, doubt_policy => 'reconcile', sole_writer => 'true', max_usage_rate => 0);

sub empty_tables
{
	$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run');
	$_->reset foreach $mock, $zgsm;
	return;
}

# Readers are not kept by this lock, nor does it have a transaction id, whose end would be seen: the first look of a
# sender succeeds, and its first claim fails.
{
	my $log = -s $node->logfile;

	grant($node, 'g', 1, map { "user$_" } 1 .. 20);
	my $session = begin_session($node);
	ask_session($session, 'BEGIN; LOCK TABLE quota_manager.quota_execute IN SHARE MODE');
	my $call = begin_call($node, 'CALL quota_manager.deliver()');
	$node->wait_for_log(qr/deliveries wait for another session/, $log);
	ask_session($session, 'COMMIT');
	end_session($session);
	is((end_call($call))[0], "20|0|0|0\n", 'a call that meets a lock at its first claim waits for it');
	delivered_once($node, 'g', $mock, 'first claim');
}

subtest 'the same of a worker, in a cluster in which nothing else is written' => sub {
	{
		my $log = -s $node->logfile;

		empty_tables();
		grant($node, 'g', 1, map { "user$_" } 1 .. 20);
		my $session = begin_session($node);
		ask_session($session, 'BEGIN; LOCK TABLE quota_manager.quota_execute IN SHARE MODE');
		start_workers($node);
		$node->wait_for_log(qr/deliveries wait for another session/, $log);
		ask_session($session, 'COMMIT');
		end_session($session);
		my $begin = time;
		ok(becomes_true($node, q{SELECT count(*) = 20 FROM quota_manager.quota_execute WHERE status = 'completed'}), 'a worker waits for it, too');
		cmp_ok(time - $begin, '<', $bound + $slack, 'and goes on soon');
	}
};

subtest 'an operator knows better than a reading that is yet to come: a user whose grant was resolved is waited for no more' => sub {
	foreach my $applied ('false', 'true')
	{
		empty_tables();
		$zgsm->fault(kind => 'close', match => 'grant');
		grant($node, 'z', 5, 'user');
		ok(becomes_true($node, q{SELECT last_error LIKE 'not reconciled yet%' FROM quota_manager.quota_execute}), 'it is in doubt, and will be so for long');
		grant($node, 'z', 7, 'user');
		my $begin = time;
		$node->safe_psql('postgres', qq{SELECT quota_manager.resolve(id, $applied) FROM quota_manager.quota_execute WHERE amount = 5});
		ok(becomes_true($node, q{SELECT count(*) = 2 FROM quota_manager.quota_execute WHERE status = 'completed'}), "resolved as $applied: all comes to an end");
		cmp_ok(time - $begin, '<', $bound + $slack, 'within the bound');
		is($zgsm->balance('user'), $applied eq 'true' ? 7 : 12, 'and each is applied once');
	}
};

$mock->stop;
$zgsm->stop;
$node->stop;
done_testing();
