
# Policy resend: a grant whose answer was lost is sent again with the same key,
# and a gateway that honours keys applies it once.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver deliver_all statuses delivered_once begin_call end_call kill_call);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until);
use Test::More;

my $node = delivery_node('resend', <<'CONF');
quota_manager.retry_base = 1ms
quota_manager.retry_max = 2ms
CONF

foreach my $dialect ('higress', 'zgsm')
{
	my $mock = QuotaTest::Mock->start(dialect => $dialect, key => 'key');
	my $gateway = "the-$dialect";

	add_gateway($node, $gateway, $mock, doubt_policy => 'resend');
	$mock->honour_idempotency(1);

	subtest "$dialect: applied or not, and the answer lost in every way" => sub {
		foreach my $kind ('apply_close', 'apply_reset', 'apply_status', 'close', 'reset', 'status')
		{
			$mock->fault(kind => $kind, match => 'delta', count => 3);
		}
		grant($node, $gateway, 4, map { "user$_" } 1 .. 100);
		ok(deliver_all($node, $gateway), "$dialect: all is settled");
		is(statuses($node, $gateway), 'completed 100', "$dialect: nothing stays in doubt");
		is(delivered_once($node, $gateway, $mock, $dialect), 100, "$dialect: each was applied once");
		is( $node->safe_psql('postgres', qq{
				SELECT count(*) FILTER (WHERE doubt_time IS NOT NULL), count(*) FILTER (WHERE attempts > 0) > 5
				FROM quota_manager.quota_execute WHERE gateway = '$gateway'}),
			'0|t', "$dialect: the attempts were counted, and the doubt is gone");
	};

	subtest "$dialect: while it is in doubt it is never pending, and says when it is sent again" => sub {
		$mock->reset;
		$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run');
		$mock->fault(kind => 'apply_close', match => 'delta', user => 'lost');
		grant($node, $gateway, 4, 'lost');
		deliver($node, q{SET quota_manager.retry_base = '1h'; SET quota_manager.retry_max = '1h';});
		is( $node->safe_psql('postgres', q{
				SELECT status, claim_number, doubt_time IS NOT NULL, next_attempt_time BETWEEN now() + '25 min' AND now() + '1 h'
				FROM quota_manager.quota_execute}),
			'in_doubt|1|t|t', "$dialect: it waits in doubt");
		is( $node->safe_psql('postgres', qq{SELECT pending, doubts_to_settle FROM quota_manager.delivery_status WHERE gateway = '$gateway'}),
			'0|1', "$dialect: delivery_status tells");
		is(deliver($node), '0|0|0|0', "$dialect: not sent before its time");
	};

	# Another policy: nothing is sent again.
	$node->safe_psql('postgres', qq{
		UPDATE quota_manager.quota_execute SET next_attempt_time = now();
		UPDATE quota_manager.quota_run SET undelivered = true;
		UPDATE quota_manager.quota_gateway SET doubt_policy = 'hold' WHERE name = '$gateway'});
	is(deliver($node), '0|0|0|0', "$dialect: held now, it is left alone");
	is( $node->safe_psql('postgres', q{
			SELECT l.awaits_you, l.what_to_do ~ 'resolve', c.await_you FROM quota_manager.trouble_list l JOIN quota_manager.trouble_counts c USING (gateway)}),
		't|t|1', "$dialect: held now, it waits for people");
	$node->safe_psql('postgres', "UPDATE quota_manager.quota_gateway SET doubt_policy = 'resend' WHERE name = '$gateway'");

	subtest "$dialect: sent again and not applied: it stays in doubt, since the first attempt may have been" => sub {
		$mock->stop;
		is(deliver($node), '0|0|0|1', "$dialect: sent again, the gateway is down");
		is( $node->safe_psql('postgres', 'SELECT status, claim_number, doubt_time IS NOT NULL FROM quota_manager.quota_execute'),
			'in_doubt|2|t', "$dialect: it is in doubt as before");
		$mock->restart;
		$mock->honour_idempotency(1);
		$mock->fault($mock->own_refusal('not today'), match => 'delta');
		is(deliver($node), '0|0|1|0', "$dialect: sent again and refused");
		is( $node->safe_psql('postgres', q{
				SELECT status, claim_number, next_attempt_time, last_error ~ 'not today' FROM quota_manager.quota_execute}),
			'in_doubt|3|infinity|t', "$dialect: an operator decides, it is not failed");
		is(deliver($node), '0|0|0|0', "$dialect: and it is not sent any more");
	};

	subtest "$dialect: a gateway that never answers: the attempts are bounded" => sub {
		$mock->reset;
		$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run');
		$mock->fault(kind => 'apply_status', match => 'delta', user => 'never', count => 1000);
		grant($node, $gateway, 4, 'never', 'other');
		ok(deliver_all($node, $gateway), "$dialect: it ends");
		is( $node->safe_psql('postgres', 'SELECT user_id, status, attempts, next_attempt_time FROM quota_manager.quota_execute ORDER BY 1'),
			"never|in_doubt|10|infinity\nother|completed|0|-infinity", "$dialect: after max_attempts it is left to an operator");
		is(scalar(grep { $_->{user} eq 'never' } $mock->applied), 1, "$dialect: applied once all the same");
	};

	my $call;
	subtest "$dialect: killed in the middle: what was claimed is sent again, and applied once" => sub {
		$mock->reset;
		$mock->fault(kind => 'slow', match => 'delta', count => 100, delay_ms => 2);
		$mock->fault(kind => 'apply_hang', match => 'delta', count => 5);
		$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run');
		$node->append_conf('postgresql.conf', "restart_after_crash = on\n");
		$node->reload;
		grant($node, $gateway, 4, map { "user$_" } 1 .. 400);
		$call = begin_call($node, "SET application_name = 'victim'", 'CALL quota_manager.deliver()');
		wait_until($node, q{SELECT count(*) FILTER (WHERE status = 'completed') > 50 FROM quota_manager.quota_execute});
		kill_call($node, $call, 'victim');
		$mock->clear_faults;
		ok(deliver_all($node, $gateway), "$dialect: killed, it goes on");
		is(statuses($node, $gateway), 'completed 400', "$dialect: killed, nothing stays in doubt");
		is(delivered_once($node, $gateway, $mock, "$dialect: killed"), 400, "$dialect: killed, each was applied once");
	};

	$node->safe_psql('postgres', qq{
		TRUNCATE quota_manager.quota_execute, quota_manager.quota_run;
		DELETE FROM quota_manager.quota_gateway WHERE name = '$gateway'});
	$mock->stop;
}

$node->stop;
done_testing();
