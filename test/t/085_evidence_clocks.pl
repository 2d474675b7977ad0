# Policy reconcile while the wall clock is set: what a late request may still do, and what chats may have used, is counted
# by the time that passes and not by what the clock shows.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Clock;
use QuotaTest::Delivery qw(delivery_node start_workers add_gateway grant deliver statuses delivered_once);
use QuotaTest::Mock;
use QuotaTest::Wait qw(becomes_true happens);
use Test::More;

my $hour = 3600;
my $clock = QuotaTest::Clock->new('2027-03-01 12:00:00');
my $node;

$clock->with(sub {
	$node = delivery_node('evidence_clocks', <<'CONF');
shared_preload_libraries = 'quota_manager'
quota_manager.retry_base = 1ms
quota_manager.retry_max = 2ms
quota_manager.linger = 4s
quota_manager.workers = off
CONF
});
my $zgsm = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key');
my $higress = QuotaTest::Mock->start(dialect => 'higress', key => 'key');
my %reconcile = (doubt_policy => 'reconcile', sole_writer => 'true');

add_gateway($node, 'late', $zgsm, %reconcile, request_timeout => '300 ms');
add_gateway($node, 'used', $higress, %reconcile, max_usage_rate => 20);

sub in_doubt
{
	my ($gateway) = @_;

	return qq{SELECT count(*) > 0 FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = 'in_doubt'};
}

sub settled
{
	my ($gateway) = @_;

	return qq{SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND (status IN ('pending', 'processing')
		OR status = 'in_doubt' AND next_attempt_time < 'infinity')};
}

# Calls deliver() until nothing more is to be done by itself; false if that does not end.
sub deliver_until_settled
{
	my ($gateway) = @_;

	return happens(
		sub {
			return 1 if $node->safe_psql('postgres', settled($gateway)) eq 't';
			deliver($node);
			return 0;
		});
}

subtest 'a request that arrives late, and a clock that is set ahead meanwhile: a balance that has not moved proves nothing yet' => sub {
	# By calls, each of which begins with what is in the tables, and by the worker.
	foreach my $by ('calls', 'worker')
	{
		$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run');
		$zgsm->reset;
		# it leaves after 300 ms, and the change is applied two seconds later
		$zgsm->fault(kind => 'apply_late', match => 'grant', delay_ms => 2000);
		if ($by eq 'worker')
		{
			$node->safe_psql('postgres', 'ALTER SYSTEM SET quota_manager.workers = on');
			start_workers($node);
		}
		grant($node, 'late', 7, 'user');
		deliver($node) if $by eq 'calls';
		ok(becomes_true($node, in_doubt('late')), "$by: the answer is lost");
		$clock->advance($hour);
		ok(deliver_until_settled('late'), 'the calls come to an end') if $by eq 'calls';
		ok(becomes_true($node, settled('late')), "$by: it is proven in the end");
		is(statuses($node, 'late'), 'completed 1', "$by: as applied");
		is($zgsm->balance('user'), 7, "$by: once");
		like($node->safe_psql('postgres', 'SELECT last_error FROM quota_manager.quota_execute'), qr/^reconciled as applied/, "$by: by the balance");
		$clock->advance(-$hour);
	}
	$node->safe_psql('postgres', 'ALTER SYSTEM SET quota_manager.workers = off');
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	ok(becomes_true($node, q{SELECT count(pid) = 0 FROM quota_manager.worker_status WHERE kind <> 'launcher'}), 'the workers have ended');
};

# A grant that was applied, chats that have used more than it since, within what they may, and a clock that is set back: the
# balance is lower than before, and still proves nothing.
foreach my $step (-$hour, -10 * 365 * 24 * $hour)
{
	$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run');
	$higress->reset;
	$higress->set_balance('user', quota => 100);
	$higress->fault(kind => 'apply_close', match => 'grant');
	grant($node, 'used', 10, 'user');
	deliver($node);
	is(statuses($node, 'used'), 'in_doubt 1', "$step s: the answer is lost");
	# 25 of the 80 that four seconds allow
	$higress->set_balance('user', quota => 85);
	$clock->advance($step);
	ok(deliver_until_settled('used'), "$step s: the calls come to an end");
	is(statuses($node, 'used'), 'in_doubt 1', "$step s: an operator decides");
	is($higress->balance('user'), 85, "$step s: it is not sent again");
	$clock->advance(-$step);
}

# A balance that was read while the clock was ahead, and a policy that was another one in between: what somebody else has
# added meanwhile is not taken for the grant.
$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run');
$zgsm->reset;
$clock->advance($hour);
$zgsm->fault(kind => 'close', match => 'grant');
grant($node, 'late', 7, 'user');
deliver($node);
is(statuses($node, 'late'), 'in_doubt 1', 'the clock is ahead: the answer is lost');
$clock->advance(-$hour);
$node->safe_psql('postgres', q{UPDATE quota_manager.quota_gateway SET doubt_policy = 'hold' WHERE name = 'late'});
$node->safe_psql('postgres', q{SELECT quota_manager.gateway_delta('user', 7, 'by hand', 'late')});
$node->safe_psql('postgres', q{UPDATE quota_manager.quota_gateway SET doubt_policy = 'reconcile' WHERE name = 'late'});
ok(deliver_until_settled('late'), 'the calls come to an end');
is(statuses($node, 'late'), 'in_doubt 1', 'an operator decides');

$zgsm->stop;
$higress->stop;
$node->stop;
done_testing();
