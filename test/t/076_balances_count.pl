
# A balance counts only if it was asked for after everything that happened to
# its user, and nothing is open: nobody is paid twice for one low balance.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway deliver deliver_all begin_call end_call);
use QuotaTest::Mock;
use QuotaTest::Wait qw(becomes_true);
use Test::More;

my $node = delivery_node('balances_count', <<'CONF');
shared_preload_libraries = 'quota_manager'
quota_manager.worker_role = 'quota_worker'
quota_manager.workers = off
quota_manager.poll_interval = 100ms
quota_manager.retry_base = 10ms
quota_manager.retry_max = 20ms
CONF
my $mock = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key');
my @users = map { "user$_" } 1 .. 20;

add_gateway($node, 'gateway', $mock, is_default => 'true');
$node->safe_psql('postgres', q{
	INSERT INTO quota_manager.user_info (id) SELECT 'user' || n FROM generate_series(1, 20) n;
	SELECT quota_manager.grant_access((SELECT r.oid::regrole FROM pg_roles r WHERE r.rolname = current_user), 'admin')});

sub sql { return $node->safe_psql('postgres', join '; ', @_); }

# Starts over with a strategy that fires as given, from a time on.
sub start_over
{
	my ($schedule, $since, %column) = @_;
	my %row = (name => 'low', type => 'periodic', amount => 25, model => 'm', condition => 'quota-le("m", 10)', periodic_expr => $schedule, %column);

	sql('TRUNCATE quota_manager.quota_execute, quota_manager.quota_run, quota_manager.user_balance', 'DELETE FROM quota_manager.quota_strategy');
	sql("SET quota_manager.schedule_clock = '$since'",
		sprintf('INSERT INTO quota_manager.quota_strategy (%s) VALUES (%s)', join(', ', sort keys %row), join(', ', map { "\$\$$row{$_}\$\$" } sort keys %row)));
	$mock->clear_faults;
	$mock->reset;
	$mock->set_balance($_, quota => 0) foreach @users;
	return;
}

