# From the moment a pause commits, nothing of what it pauses is sent but what was in flight; when it ends, everything arrives
# once. Whoever sends, and whatever dies meanwhile.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use QuotaTest::Delivery qw(delivery_node start_workers add_gateway grant deliver deliver_all statuses delivered_once
  begin_call end_call begin_session ask_session end_session kill_call);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until wait_for);
use Test::More;

# As many are in flight at most.
my $connections = 16;

my $node = delivery_node('brakes', "restart_after_crash = on\nshared_preload_libraries = 'quota_manager'\nquota_manager.workers = off");
my $operator = begin_session($node);
my $number = 0;

sub sql
{
	return $node->safe_psql('postgres', shift);
}

# A gateway with a mock that takes its time for each grant.
sub slow_gateway
{
	my ($delay_ms, %column) = @_;
	my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'secret');
	my $name = 'gw' . ++$number;

	$mock->fault(kind => 'slow', match => 'grant', count => 0, delay_ms => $delay_ms) if $delay_ms;
	add_gateway($node, $name, $mock, max_connections => $connections, %column);
	return ($name, $mock);
}

sub grant_many
{
	my ($gateway, $count, $amount) = @_;

	grant($node, $gateway, $amount // 1, map { "$gateway-user$_" } 1 .. $count);
	return;
}

sub in_status
{
	my ($gateway, $status) = @_;

	return sql("SELECT count(*) FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = '$status'");
}

# How many changes a mock has applied.
sub count
{
	my ($mock) = @_;

	return $mock->stats->{applied};
}

# Waits until the mock has applied so many more.
sub wait_more
{
	my ($mock, $more) = @_;
	my $before = count($mock);

	wait_for("$more more are applied", sub { return count($mock) >= $before + $more });
	return;
}

# Runs a statement that pauses; returns how many the mock had applied when its COMMIT had returned.
sub pause
{
	my ($statement, @mocks) = @_;

	ask_session($operator, $statement);
	return map { count($_) } @mocks;
}

# Waits until what was in flight at a gateway is settled; returns how many the mock has applied then.
sub drained
{
	my ($gateway, $mock) = @_;

	wait_until($node, "SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = 'processing'");
	return count($mock);
}

# A grant at another gateway has been sent since: whoever sends has been through its loop.
my ($clock_gateway, $clock) = slow_gateway(0);

sub await_passes
{
	foreach (1 .. 3)
	{
		my $before = count($clock);

		grant($node, $clock_gateway, 1, "tick$number-$_-$before");
		wait_for('another gateway is served', sub { return count($clock) > $before });
	}
	return;
}

# What deliver() says while it runs beside the test.
sub with_deliver
{
	my ($code) = @_;
	my $call = begin_call($node, "SET application_name = 'deliver'", 'CALL quota_manager.deliver()');

	$code->($call);
	return (end_call($call))[1];
}

subtest 'a gateway is paused while deliver() sends' => sub {
	my ($gateway, $mock) = slow_gateway(20);
	my $errors;
	my $at_commit;

	grant_many($gateway, 2000);
	$errors = with_deliver(sub {
		wait_more($mock, 50);
		($at_commit) = pause("SELECT quota_manager.pause_gateway('$gateway', 'stop')", $mock);
	});
	my $after = count($mock);

	cmp_ok($after - $at_commit, '<=', $connections, 'only what was in flight has arrived since');
	is(in_status($gateway, 'processing'), 0, 'nothing is left half done');
	is(in_status($gateway, 'pending'), 2000 - $after, 'all others are pending');
	is(sql("SELECT count(*) FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = 'pending' AND (attempts > 0 OR last_error IS NOT NULL)"), 0,
		'as if they had never been claimed');
	like($errors, qr/NOTICE:  gateway "$gateway" is paused since .* by \w+: stop/, 'deliver() says so');
	deliver($node);
	is(count($mock), $after, 'another deliver() sends nothing');

	$mock->clear_faults;
	ask_session($operator, "SELECT quota_manager.unpause_gateway('$gateway', 'go on')");
	ok(deliver_all($node, $gateway), 'it goes on');
	is(delivered_once($node, $gateway, $mock, 'deliver'), 2000, 'all have arrived');
};

subtest 'what was claimed and not sent goes back at once' => sub {
	my ($gateway, $mock) = slow_gateway(3000);

	grant_many($gateway, 500);
	with_deliver(sub {
		wait_until($node, "SELECT count(*) > $connections FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = 'processing'");
		pause("SELECT quota_manager.pause_gateway('$gateway')", $mock);
		wait_until($node, "SELECT count(*) = $connections FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = 'processing'");
		is(in_status($gateway, 'completed'), 0, 'while those in flight are still waited for');
	});
	is(statuses($node, $gateway), "completed $connections, pending " . (500 - $connections), 'they are completed');
	is(count($mock), $connections, 'and no other was sent');
	sql("SELECT quota_manager.unpause_gateway('$gateway')");
	sql("SELECT quota_manager.cancel(array_agg(id)) FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = 'pending'");
};

subtest 'a pause that is rolled back stops nothing' => sub {
	my ($gateway, $mock) = slow_gateway(0);

	grant_many($gateway, 10);
	ask_session($operator, "BEGIN; SELECT quota_manager.pause_gateway('$gateway'); SELECT quota_manager.pause_all()");
	deliver($node);
	is(count($mock), 10, 'nor does one that is not committed');
	ask_session($operator, 'ROLLBACK');
	grant_many($gateway, 1);
	deliver($node);
	is(count($mock), 11, 'nothing is paused');
};

# Two strategies with users of their own.
sub two_strategies
{
	my ($gateway, $users) = @_;

	sql(qq{
		INSERT INTO quota_manager.quota_model VALUES ('model of $gateway', '$gateway');
		INSERT INTO quota_manager.user_info (id, org) SELECT '$gateway-' || o || n, '$gateway-' || o FROM generate_series(1, $users) n, unnest(ARRAY['a', 'b']) o;
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)
			SELECT '$gateway-' || o, 'single', a, 'model of $gateway', format('belong-to("%s")', '$gateway-' || o)::quota_manager.condition FROM (VALUES ('a', 1), ('b', 2)) v (o, a);
		SELECT quota_manager.scan('$gateway-a'), quota_manager.scan('$gateway-b')});
	return;
}

