
# What real gateways, and whatever answers in their place, were seen to do, through
# the whole stack: foreign replies, the words of Redis, a gateway that is killed,
# numbers of float64.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use List::Util qw(sum);
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver deliver_all statuses delivered_once begin_call end_call);
use QuotaTest::Mock;
use QuotaTest::Wait qw(happens);
use Test::More;
use Time::HiRes qw(time);

my $node = delivery_node('real_gateways', "quota_manager.delete_proof = on\n");
my @foreign = (
	[ 400, '{"error":{"message":"\'value\' must be an integer","type":"invalid_request_error","code":null}}' ],
	[ 422, '{"detail":[{"loc":["body","model"],"msg":"field required","type":"value_error.missing"}]}' ],
	[ 413, '<html>413 Request Entity Too Large</html>' ]);
my @not_applied = (
	'READONLY You can\'t write against a read only replica.',
	'OOM command not allowed when used memory > \'maxmemory\'.',
	'ERR value is not an integer or out of range',
	'ERR value is not a valid float',
	'ERR increment or decrement would overflow',
	'ERR decrement would overflow');
my @in_doubt = ('cannot connect to redis cluster', 'Connection refused - Redis server', 'LOADING Redis is loading the dataset in memory');

# An error of Redis as the gateway passes it on.
sub redis_error
{
	my ($mock, $text) = @_;

	return $mock->{dialect} eq 'zgsm' ? qq({"code":"ai-gateway.error","message":"redis error:$text","success":false}) : "redis error:$text";
}

# Forgets all grants.
sub forget
{
	my ($mock) = @_;

	$mock->reset;
	$node->safe_psql('postgres', q{
		DELETE FROM quota_manager.quota_execute;
		DELETE FROM quota_manager.quota_run;
		UPDATE quota_manager.quota_gateway SET state = 'open', state_reason = NULL, next_probe_time = NULL});
	return;
}

# The column of the only grant of a user.
sub of_user
{
	my ($user, $columns) = @_;

	return $node->safe_psql('postgres', "SELECT $columns FROM quota_manager.quota_execute WHERE user_id = '$user'");
}