# The clock on the wall does not go on so fast: back-offs are over.
sub tick { return sql('SELECT quota_internal.end_back_offs()', "SET quota_manager.schedule_clock = '$_[0]'", 'CALL quota_manager.tick()') =~ s/^\d+\n//r; }

# The balances that users have now: "25 x 20".
sub balances
{
	my %times;

	$times{ $mock->balance($_) }++ foreach @users;
	return join ', ', map { "$_ x $times{$_}" } sort { $a <=> $b } keys %times;
}

# State, matched, granted and unknown of the runs of the strategy, in order.
sub runs
{
	return sql(q{SELECT string_agg(concat_ws(' ', r.state, r.matched, r.granted, r.unknown_balance), ', ' ORDER BY r.scheduled_time)
		FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name = 'low' AND r.state <> 'skipped'});
}

subtest 'jobs of pg_cron: a firing comes before what the last one granted was delivered' => sub {
	start_over('* * * * *', '2025-07-01 08:00:00+00');
	tick('2025-07-01 08:01:00+00');
	tick('2025-07-01 08:02:00+00');
	is(runs(), 'done 20 20 0, incomplete 0 0 20', 'a tick after the next: who has something open is not known');
	deliver($node);
	tick('2025-07-01 08:02:30+00');
	is(runs(), 'done 20 20 0, done 0 0 0', 'a tick after the next: they are as soon as it is settled');
	tick('2025-07-01 08:03:00+00');
	deliver($node);
	is(balances(), '25 x 20', 'a tick after the next: nobody is paid twice');
};

subtest 'several firings in one go' => sub {
	start_over('0 * * * *', '2025-07-01 03:00:00+00', catch_up => 'all');
	tick('2025-07-01 08:00:00+00');
	deliver($node);
	tick('2025-07-01 08:00:30+00');
	deliver($node);
	is(balances(), '25 x 20', 'catch-up of five firings: nobody is paid twice');
	is(runs(), 'done 20 20 0, done 0 0 0, done 0 0 0, done 0 0 0, done 0 0 0', 'catch-up of five firings: each comes to its end');
};

subtest 'the gateway answers queries, and asks to come back later with grants' => sub {
	start_over('* * * * *', '2025-07-01 08:00:00+00');
	$mock->fault(kind => 'status', status => 429, match => 'grant', count => 100000);
	foreach my $minute (1 .. 4)
	{
		tick("2025-07-01 08:0$minute:00+00");
		deliver($node);
	}
	$mock->clear_faults;
	ok(deliver_all($node, 'gateway'), '429: everything is delivered at last');
	is(balances(), '25 x 20', '429: nobody is paid four times');
};

subtest 'the same user matched in one go and is not known in the next' => sub {
	start_over('0 * * * *', '2025-07-01 07:30:00+00');
	$mock->fault(kind => 'status', status => 503, match => 'query', user => $_, count => 1000) foreach @users[ 0 .. 9 ];
	tick('2025-07-01 08:00:00+00');
	is(runs(), 'incomplete 10 10 10', 'a firing in two goes: the first');
	$mock->clear_faults;
	tick('2025-07-01 08:01:00+00');
	is(runs(), 'done 20 20 0', 'a firing in two goes: matched counts those of both');
};

my $call;
subtest 'an answer that is on its way while the user is paid' => sub {
	start_over('* * * * *', '2025-07-01 08:00:00+00');
	sql(q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('gift', 'single', 25, 'm', 'true()')});
	sql(q{UPDATE quota_manager.quota_strategy SET enabled = false WHERE name = 'gift'});
	$mock->fault(kind => 'slow', match => 'query', count => 100000, delay_ms => 4000);
	$call = begin_call($node, "SET quota_manager.schedule_clock = '2025-07-01 08:01:00+00'", 'CALL quota_manager.tick()');
	ok(becomes_true($node, 'SELECT count(*) = 20 FROM quota_manager.user_balance WHERE token IS NOT NULL'), 'a slow answer: it is asked for');
	sql(q{UPDATE quota_manager.quota_strategy SET enabled = true WHERE name = 'gift'}, q{SELECT FROM quota_manager.scan('gift')});
	deliver($node);
	is(balances(), '25 x 20', 'a slow answer: all are paid meanwhile');
	end_call($call);
	is(sql('SELECT count(*) FROM quota_manager.user_balance WHERE balance IS NOT NULL'), 0, 'a slow answer: it is worthless');
	is(runs(), 'incomplete 0 0 20', 'a slow answer: it grants nothing');
	$mock->clear_faults;
	tick('2025-07-01 08:01:30+00');
	is(runs(), 'done 0 0 0', 'a slow answer: the next one tells');
};

subtest 'by hand' => sub {
	foreach my $change (q{gateway_delta('user1', 100, 'bonus')}, q{gateway_refresh('user1', 500)})
	{
		start_over('* * * * *', '2025-07-01 08:00:00+00');
		is(sql(q{SELECT quota_manager.gateway_query('user1')}), 0, "$change: queried before");
		is(sql(q{SELECT balance FROM quota_manager.user_balance WHERE user_id = 'user1'}), 0, "$change: and known");
		sql("SELECT quota_manager.$change");
		sql(q{SET quota_manager.schedule_clock = '2025-07-01 08:01:00+00'}, 'SELECT FROM quota_manager.scan()');
		is(runs(), 'incomplete 0 0 20', "$change: not known afterwards");

		# What is done to the gateway is not rolled back.
		sql(q{SELECT quota_manager.gateway_refresh('user1', 0)}, q{SELECT quota_manager.gateway_query('user1')});
		sql('BEGIN', "SELECT quota_manager.$change", 'ROLLBACK');
		is(sql(q{SELECT count(*) FROM quota_manager.known_balance WHERE user_id = 'user1'}), 0, "$change: nor if it was rolled back");
		is(sql(q{SELECT count(*) FROM quota_manager.quota_strategy s, quota_manager.undecided(s.id) u WHERE u.user_id = 'user1'}), 0,
			"$change: nor is it asked for soon");
		sql(q{SET quota_manager.linger = '1ms'}, q{SELECT quota_manager.gateway_query('user1')});
		is(sql(q{SELECT count(*) FROM quota_manager.known_balance WHERE user_id = 'user1'}), 1, "$change: known again");
		$mock->fault(kind => 'apply_close', match => $change =~ /^gateway_(\w+)/, count => 1);
		my ($status, $out, $err) = $node->psql('postgres', "SELECT quota_manager.$change");
		like($err, qr/nobody can tell/, "$change: its answer is lost");
		is(sql(q{SELECT count(*) FROM quota_manager.known_balance WHERE user_id = 'user1'}), 0, "$change: not known then");
		is(sql(q{SELECT count(*) FROM quota_manager.quota_strategy s, quota_manager.undecided(s.id) u WHERE u.user_id = 'user1'}), 0,
			"$change: nor asked for as long as it may arrive");
	}
	# Where a statement means more than the rows in the table's heap, the heap is left alone.
	start_over('* * * * *', '2025-07-01 08:00:00+00');
	sql('CREATE RULE elsewhere AS ON DELETE TO quota_manager.user_balance DO ALSO NOTIFY elsewhere');
	sql(q{SELECT quota_manager.gateway_query('user1')}, 'BEGIN', q{SELECT quota_manager.gateway_delta('user1', 100, 'bonus')}, 'ROLLBACK');
	is(sql(q{SELECT count(*) FROM quota_manager.known_balance WHERE user_id = 'user1'}), 1, 'no plain table: a rollback brings back what was known');
	sql(q{SELECT quota_manager.gateway_delta('user1', 100, 'bonus')});
	is(sql(q{SELECT count(*) FROM quota_manager.known_balance WHERE user_id = 'user1'}), 0, 'no plain table: a commit does not');
	sql('DROP RULE elsewhere ON quota_manager.user_balance');

	start_over('* * * * *', '2025-07-01 08:00:00+00');
	tick('2025-07-01 08:01:00+00');
	is(sql(q{SELECT quota_manager.gateway_query('user1')}), 0, 'a query by hand while something is open: is answered,');
	is(sql(q{SELECT count(*) FROM quota_manager.user_balance WHERE balance IS NOT NULL}), 0, 'and does not count');
};