sub applied_of
{
	my ($mock, $amount) = @_;

	return scalar grep { $_->{amount} eq $amount } $mock->applied;
}

sub check_strategy_pause
{
	my ($gateway, $mock, $users, $run, $finish) = @_;
	my $at_commit;

	$run->(sub {
		wait_more($mock, 50);
		ask_session($operator, "SELECT quota_manager.pause_strategy('$gateway-a', 'wrong amount')");
		$at_commit = applied_of($mock, 1);
		wait_for('the other strategy is served', sub { return applied_of($mock, 2) == $users });
	});
	my $after = applied_of($mock, 1);

	cmp_ok($at_commit, '<', $users, 'it was paused in the middle');
	cmp_ok($after - $at_commit, '<=', $connections, 'only what was in flight has arrived since');
	is(sql(qq{SELECT string_agg(s.name || ' ' || e.status || ' ' || n, ', ' ORDER BY s.name, e.status)
			FROM (SELECT strategy_id, status, count(*) AS n FROM quota_manager.quota_execute WHERE gateway = '$gateway' GROUP BY 1, 2) e
			JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id}),
		"$gateway-a completed $after, $gateway-a pending " . ($users - $after) . ", $gateway-b completed $users", 'its grants wait');
	is(sql(qq{SELECT state || '|' || enabled FROM quota_manager.quota_strategy WHERE name = '$gateway-a'}), 'paused|false', 'it is paused');
	$mock->clear_faults;
	ask_session($operator, "SELECT quota_manager.unpause_strategy('$gateway-a')");
	$finish->();
	is(delivered_once($node, $gateway, $mock, 'strategy'), 2 * $users, 'all have arrived');
	return;
}

subtest 'a strategy is paused while deliver() sends' => sub {
	my ($gateway, $mock) = slow_gateway(10);
	my $errors;

	two_strategies($gateway, 800);
	check_strategy_pause($gateway, $mock, 800, sub { $errors = with_deliver(shift) }, sub { ok(deliver_all($node, $gateway), 'it goes on') });
	like($errors, qr/NOTICE:  pending grants of 1 strategy are held/, 'deliver() says so');
};

subtest 'where balances are read before each grant' => sub {
	my ($gateway, $mock) = slow_gateway(5, doubt_policy => 'reconcile', sole_writer => 'true');

	$mock->fault(kind => 'slow', match => 'query', count => 0, delay_ms => 5);
	two_strategies($gateway, 200);
	check_strategy_pause($gateway, $mock, 200, sub { with_deliver(shift) }, sub { ok(deliver_all($node, $gateway), 'it goes on') });

	$mock->fault(kind => 'slow', match => 'any', count => 0, delay_ms => 20);
	grant_many($gateway, 1000);
	my $requests;
	with_deliver(sub {
		wait_more($mock, 20);
		pause("SELECT quota_manager.pause_gateway('$gateway')", $mock);
		$requests = $mock->stats->{requests};
	});
	cmp_ok($mock->stats->{requests} - $requests, '<=', $connections, 'no balance is asked for either');
	$mock->clear_faults;
	sql("SELECT quota_manager.unpause_gateway('$gateway')");
	ok(deliver_all($node, $gateway), 'it goes on');
	is(delivered_once($node, $gateway, $mock, 'reconcile'), 1400, 'all have arrived');
};

