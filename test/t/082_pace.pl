
# How fast and in which order a gateway gets its grants.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver statuses delivered_once begin_call end_call);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until becomes_true);
use Test::More;
use Time::HiRes qw(time);

my $node = delivery_node('pace', '');
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'key');
my $other = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key');

add_gateway($node, 'slow', $mock, rate_limit => 50);
add_gateway($node, 'quick', $other);

subtest 'a rate is kept to, and is no matter of another gateway' => sub {
	grant($node, 'slow', 1, map { "user$_" } 1 .. 100);
	grant($node, 'quick', 1, map { "user$_" } 1 .. 2000);
	my $start = time;
	is(deliver($node), '2100|0|0|0', 'all is delivered');
	my $elapsed = time - $start;
	cmp_ok($elapsed, '>=', 1.8, sprintf 'not faster than rate_limit (100 requests, 50 per second: %.2f s)', $elapsed);
	cmp_ok($elapsed, '<=', 6, 'and not much slower');
	is( $node->safe_psql('postgres', q{
			SELECT max(update_time) FILTER (WHERE gateway = 'quick') < max(update_time) FILTER (WHERE gateway = 'slow')
			FROM quota_manager.quota_execute}),
		't', 'a gateway without a limit is done before');
	delivered_once($node, 'slow', $mock, 'within the rate');
};

my $call;
subtest 'what is claimed under a rate is not more than is sent soon' => sub {
	$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run;
		UPDATE quota_manager.quota_gateway SET rate_limit = 5');
	grant($node, 'slow', 1, map { "user$_" } 1 .. 100);
	$call = begin_call($node, "SET application_name = 'sender'", 'CALL quota_manager.deliver()');
	wait_until($node, q{SELECT count(*) >= 3 FROM quota_manager.quota_execute WHERE status = 'completed'});
	cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'processing'}),
		'<=', 12, 'few are claimed');
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'sender'");
	end_call($call);
	unlike(statuses($node, 'slow'), qr/in_doubt|processing/, 'cancelled, nothing is in doubt');
};

subtest 'oldest first; what was put off is not kept waiting by what is newer, however much that is' => sub {
	$mock->reset;
	$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run;
		UPDATE quota_manager.quota_gateway SET rate_limit = 100');
	$mock->fault(kind => 'status', status => 403, match => 'delta', user => 'late', body => 'not now', count => 2);
	grant($node, 'slow', 1, 'late', map { "user$_" } 1 .. 3000);
	$call = begin_call($node, "SET application_name = 'sender'", 'CALL quota_manager.deliver()');
	ok(becomes_true($node, q{SELECT status = 'completed' FROM quota_manager.quota_execute WHERE user_id = 'late'}),
		'a grant that was put off is sent');
	cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'pending'}),
		'>', 1000, 'although newer ones wait');
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'sender'");
	end_call($call);
	is( $node->safe_psql('postgres', q{
			SELECT count(*) FROM quota_manager.quota_execute e
			WHERE e.status = 'pending' AND e.id < (SELECT max(d.id) - 64 FROM quota_manager.quota_execute d
				WHERE d.status = 'completed')}),
		0, 'older ones went before newer ones');
};

$mock->stop;
$other->stop;
$node->stop;
done_testing();