subtest 'a lost answer that is left to an operator' => sub {
	start_over('* * * * *', '2025-07-01 08:00:00+00');
	tick('2025-07-01 08:01:00+00');
	$mock->fault(kind => 'close', match => 'grant', count => 1, user => 'user1');
	deliver($node) foreach 1 .. 2;
	is(sql(q{SELECT status, next_attempt_time FROM quota_manager.quota_execute WHERE user_id = 'user1'}), 'in_doubt|infinity', 'a lost answer: an operator decides');
	tick('2025-07-01 08:02:00+00');
	is(runs(), 'done 20 20 0, incomplete 0 0 1', 'a lost answer: nothing is asked about its user as long as it may arrive');
	is(sql(q{SET quota_manager.linger = '1ms'}, q{SELECT count(*) FROM quota_manager.quota_strategy s, quota_manager.undecided(s.id) u WHERE u.user_id = 'user1'}),
		1, 'a lost answer: when it cannot, it is');
};

subtest 'a reading from before the clock was set back' => sub {
	start_over('* * * * *', '2025-07-01 08:00:00+00');
	sql(q{INSERT INTO quota_manager.user_balance (user_id, gateway, balance, read_time) SELECT u.id, 'gateway', 5, now() + interval '8 h' FROM quota_manager.user_info u});
	$mock->set_balance($_, quota => 30) foreach @users;
	tick('2025-07-01 08:01:00+00');
	is(runs(), 'done 0 0 0', 'a reading from the future is not believed');
	is(sql(q{SELECT count(*) FROM quota_manager.user_balance WHERE read_time <= now() AND balance = 30}), 20, 'and replaced');
};

subtest 'workers, a gateway that takes few requests, a firing each second' => sub {
	start_over('* * * * * *', '2025-07-01 08:00:00+00', enabled => 'false');
	sql(q{UPDATE quota_manager.quota_gateway SET rate_limit = 20}, 'UPDATE quota_manager.quota_strategy SET enabled = true');
	sql('CREATE ROLE quota_worker LOGIN', q{SELECT quota_manager.grant_access('quota_worker', 'worker')}, 'ALTER SYSTEM SET quota_manager.workers = on', 'SELECT pg_reload_conf()');
	ok( becomes_true($node, q{SELECT count(*) FILTER (WHERE r.matched = 0 AND r.state = 'done') >= 2
			FROM quota_manager.quota_run r, (SELECT max(l.id) AS id FROM quota_manager.quota_run l WHERE l.granted > 0) g WHERE r.id > g.id}),
		'workers: all are paid, and known to be');
	is(balances(), '25 x 20', 'workers: nobody is paid twice');
};

$node->stop;
done_testing();