subtest 'everything is paused while deliver() sends' => sub {
	my ($one, $mock) = slow_gateway(20);
	my ($two, $other) = slow_gateway(20);
	my @at_commit;
	my $errors;

	grant_many($one, 1000);
	grant_many($two, 1000);
	$errors = with_deliver(sub {
		wait_more($_, 30) foreach $mock, $other;
		@at_commit = pause("SELECT quota_manager.pause_all('stop')", $mock, $other);
	});
	cmp_ok(count($mock) - $at_commit[0], '<=', $connections, 'one gateway is sent nothing any more');
	cmp_ok(count($other) - $at_commit[1], '<=', $connections, 'nor is the other');
	like($errors, qr/NOTICE:  everything is paused since .*: stop/, 'deliver() says so');
	$_->clear_faults foreach $mock, $other;
	sql("SELECT quota_manager.unpause_all()");
	ok(deliver_all($node, $_), 'it goes on') foreach $one, $two;
	is(delivered_once($node, $one, $mock, 'one'), 1000, 'all have arrived');
	is(delivered_once($node, $two, $other, 'two'), 1000, 'all have arrived');
};

subtest 'deliver() is killed while a gateway is paused' => sub {
	my ($gateway, $mock) = slow_gateway(2000, doubt_policy => 'resend');

	$mock->honour_idempotency(1);
	grant_many($gateway, 300);
	my $call = begin_call($node, "SET application_name = 'deliver'", 'CALL quota_manager.deliver()');

	wait_until($node, "SELECT count(*) > $connections FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = 'processing'");
	pause("SELECT quota_manager.pause_gateway('$gateway')", $mock);
	end_session($operator);
	kill_call($node, $call, 'deliver');
	$operator = begin_session($node);
	$mock->clear_faults;
	deliver($node);
	my $sent = count($mock);

	cmp_ok($sent, '<=', $connections, 'no more than were in flight have arrived');
	is(in_status($gateway, 'processing'), 0, 'those whose sender died are in doubt');
	cmp_ok(in_status($gateway, 'in_doubt'), '>=', $sent, 'and are not sent again while it is paused');
	deliver($node);
	is(count($mock), $sent, 'nothing is sent');
	sql("SELECT quota_manager.unpause_gateway('$gateway')");
	ok(deliver_all($node, $gateway), 'it goes on');
	is(delivered_once($node, $gateway, $mock, 'killed'), 300, 'all have arrived, once');
};

# From here on the workers deliver.
sql("ALTER SYSTEM SET quota_manager.workers = on");
start_workers($node);
# So that an idle worker is woken, or not at all.
sql("ALTER SYSTEM SET quota_manager.poll_interval = '60s'");
sql('SELECT pg_reload_conf()');

subtest 'a gateway is paused again and again while a worker sends' => sub {
	my ($gateway, $mock) = slow_gateway(2);
	my ($other_gateway, $other) = slow_gateway(0);
	my $most = 0;
	my $rounds = 0;

	grant_many($gateway, 4000);
	while (in_status($gateway, 'completed') < 3500 && $rounds < 25)
	{
		wait_more($mock, 40);
		my ($at_commit) = pause("SELECT quota_manager.pause_gateway('$gateway')", $mock);
		my $after = drained($gateway, $mock);

		$most = $after - $at_commit if $after - $at_commit > $most;
		if ($rounds++ % 8 == 0)
		{
			await_passes();
			is(count($mock), $after, 'nothing is sent while it is paused');
		}
		ask_session($operator, "SELECT quota_manager.unpause_gateway('$gateway')");
	}
	cmp_ok($most, '<=', $connections, "never was more than in flight sent after a pause ($most in $rounds pauses)");

	pause("SELECT quota_manager.pause_gateway('$gateway')", $mock);
	my $after = drained($gateway, $mock);
	grant_many($other_gateway, 500);
	wait_for('another gateway is served meanwhile', sub { return count($other) == 500 });
	is(count($mock), $after, 'and this one is not');
	is(sql("SELECT paused_by || '|' || (paused_since IS NOT NULL) FROM quota_manager.delivery_status WHERE gateway = '$gateway'"), sql('SELECT current_user') . '|true',
		'delivery_status says so');
	ask_session($operator, "SELECT quota_manager.unpause_gateway('$gateway')");
	wait_until($node, "SELECT count(*) = 4000 FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = 'completed'");
	is(delivered_once($node, $gateway, $mock, 'worker'), 4000, 'all have arrived');
};

