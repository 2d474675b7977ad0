
# What operators decide, seen at the gateway: retry sends again, once; cancel
# keeps from being sent; and a courier that waits learns of both.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver statuses delivered_once);
use QuotaTest::Mock;
use QuotaTest::Workers;
use Test::More;

my $node = delivery_node('decisions');

foreach my $dialect ('higress', 'zgsm')
{
	my $mock = QuotaTest::Mock->start(dialect => $dialect, key => 'key');
	my $gateway = "at-$dialect";
	my $ids = sub {
		return $node->safe_psql('postgres', "SELECT array_agg(id) FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND $_[0]");
	};

	add_gateway($node, $gateway, $mock);

	subtest "$dialect: what was refused is sent again when somebody says so" => sub {
		$mock->fault($mock->own_refusal('not now'), match => 'delta', count => 3);
		grant($node, $gateway, 10, 'a', 'b', 'c', 'd');
		is(deliver($node), '1|3|0|0', "$dialect: three are refused");
		my $failed = $ids->("status = 'failed'");
		is($node->safe_psql('postgres', "SELECT quota_manager.retry('$failed'::bigint[], 'mended')"), 3, "$dialect: all three are retried");
		is(statuses($node, $gateway), 'completed 1, pending 3', "$dialect: and wait to be sent");
		is(deliver($node), '3|0|0|0', "$dialect: they are sent");
		is($node->safe_psql('postgres', "SELECT DISTINCT claim_number, attempts, last_error IS NULL FROM quota_manager.quota_execute WHERE id = ANY ('$failed')"),
			'2|0|t', "$dialect: in a second attempt");
		is(delivered_once($node, $gateway, $mock, $dialect), 4, "$dialect: each once");
		is(deliver($node), '0|0|0|0', "$dialect: and no more");
		is($node->safe_psql('postgres', 'SELECT count(*) FROM quota_manager.quota_run WHERE undelivered'), 0, "$dialect: their run is delivered again");
	};

	subtest "$dialect: what was put off need not wait" => sub {
		$mock->fault(kind => 'status', status => 429, match => 'delta', retry_after => 3000);
		grant($node, $gateway, 10, 'patient');
		is(deliver($node), '0|0|0|1', "$dialect: one is put off");
		is(deliver($node), '0|0|0|0', "$dialect: for long");
		$node->safe_psql('postgres', "SELECT quota_manager.retry('" . $ids->("status = 'pending'") . "'::bigint[])");
		is(deliver($node), '1|0|0|0', "$dialect: retried, it is sent at once");
	};

	subtest "$dialect: what was cancelled is not sent" => sub {
		grant($node, $gateway, 10, map { "user$_" } 1 .. 10);
		my $unwanted = $ids->("user_id IN ('user2', 'user4', 'user6')");
		is($node->safe_psql('postgres', "SELECT quota_manager.cancel('$unwanted'::bigint[], 'a mistake')"), 3, "$dialect: three are cancelled");
		is(deliver($node), '7|0|0|0', "$dialect: the others are sent");
		is(statuses($node, $gateway), 'cancelled 3, completed 12', "$dialect: all is settled");
		is(delivered_once($node, $gateway, $mock, $dialect), 12, "$dialect: what was cancelled was not sent");
		is($node->safe_psql('postgres', 'SELECT count(*) FROM quota_manager.quota_run WHERE undelivered'), 0, "$dialect: nothing is left to be done");
	};
	$mock->stop;
}
$node->stop;

my $gateway;
subtest 'a courier that waits for its gateway looks again at what was decided about' => sub {
	$node = QuotaTest::Workers::cluster('decisions_worker', preload => 1);
	QuotaTest::Workers::database($node, 'postgres', { url => 'http://127.0.0.1:1' });
	QuotaTest::Workers::users($node, 'postgres', 5);
	QuotaTest::Workers::strategy($node, 'postgres', name => 'gift');
	QuotaTest::Workers::await($node, 'postgres',
		"SELECT count(*) = 5 AND bool_and(status = 'pending' AND claim_number > 0) AND (SELECT state = 'closed' FROM quota_manager.quota_gateway) FROM quota_manager.quota_execute");
	is($node->safe_psql('postgres', 'SELECT quota_manager.cancel(array_agg(id)) FROM quota_manager.quota_execute'), 5,
		'what waits for a gateway that is down is cancelled');
	QuotaTest::Workers::await($node, 'postgres', 'SELECT NOT bool_or(undelivered) FROM quota_manager.quota_run');
	pass('the courier waits for it no more');

	$gateway = QuotaTest::Workers::gateway();
	$node->safe_psql('postgres', "UPDATE quota_manager.quota_gateway SET base_url = '$gateway->{url}'");
	$node->safe_psql('postgres', "UPDATE quota_manager.quota_execute SET status = 'failed'");
	is($node->safe_psql('postgres', 'SELECT quota_manager.retry(array_agg(id)) FROM quota_manager.quota_execute'), 5, 'what failed is retried');
	QuotaTest::Workers::await_grants($node, 'postgres', 'gift', 5);
	is(scalar($gateway->applied), 5, 'and the courier sends it, once');
};

$node->stop;
done_testing();
