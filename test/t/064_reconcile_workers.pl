
# Policy reconcile with a courier that stays: what it knows of runs, gateways and
# grants in doubt must not become old.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant statuses delivered_once);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until becomes_true);
use Test::More;

my $node = delivery_node('reconcile_workers', <<'CONF');
shared_preload_libraries = 'quota_manager'
quota_manager.worker_role = 'quota_worker'
quota_manager.poll_interval = 100ms
quota_manager.retry_base = 1ms
quota_manager.retry_max = 2ms
quota_manager.linger = 300ms
CONF
my $mock = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key');

add_gateway($node, 'gateway', $mock, doubt_policy => 'reconcile', sole_writer => 'true');
$node->safe_psql('postgres', q{CREATE ROLE quota_worker LOGIN;
	SELECT quota_manager.grant_access('quota_worker', 'worker')});

sub settled
{
	my ($expected, $name) = @_;

	wait_until($node, q{SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE status <> 'completed'});
	is(statuses($node, 'gateway'), $expected, $name);
	return;
}

subtest 'proven not to have been applied, a grant is pending again: it is seen and sent' => sub {
	$mock->fault(kind => 'close', match => 'grant', user => 'user1');
	grant($node, 'gateway', 4, 'user1', 'user2');
	settled('completed 2', 'what is proven not to have been applied is sent again');
	delivered_once($node, 'gateway', $mock, 'sent again');
};

subtest 'the run ends with a proof: it is marked delivered' => sub {
	$mock->fault(kind => 'apply_close', match => 'grant', user => 'user3');
	grant($node, 'gateway', 4, 'user3');
	settled('completed 3', 'what is proven to have been applied is completed');
	ok(becomes_true($node, 'SELECT count(*) = 0 FROM quota_manager.quota_run WHERE undelivered'),
		'and its run is delivered');
	delivered_once($node, 'gateway', $mock, 'proven');
};

# An answer to a question from before, which comes while the gateway is asked whether it takes writes again, is not forgotten: its
# grant would keep all others waiting, since one at a time is sent then.
my $late = QuotaTest::Mock->start(dialect => 'higress');
add_gateway($node, 'late', $late,
	doubt_policy => 'reconcile', sole_writer => 'true', max_usage_rate => 0, max_connections => 3, request_timeout => '6 s');
$late->fault(kind => 'status', status => 500, match => 'query', user => 'late', count => 1, delay_ms => 500);
$late->fault(kind => 'close', match => 'grant', count => 3);
$late->fault(kind => 'slow', match => 'write', count => 1, delay_ms => 1500);
grant($node, 'late', 4, 'first', 'late', 'second', 'third', map { "user$_" } 1 .. 20);
ok(becomes_true($node, q{SELECT count(*) = 24 AND bool_and(status = 'completed') FROM quota_manager.quota_execute WHERE gateway = 'late'}),
	'a late answer does not keep others waiting');
is(delivered_once($node, 'late', $late, 'late answers'), 24, 'each once');

$node->stop;
$mock->stop;
$late->stop;
done_testing();