subtest 'a strategy is paused while a worker sends' => sub {
	my ($gateway, $mock) = slow_gateway(10);

	two_strategies($gateway, 800);
	check_strategy_pause($gateway, $mock, 800, sub { $_[0]->() }, sub {
		wait_until($node, "SELECT count(*) = 1600 FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = 'completed'");
	});
};

subtest 'an edit pauses a strategy, too, and archiving it sends what is pending' => sub {
	my ($gateway, $mock) = slow_gateway(10);

	two_strategies($gateway, 800);
	wait_more($mock, 50);
	ask_session($operator, "UPDATE quota_manager.quota_strategy SET enabled = false WHERE name = '$gateway-a'");
	my $at_commit = applied_of($mock, 1);
	wait_for('the other strategy is served', sub { return applied_of($mock, 2) == 800 });
	cmp_ok(applied_of($mock, 1) - $at_commit, '<=', $connections, 'only what was in flight has arrived since');
	is(sql("SELECT paused_by || '|' || cause FROM quota_manager.pauses WHERE name = '$gateway-a' AND until IS NULL"), sql('SELECT current_user') . '|operator', 'who did it is kept');
	ask_session($operator, "UPDATE quota_manager.quota_strategy SET archived = true WHERE name = '$gateway-a'");
	wait_for('its grants are sent', sub { return applied_of($mock, 1) == 800 });
	is(sql("SELECT end_why FROM quota_manager.pauses WHERE name = '$gateway-a' AND until IS NOT NULL"), 'archived', 'the pause has ended');
};

subtest 'everything is paused, and the server is killed' => sub {
	my ($gateway, $mock) = slow_gateway(500, doubt_policy => 'resend');

	$mock->honour_idempotency(1);
	grant_many($gateway, 600);
	wait_until($node, "SELECT count(*) > $connections FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = 'processing'");
	my ($at_commit) = pause('SELECT quota_manager.pause_all()', $mock);
	end_session($operator);
	my $log = -s $node->logfile;
	kill 'KILL', sql("SELECT pid FROM quota_manager.worker_status WHERE kind = 'courier'");
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
	wait_until($node, 'SELECT true');
	$operator = begin_session($node);
	$mock->clear_faults;
	wait_until($node, "SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = 'processing'");
	my $sent = count($mock);

	cmp_ok($sent - $at_commit, '<=', $connections, 'only what was in flight has arrived since');
	$node->restart;
	end_session($operator);
	$operator = begin_session($node);
	wait_until($node, "SELECT count(*) = 1 FROM quota_manager.worker_status WHERE kind = 'courier' AND state = 'idle'");
	is(count($mock), $sent, 'nothing is sent after a restart');
	ask_session($operator, 'SELECT quota_manager.unpause_all()');
	wait_until($node, "SELECT count(*) = 600 FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = 'completed'");
	is(delivered_once($node, $gateway, $mock, 'killed worker'), 600, 'all have arrived, once');
};

subtest 'a paused gateway gets no health checks' => sub {
	my @gateways = map { [ slow_gateway(0) ] } 1 .. 2;

	foreach my $gateway (@gateways)
	{
		$gateway->[1]->fault(kind => 'status', status => 503, count => 0);
		grant_many($gateway->[0], 100);
	}
	foreach my $gateway (@gateways)
	{
		wait_until($node, "SELECT state = 'closed' FROM quota_manager.quota_gateway WHERE name = '$gateway->[0]'");
	}
	pause("SELECT quota_manager.pause_gateway('$gateways[0][0]')");
	drained(@{ $gateways[0] });
	my $before = $gateways[0][1]->stats->{requests};
	my $other = $gateways[1][1]->stats->{requests};
	wait_for('the other one is checked', sub { return $gateways[1][1]->stats->{requests} > $other + 4 });
	cmp_ok($gateways[0][1]->stats->{requests} - $before, '<=', 1, 'it is left alone');
	$_->[1]->clear_faults foreach @gateways;
	wait_until($node, "SELECT count(*) = 100 FROM quota_manager.quota_execute WHERE gateway = '$gateways[1][0]' AND status IN ('completed', 'in_doubt')");
	ask_session($operator, "SELECT quota_manager.unpause_gateway('$gateways[0][0]')");
	wait_until($node, "SELECT count(*) = 100 FROM quota_manager.quota_execute WHERE gateway = '$gateways[0][0]' AND status IN ('completed', 'in_doubt')");
	pass('it is served again');
};

end_session($operator);
done_testing();