foreach my $dialect ('higress', 'zgsm')
{
	my $mock = QuotaTest::Mock->start(dialect => $dialect);
	my $gateway = "real-$dialect";

	add_gateway($node, $gateway, $mock, max_connections => 8);
	foreach my $reply (@foreign)
	{
		my ($status, $body) = @$reply;
		my $name = "$dialect, a foreign $status";

		# The route leads to somebody else.
		forget($mock);
		$mock->fault(kind => 'status', status => $status, body => $body, match => 'any', count => 0);
		grant($node, $gateway, 3, map { "user$_" } 1 .. 300);
		deliver($node) foreach 1 .. 3;
		is(statuses($node, $gateway), 'pending 300', "$name to everything: nothing fails");
		is($node->safe_psql('postgres', "SELECT state, state_reason ~ '^HTTP $status' FROM quota_manager.quota_gateway WHERE name = '$gateway'"),
			'misconfigured|t', "$name to everything: the gateway is misconfigured");
		cmp_ok(sum(values %{ $mock->requests('delta') }), '<=', 8, "$name to everything: few were sent");
		$mock->clear_faults;
		ok(deliver_all($node, $gateway), "$name: it goes on");
		is(statuses($node, $gateway), 'completed 300', "$name: everyone gets it");
		delivered_once($node, $gateway, $mock, $name);

		# Deltas only: a gateway that fails open now and then.
		forget($mock);
		$mock->fault(kind => 'status', status => $status, body => $body, match => 'delta', count => 0);
		grant($node, $gateway, 3, map { "user$_" } 1 .. 300);
		deliver($node) foreach 1 .. 3;
		is(statuses($node, $gateway), 'pending 300', "$name to deltas: nothing fails");
		$mock->clear_faults;
		ok(deliver_all($node, $gateway), "$name to deltas: it goes on");
		is(statuses($node, $gateway), 'completed 300', "$name to deltas: everyone gets it");
	}

	subtest "$dialect: redis says that it has not run a command, or its client that it does not know" => sub {
		foreach my $text (@not_applied)
		{
			forget($mock);
			$mock->fault(kind => 'status', body => redis_error($mock, $text), match => 'grant', user => 'u');
			grant($node, $gateway, 3, 'u');
			deliver($node);
			is(of_user('u', "status, last_status, doubt_time IS NULL"), 'pending|503|t', "$dialect, $text: not applied");
			like(of_user('u', 'last_error'), qr/\Qredis error:$text\E/, "$dialect, $text: it is said");
			ok(deliver_all($node, $gateway), "$dialect, $text: sent again");
			is(of_user('u', 'status'), 'completed', "$dialect, $text: and applied");
			is(scalar(() = $mock->delivered), 1, "$dialect, $text: once");
		}
		foreach my $text (@in_doubt)
		{
			forget($mock);
			$mock->fault(kind => 'apply_status', body => redis_error($mock, $text), match => 'grant', user => 'u');
			grant($node, $gateway, 3, 'u');
			deliver($node);
			is(of_user('u', 'status, last_status'), 'in_doubt|503', "$dialect, $text: nobody knows");
		}
	};

	subtest "$dialect: redis has become a replica, after an answer was lost: nobody fails, nothing is in doubt for it, and it ends" => sub {
		forget($mock);
		$mock->fault(kind => 'apply_close', match => 'grant', user => 'user1');
		$mock->fault(kind => 'status', body => redis_error($mock, $not_applied[0]), match => 'delta', count => 0);
		grant($node, $gateway, 3, map { "user$_" } 1 .. 300);
		deliver($node) foreach 1 .. 3;
		is(statuses($node, $gateway), 'in_doubt 1, pending 299', "$dialect, a replica: what was not applied waits");
		like($node->safe_psql('postgres', "SELECT state || ' ' || state_reason FROM quota_manager.quota_gateway WHERE name = '$gateway'"),
			qr/^(?:closed|misconfigured) HTTP 503: .*READONLY/, "$dialect, a replica: the gateway says so");
		$mock->clear_faults;
		ok(deliver_all($node, $gateway), "$dialect, a replica: it ends");
		is(statuses($node, $gateway), 'completed 299, in_doubt 1', "$dialect, a replica: everyone gets it");
		is(scalar(() = $mock->delivered), 300, "$dialect, a replica: once");
	};

	my $call;
	subtest "$dialect: killed while a request waits on a connection that is kept" => sub {
		forget($mock);
		$mock->fault(kind => 'hang', match => 'grant', user => 'second');
		$node->safe_psql('postgres', "UPDATE quota_manager.quota_gateway SET max_connections = 1 WHERE name = '$gateway'");
		grant($node, $gateway, 3, 'first', 'second');
		my $log = -s $node->logfile;
		$call = begin_call($node, 'CALL quota_manager.deliver()');
		ok(happens(sub { $mock->stats->{faults} == 1 }), "$dialect, killed: a request waits");
		is($mock->stats->{connections_total} // 1, 1, "$dialect, killed: on the connection that was used before");
		$mock->kill9;
		end_call($call);
		is(of_user('second', 'status, last_error'), 'in_doubt|the connection closed without a reply',
			"$dialect, killed: the text says that it was sent, and not that it could not be");
		unlike(slurp_file($node->logfile, $log), qr/seek callback/, "$dialect, killed: nobody reads libcurl's own words");
		$mock->restart;
		$mock->stop;
		$node->safe_psql('postgres', "UPDATE quota_manager.quota_execute SET status = 'cancelled'; DELETE FROM quota_manager.quota_gateway WHERE name = '$gateway'");
	};
}

my ($mock, $status, $out, $err);
subtest 'numbers of float64' => sub {
	$mock = QuotaTest::Mock->start(dialect => 'zgsm');
	add_gateway($node, 'z', $mock, is_default => 'true');
	forget($mock);
	($status, $out, $err) = $node->psql('postgres', q{
		INSERT INTO quota_manager.quota_strategy (name, type, condition, amount, model) VALUES ('large', 'single', 'true()', 9007199254740993, 'm')});
	like($err, qr/amount 9007199254740993 of strategy "large" cannot be delivered to gateway "z"/, 'an amount that float64 changes is refused where it is written');

	$node->safe_psql('postgres', q{
		INSERT INTO quota_manager.user_info (id) VALUES ('below'), ('far below'), ('above');
		INSERT INTO quota_manager.quota_strategy (name, type, condition, amount, model) VALUES ('refill', 'single', 'quota-le("m", 0)', 5, 'm')});
	$mock->set_balance('below', quota => '-0.000001');
	$mock->set_balance('far below', quota => -7, used => 3);
	$mock->set_balance('above', quota => 8, used => 7.5);
	is($node->safe_psql('postgres', q{SELECT u, quota_manager.gateway_query(u, 'z') FROM unnest(ARRAY['above', 'below', 'far below']) u}),
		"above|0.5\nbelow|-0.000001\nfar below|-0.000001", 'a total below zero is known to be below zero');
	$node->safe_psql('postgres', 'TRUNCATE quota_manager.user_balance');
	$node->safe_psql('postgres', 'CALL quota_manager.tick()') foreach 1 .. 2;
	ok(deliver_all($node, 'z'), 'and can be refilled');
	is($node->safe_psql('postgres', 'SELECT user_id, status FROM quota_manager.quota_execute ORDER BY user_id COLLATE "C"'), "below|completed\nfar below|completed", 'by those it belongs to');
};

subtest 'nothing can be proven from a total that is not told' => sub {
	forget($mock);
	$node->safe_psql('postgres', "UPDATE quota_manager.quota_gateway SET sole_writer = true, doubt_policy = 'reconcile'; ALTER SYSTEM SET quota_manager.linger = '50ms'; SELECT pg_reload_conf()");
	$mock->set_balance('below', quota => -20);
	$mock->set_balance('sinks', quota => 2);
	$mock->fault(kind => 'apply_close', match => 'grant', user => 'below');
	grant($node, 'z', 5, 'below');
	ok(deliver_all($node, 'z'), 'reconcile, below zero: it ends');
	is(of_user('below', 'status, balance_before IS NULL, next_attempt_time'), 'in_doubt|t|infinity', 'reconcile, below zero: an operator decides');
	$mock->fault(kind => 'apply_close', match => 'grant', user => 'sinks');
	grant($node, 'z', -5, 'sinks');
	ok(deliver_all($node, 'z'), 'reconcile, to below zero: it ends');
	is(of_user('sinks', 'status, balance_before, next_attempt_time'), 'in_doubt|2|infinity', 'reconcile, to below zero: an operator decides');
	like(of_user('sinks', 'last_error'), qr/the balance was 2 before and is below zero/, 'reconcile, to below zero: and sees why');
};

subtest 'what float64 cannot tell apart is not proven' => sub {
	forget($mock);
	$mock->set_balance('rich', quota => '1000000000000000');
	$mock->fault(kind => 'apply_close', match => 'grant', user => 'rich');
	grant($node, 'z', 0.02, 'rich');
	ok(deliver_all($node, 'z'), 'reconcile, a grant below the resolution: it ends');
	is(of_user('rich', 'status, claim_number'), 'in_doubt|1', 'reconcile, a grant below the resolution: it is not sent twice');
};

subtest 'a total that is not a number is never told; others are not kept waiting' => sub {
	forget($mock);
	$node->safe_psql('postgres', q{
		TRUNCATE quota_manager.user_balance;
		DELETE FROM quota_manager.quota_strategy;
		DELETE FROM quota_manager.user_info;
		INSERT INTO quota_manager.user_info (id) VALUES ('a'), ('nan'), ('z');
		UPDATE quota_manager.quota_gateway SET request_timeout = '500 ms', max_connections = 4, doubt_policy = 'hold';
		INSERT INTO quota_manager.quota_strategy (name, type, condition, amount, model) VALUES ('refill', 'single', 'quota-le("m", 0)', 5, 'm')});
	$mock->set_balance('nan', quota => 'NaN');
	my $started = time;
	$node->safe_psql('postgres', 'CALL quota_manager.tick()') foreach 1 .. 2;
	cmp_ok(time - $started, '<', 10, 'a total of nan: it takes no longer than the time-out');
	is($node->safe_psql('postgres', q{SELECT string_agg(user_id, ' ' ORDER BY user_id) FROM quota_manager.quota_execute}), 'a z', 'a total of nan: others are served');
	like($node->safe_psql('postgres', q{SELECT state, reason FROM quota_manager.quota_run ORDER BY id DESC LIMIT 1}), qr/^incomplete\|some balances are not known/,
		'a total of nan: it is seen that somebody is missing');
	($status, $out, $err) = $node->psql('postgres', q{SELECT quota_manager.gateway_query('nan')});
	like($err, qr/gateway "z" did not answer: timed out without a whole reply/, 'a total of nan: asked by hand, it ends with a reason');
};

subtest 'the longest id there is can be paid and asked about' => sub {
	($status, $out, $err) = $node->psql('postgres', q{SELECT quota_manager.gateway_delta(repeat('é', 1300), 5, 'long', 'z')});
	is($out, 'applied', 'an id of 2600 bytes: a delta is applied');
	is((map { length $_->{user} } grep { $_->{user} =~ /^(?:é|\xe9|\xc3)/ } $mock->applied)[0] // 0, 1300, 'an id of 2600 bytes: as it is');
	is($node->safe_psql('postgres', q{SELECT quota_manager.gateway_query(repeat('é', 1300), 'z')}), 5, 'an id of 2600 bytes: a query');
};

my $public;
subtest 'the public version knows no fractions' => sub {
	$public = QuotaTest::Mock->start(dialect => 'zgsm', integers => 1);
	add_gateway($node, 'public', $public);
	grant($node, 'public', 0.5, 'half');
	grant($node, 'public', 3, 'three');
	deliver($node);
	is($node->safe_psql('postgres', q{SELECT user_id, status, last_status FROM quota_manager.quota_execute WHERE gateway = 'public' ORDER BY user_id}),
		"half|failed|400\nthree|completed|200", 'integers only: a fraction fails, alone');
	like(of_user('half', 'last_error'), qr/^HTTP 400: ai-gateway.invalid_params: .*must be integer/, 'integers only: with the words of the gateway');
};

my $pools;
subtest q{the words of the version with group pools, and of a key that is not the admin's} => sub {
	$pools = QuotaTest::Mock->start(dialect => 'higress', key => 'admin', other_key => 'mine', group_pools => 1);
	add_gateway($node, 'pools', $pools);
	$pools->fault(kind => 'refuse', match => 'grant', user => 'refused');
	grant($node, 'pools', 3, 'refused', 'accepted');
	ok(deliver_all($node, 'pools'), 'group pools: it ends');
	is($node->safe_psql('postgres', q{SELECT user_id, status, attempts FROM quota_manager.quota_execute WHERE gateway = 'pools' ORDER BY user_id}),
		"accepted|completed|0\nrefused|failed|0", 'group pools: who blames the parameters is understood');
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_credential SET secret = 'mine' WHERE name = 'pools'});
	grant($node, 'pools', 3, 'waits');
	deliver($node) foreach 1 .. 3;
	is($node->safe_psql('postgres', q{SELECT e.status, g.state, g.state_reason FROM quota_manager.quota_execute e JOIN quota_manager.quota_gateway g ON g.name = e.gateway WHERE user_id = 'waits'}),
		'pending|misconfigured|HTTP 403: Request denied by ai quota check. Unauthorized admin consumer.', 'the key of somebody else: the gateway is misconfigured');
};

done_testing();
