
# Policy reconcile: what the gateway says before and after proves what became of
# a grant whose answer was lost.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver deliver_all statuses delivered_once begin_call end_call kill_call);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until);
use Test::More;

my $node = delivery_node('reconcile', <<'CONF');
quota_manager.retry_base = 1ms
quota_manager.retry_max = 2ms
quota_manager.linger = 200ms
restart_after_crash = on
CONF

sub start_over
{
	my ($mock) = @_;

	$mock->reset;
	$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run');
	return;
}

# What became of one user's grants.
sub grants_of
{
	my ($user) = @_;

	return $node->safe_psql('postgres', qq{
		SELECT status, balance_before FROM quota_manager.quota_execute WHERE user_id = '$user' ORDER BY id});
}

my @lost = ('apply_close', 'apply_reset', 'apply_status', 'close', 'reset', 'status');

foreach my $dialect ('zgsm', 'higress')
{
	my $mock = QuotaTest::Mock->start(dialect => $dialect, key => 'key');
	my $gateway = "the-$dialect";

	# higress: chats use nothing here, so that what did not rise was not applied
	add_gateway($node, $gateway, $mock,
		doubt_policy => 'reconcile',
		sole_writer => 'true',
		max_usage_rate => $dialect eq 'higress' ? 0 : undef);

	subtest "$dialect: nothing lost: the balance before stands with each grant" => sub {
		$mock->set_balance('rich', quota => 100);
		grant($node, $gateway, 4, 'rich', map { "user$_" } 1 .. 300);
		is(deliver($node), '301|0|0|0', "$dialect: all is delivered");
		is(grants_of('rich'), 'completed|100', "$dialect: with the balance before");
		is(delivered_once($node, $gateway, $mock, $dialect), 301, "$dialect: each once");
	};

	subtest "$dialect: answers lost in every way, several grants per user among them" => sub {
		start_over($mock);
		$mock->fault(kind => $_, match => 'delta', count => 3) foreach @lost;
		grant($node, $gateway, 4, map { "user$_" } 1 .. 100);
		grant($node, $gateway, 5, map { "user$_" } 1 .. 100);
		grant($node, $gateway, 4, map { "user$_" } 1 .. 20);
		ok(deliver_all($node, $gateway), "$dialect: it ends");
		is(statuses($node, $gateway), 'completed 220', "$dialect: nothing stays in doubt");
		is(delivered_once($node, $gateway, $mock, "$dialect: lost answers"), 220, "$dialect: each once");
		like( $node->safe_psql('postgres', q{SELECT string_agg(DISTINCT last_error, ', ') FROM quota_manager.quota_execute WHERE last_error <> ''}),
			qr/^reconciled as applied: the balance was \d+ before and is \d+/, "$dialect: it is told what proved it");
	};

	subtest "$dialect: until it is proven its user gets nothing else, others do" => sub {
		start_over($mock);
		$mock->fault(kind => 'close', match => 'delta', user => 'slow');
		grant($node, $gateway, 4, 'slow', 'slow2');
		grant($node, $gateway, 5, 'slow', 'slow2');
		deliver($node, q{SET quota_manager.linger = '1h';});
		is(grants_of('slow'), "in_doubt|0\npending|", "$dialect: a user waits for the evidence");
		is(grants_of('slow2'), "completed|0\ncompleted|4", "$dialect: others do not");
		is( $node->safe_psql('postgres', qq{SELECT pending, doubts_to_settle FROM quota_manager.delivery_status WHERE gateway = '$gateway'}),
			'1|1', "$dialect: delivery_status tells");
		$node->safe_psql('postgres', q{UPDATE quota_manager.quota_execute SET next_attempt_time = now() WHERE status = 'in_doubt';
			UPDATE quota_manager.quota_run SET undelivered = true});
		deliver($node, q{SET quota_manager.linger = '1h';});
		is( $node->safe_psql('postgres', q{SELECT last_error ~ 'not reconciled yet', next_attempt_time > now() + '50 min' FROM quota_manager.quota_execute WHERE status = 'in_doubt'}),
			't|t', "$dialect: a balance that did not move proves nothing while the request may still arrive");
		$node->safe_psql('postgres', q{UPDATE quota_manager.quota_execute SET next_attempt_time = now() WHERE status = 'in_doubt';
			UPDATE quota_manager.quota_run SET undelivered = true});
		ok(deliver_all($node, $gateway), "$dialect: and then it does");
		is(grants_of('slow'), "completed|0\ncompleted|4", "$dialect: it is sent again, and the other one after it");
		delivered_once($node, $gateway, $mock, "$dialect: waiting");
	};

	# The request arrives late: it is seen, and not sent again.
	start_over($mock);
	$mock->fault(kind => 'close', match => 'delta', user => 'late');
	grant($node, $gateway, 4, 'late');
	deliver($node, q{SET quota_manager.linger = '1h';});
	$mock->set_balance('late', quota => 4);
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_execute SET next_attempt_time = now() WHERE status = 'in_doubt';
		UPDATE quota_manager.quota_run SET undelivered = true});
	deliver($node, q{SET quota_manager.linger = '1h';});
	is(grants_of('late'), 'completed|0', "$dialect: late, it is completed");

	subtest "$dialect: somebody else wrote: nothing is proven, an operator decides" => sub {
		start_over($mock);
		$mock->fault(kind => 'close', match => 'delta', user => 'odd');
		$mock->set_balance('odd', quota => 50);
		grant($node, $gateway, 4, 'odd');
		deliver($node);
		$mock->set_balance('odd', quota => $dialect eq 'zgsm' ? 77 : 50);
		$node->safe_psql('postgres', "UPDATE quota_manager.quota_gateway SET max_usage_rate = NULL");
		ok(deliver_all($node, $gateway), "$dialect: written by somebody else, it ends");
		is( $node->safe_psql('postgres', q{SELECT status, next_attempt_time, last_error ~ 'cannot be reconciled' FROM quota_manager.quota_execute}),
			'in_doubt|infinity|t', "$dialect: an operator decides");
		$node->safe_psql('postgres', "UPDATE quota_manager.quota_gateway SET max_usage_rate = 0") if $dialect eq 'higress';
	};

	subtest "$dialect: a balance that cannot be read: the grant is sent all the same; lost, an operator decides" => sub {
		start_over($mock);
		$mock->fault(kind => 'status', status => 500, match => 'query', user => 'mute', count => 1000);
		$mock->fault(kind => 'apply_close', match => 'delta', user => 'mute');
		grant($node, $gateway, 4, 'mute', map { "user$_" } 1 .. 10);
		grant($node, $gateway, 6, 'mute');
		ok(deliver_all($node, $gateway), "$dialect: a user whose balance cannot be read, it ends");
		is(grants_of('mute'), "in_doubt|\ncompleted|", "$dialect: the first is in doubt, the other one delivered");
		is(statuses($node, $gateway), 'completed 11, in_doubt 1', "$dialect: the others are delivered");
	};

	subtest "$dialect: a balance that cannot be read at first is asked for again: the gateway may just have been started" => sub {
		start_over($mock);
		$mock->fault(kind => 'status', status => 503, match => 'query', user => 'shy', count => 3);
		$mock->fault(kind => 'apply_close', match => 'delta', user => 'shy');
		grant($node, $gateway, 4, 'shy', map { "user$_" } 1 .. 10);
		ok(deliver_all($node, $gateway), "$dialect: a balance that cannot be read at first, it ends");
		is(grants_of('shy'), 'completed|0', "$dialect: it is read, and proves that the grant was applied");
		is(statuses($node, $gateway), 'completed 11', "$dialect: the others are delivered as well");
	};

	subtest "$dialect: killed while balances are read, while grants are sent, and while answers are lost" => sub {
		foreach my $kind ('slow query', 'apply_hang delta', 'hang delta')
		{
			my ($fault, $match) = split / /, $kind;

			start_over($mock);
			$mock->fault(kind => 'slow', match => 'any', count => 150, delay_ms => 1);
			$mock->fault(kind => $fault, match => $match, count => $fault eq 'slow' ? 1000 : 5, delay_ms => $fault eq 'slow' ? 20 : 0);
			grant($node, $gateway, 4, map { "user$_" } 1 .. 400);
			my $call = begin_call($node, "SET application_name = 'victim'", 'CALL quota_manager.deliver()');
			wait_until($node, q{SELECT count(*) FILTER (WHERE status = 'completed') > 30 FROM quota_manager.quota_execute});
			kill_call($node, $call, 'victim');
			$mock->clear_faults;
			ok(deliver_all($node, $gateway), "$dialect, $kind: killed, it goes on");
			is(statuses($node, $gateway), 'completed 400', "$dialect, $kind: killed, nothing stays in doubt");
			is(delivered_once($node, $gateway, $mock, "$dialect, $kind: killed"), 400, "$dialect, $kind: killed, each was applied once");
		}
	};

	subtest "$dialect: what is in doubt is asked about although there is more to send than rate_limit allows" => sub {
		start_over($mock);
		$node->safe_psql('postgres', q{UPDATE quota_manager.quota_gateway SET rate_limit = 300});
		$mock->fault(kind => 'apply_close', match => 'delta', user => 'user1');
		grant($node, $gateway, 4, map { "user$_" } 1 .. 500);
		is(deliver($node), '500|0|1|0', "$dialect: all is delivered within a rate");
		is( $node->safe_psql('postgres', q{SELECT count(*) > 100 FROM quota_manager.quota_execute
				WHERE update_time > (SELECT update_time FROM quota_manager.quota_execute WHERE user_id = 'user1')}),
			't', "$dialect: grants in doubt do not wait for the end of what is to be sent");
		$node->safe_psql('postgres', q{UPDATE quota_manager.quota_gateway SET rate_limit = NULL});
	};

	subtest "$dialect: a sender that ended has left one without a balance: nothing proves it, but it may still arrive" => sub {
		start_over($mock);
		grant($node, $gateway, 4, 'orphan', 'orphan2');
		$node->safe_psql('postgres', q{UPDATE quota_manager.quota_execute SET status = 'processing', claim_number = 1 WHERE user_id = 'orphan'});
		grant($node, $gateway, 5, 'orphan', 'orphan2');
		deliver($node, q{SET quota_manager.linger = '1h';});
		is(grants_of('orphan'), "in_doubt|\npending|", "$dialect: its user waits as long as it may arrive");
		is(grants_of('orphan2'), "completed|0\ncompleted|4", "$dialect: others do not");
		is( $node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'in_doubt' AND next_attempt_time < 'infinity'}),
			'1', "$dialect: and it is not left to an operator before");
		$node->safe_psql('postgres', q{UPDATE quota_manager.quota_execute SET doubt_time = now() - interval '1h' WHERE status = 'in_doubt'});
		ok(deliver_all($node, $gateway), "$dialect: not longer");
		is(grants_of('orphan'), "in_doubt|\ncompleted|0", "$dialect: then an operator decides");
	};

	subtest "$dialect: made to reconcile a moment ago: what was lost before may still arrive, so nothing is sent yet" => sub {
		start_over($mock);
		$node->safe_psql('postgres', qq{
			UPDATE quota_manager.quota_gateway SET doubt_policy = 'hold' WHERE name = '$gateway';
			UPDATE quota_manager.quota_gateway SET doubt_policy = 'reconcile' WHERE name = '$gateway'});
		grant($node, $gateway, 4, 'user1');
		is(deliver($node, q{SET quota_manager.linger = '1h';}), '0|0|0|0', "$dialect: nothing is sent right after the policy changed");
		ok(deliver_all($node, $gateway), "$dialect: but later");
		is(grants_of('user1'), 'completed|0', "$dialect: it is delivered");
	};

	subtest "$dialect: a reading from before the change proves nothing" => sub {
		start_over($mock);
		$mock->fault(kind => 'apply_close', match => 'delta');
		grant($node, $gateway, 4, 'user1');
		deliver($node);
		$node->safe_psql('postgres', qq{
			UPDATE quota_manager.quota_gateway SET doubt_policy = 'hold' WHERE name = '$gateway';
			UPDATE quota_manager.quota_gateway SET doubt_policy = 'reconcile' WHERE name = '$gateway'});
		ok(deliver_all($node, $gateway), "$dialect: an old reading, it ends");
		is( $node->safe_psql('postgres', 'SELECT status, next_attempt_time FROM quota_manager.quota_execute'),
			'in_doubt|infinity', "$dialect: it is left to an operator");
	};

	$node->safe_psql('postgres', qq{
		TRUNCATE quota_manager.quota_execute, quota_manager.quota_run;
		DELETE FROM quota_manager.quota_gateway WHERE name = '$gateway'});
	$mock->stop;
}

$node->stop;
done_testing();
