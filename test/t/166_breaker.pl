
# The breaker: a run that would grant far more than usual stands still until an operator lets it run, whoever runs it;
# what was let through is what later runs are compared with.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use QuotaTest::ScanNode qw(scan_node add_gateway);
use QuotaTest::Wait qw(wait_until);
use QuotaTest::Workers;
use Test::More;

my $node = scan_node('breaker', "quota_manager.surge_minimum = 10\n");
my $users = 0;

sub sql { return $node->safe_psql('postgres', join ";\n", @_); }
sub scan { my ($name, $clock) = @_; return sql(($clock ? "SET quota_manager.schedule_clock = '$clock'" : ()), "SELECT granted, coalesce(error, '') FROM quota_manager.scan('$name')"); }
sub held { return sql('SELECT s.name, p.would_grant FROM quota_manager.quota_pause p JOIN quota_manager.quota_strategy s ON s.id = p.strategy_id WHERE p.end_time IS NULL ORDER BY 1'); }
sub release { my ($name) = @_; sql("SELECT quota_manager.unpause_strategy('$name', 'as it should be')"); return; }

# So many users more, of an organisation.
sub add_users
{
	my ($count, $org) = @_;

	sql("INSERT INTO quota_manager.user_info (id, org) SELECT 'user' || i, '$org' FROM generate_series($users + 1, $users + $count) i");
	$users += $count;
	return;
}

sub strategy
{
	my ($name, %column) = @_;

	QuotaTest::Workers::strategy($node, 'postgres', name => $name, condition => "belong-to(\"$name\")", %column);
	return;
}

add_gateway($node, 'postgres');

subtest 'a first run, and usual ones' => sub {
	add_users(100, 'usual');
	strategy('usual');
	is(scan('usual'), '100|', 'a first run has nothing to be compared with');
	add_users(1000, 'usual');
	is(scan('usual'), '1000|', 'ten times as many are usual');
	add_users(9, 'small');
	strategy('small');
	is(scan('small'), '9|', 'a small one');
	add_users(90, 'small');
	is(scan('small'), '90|', 'ten times as many');
	strategy('tiny');
	add_users(1, 'tiny');
	is(scan('tiny'), '1|', 'a tiny one');
	add_users(10, 'tiny');
	is(scan('tiny'), '10|', 'surge_minimum is always usual');
	is(held(), '', 'nothing is held');
};

subtest 'an edited condition' => sub {
	strategy('edited');
	add_users(5, 'edited');
	is(scan('edited'), '5|', 'as usual');
	sql(q{UPDATE quota_manager.quota_strategy SET condition = 'true()' WHERE name = 'edited'});
	like(scan('edited'), qr/^0\|stopped by the breaker: \d+ would be granted, usual are at most 50; /, 'stands still');
	is(held(), 'edited|' . ($users - 5), 'it is known how many it was about');
	is(sql(q{SELECT count(*) FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name = 'edited'}), 5, 'nothing was granted');
	is(sql(q{SELECT r.state, r.granted, r.amount, r.matched, r.run_id = r.id FROM (SELECT r.*, p.run_id FROM quota_manager.quota_run r JOIN quota_manager.quota_pause p ON p.run_id = r.id
		WHERE p.end_time IS NULL) r}), "failed|0|0|$users|t", 'its run is recorded');
	is(sql(q{SELECT state, reason ~ 'breaker' FROM quota_manager.strategy_due WHERE name = 'edited'}), 'paused|t', 'strategy_due says so');
	like(scan('edited'), qr/^0\|/, 'a scan by hand grants nothing either');
	is(sql('SELECT count(*) FROM quota_manager.scan() WHERE strategy = \'edited\''), 0, 'nor does a scan of all');
	sql(q{UPDATE quota_manager.quota_strategy SET condition = 'belong-to("edited")' WHERE name = 'edited'});
	is(sql(q{SELECT state FROM quota_manager.strategy_due WHERE name = 'edited'}), 'paused', 'an edit does not release it');
	release('edited');
	add_users(50, 'edited');
	is(scan('edited'), '50|', 'as usual again');
	is(held(), '', 'nothing is held');
};

subtest 'a run in parts' => sub {
	my $balance = sub { my ($from, $to) = @_; sql("INSERT INTO quota_manager.user_balance (user_id, gateway, balance)
		SELECT u.id, 'gateway', 1 FROM quota_manager.user_info u WHERE u.org = 'parts' ORDER BY u.id OFFSET $from LIMIT $to - $from
		ON CONFLICT (user_id, gateway) DO UPDATE SET balance = 1, read_time = now()"); };

	strategy('parts', allowance => 'top_up');
	add_users(400, 'parts');
	$balance->(0, 3);
	is(scan('parts'), '3|', 'some balances were read');
	$balance->(3, 399);
	is(scan('parts'), '396|', 'the rest is of the same run');
	is(sql(q{SELECT count(*) FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name = 'parts' AND r.state = 'done'}), 0, 'which was not done yet');
	$balance->(399, 400);
	is(scan('parts'), '1|', 'now it is');
	add_users(3970, 'parts');
	$balance->(400, 4000);
	is(scan('parts'), '3600|', 'up to ten times of the largest part');
	$balance->(4000, 4361);
	like(scan('parts'), qr/^0\|stopped by the breaker: 3961 would be granted, usual are at most 3960; /, 'parts are added up');
	release('parts');
	is(scan('parts'), '361|', 'and compared with what is released');
};

subtest 'a run in small parts' => sub {
	my $balance = sub { my ($from) = @_; sql("INSERT INTO quota_manager.user_balance (user_id, gateway, balance)
		SELECT u.id, 'gateway', 1 FROM quota_manager.user_info u WHERE u.org = 'little' ORDER BY u.id OFFSET $from LIMIT 8
		ON CONFLICT (user_id, gateway) DO UPDATE SET balance = 1, read_time = now()"); };
	my $names = 0;

	for my $kind ('single', 'periodic')
	{
		my $clock = sub { my ($time) = @_; return $kind eq 'periodic' ? "2026-01-01 $time+00" : undef; };

		sql("DELETE FROM quota_manager.user_info WHERE org = 'little'", 'DELETE FROM quota_manager.user_balance');
		add_users(1, 'little');
		$balance->(0);
		sql(q{SET quota_manager.schedule_clock = '2026-01-01 07:30:00+00'}, "INSERT INTO quota_manager.quota_strategy (name, type, periodic_expr, amount, model, condition)
			VALUES ('little $kind', '$kind', " . ($kind eq 'periodic' ? q{'0 * * * *'} : 'NULL') . q{, 5, 'm', 'and(belong-to("little"), quota-le("m", 1))')});
		is(scan("little $kind", $clock->('08:00:00')), '1|', "$kind: as usual");
		add_users(39, 'little');
		$balance->(1);
		is(scan("little $kind", $clock->('09:00:00')), '8|', 'a part that is not much');
		$balance->(9);
		like(scan("little $kind", $clock->('09:10:00')), qr/^0\|stopped by the breaker: 16 would be granted, usual are at most 10; /, 'is added to the one before');
	}
	sql("DELETE FROM quota_manager.user_info WHERE org = 'little'");
};

subtest 'an edit is the cure' => sub {
	strategy('cured');
	add_users(1, 'cured');
	is(scan('cured'), '1|', 'as usual');
	sql(q{UPDATE quota_manager.quota_strategy SET condition = 'true()' WHERE name = 'cured'});
	like(scan('cured'), qr/^0\|stopped/, 'stands still');
	sql(q{UPDATE quota_manager.quota_strategy SET condition = 'belong-to("cured")' WHERE name = 'cured'});
	release('cured');
	add_users(11, 'cured');
	like(scan('cured'), qr/^0\|stopped by the breaker: 11 would be granted, usual are at most 10; /, 'what was not let through is not usual');
	release('cured');
	is(scan('cured'), '11|', 'what was let through is granted');
	sql(q{UPDATE quota_manager.quota_strategy SET condition = 'true()' WHERE name = 'cured'});
	like(scan('cured'), qr/^0\|stopped by the breaker: \d+ would be granted, usual are at most 110; /, 'the same mistake again stands still again');
	sql(q{UPDATE quota_manager.quota_strategy SET state = 'archived' WHERE name = 'cured'});
};

subtest 'archived and active again' => sub {
	strategy('back');
	add_users(1, 'back');
	is(scan('back'), '1|', 'as usual');
	add_users(11, 'back');
	foreach my $released (0, 1)
	{
		like(scan('back'), qr/^0\|stopped by the breaker: 11 would be granted, usual are at most 10; /, 'stands still');
		release('back') if $released;
		sql(q{UPDATE quota_manager.quota_strategy SET state = 'archived' WHERE name = 'back'});
		unlike(held(), qr{^back}m, 'one that is archived is not held');
		sql(q{UPDATE quota_manager.quota_strategy SET state = 'active' WHERE name = 'back'});
		is(sql(q{SELECT state FROM quota_manager.strategy_due WHERE name = 'back'}), 'due', 'it is run again');
	}
	like(scan('back'), qr/^0\|stopped by the breaker: 11 would be granted, usual are at most 10; /, 'nobody had let it through');
	release('back');
	is(scan('back'), '11|', 'until it is released');
};

subtest 'what is released' => sub {
	strategy('released');
	add_users(3, 'released');
	is(scan('released'), '3|', 'as usual');
	add_users(100, 'released');
	like(scan('released'), qr/^0\|stopped/, 'stands still');
	release('released');
	add_users(11, 'released');
	like(scan('released'), qr/^0\|stopped by the breaker: 111 would be granted, usual are at most 110; /, 'more than a tenth more stands still again');
	release('released');
	add_users(11, 'released');
	is(scan('released'), '122|', 'a tenth more goes through');
	add_users(1220, 'released');
	is(scan('released'), '1220|', 'later ones are compared with it');
	sql(q{SELECT pg_reload_conf()});
	add_users(12201, 'released');
	like(scan('released'), qr/^0\|stopped/, 'and so on');
	is(sql(q{SET quota_manager.surge_factor = 0; SELECT (quota_internal.surge_limit(id, 0)).usual FROM quota_manager.quota_strategy WHERE name = 'released'}), '', '0: it is off');
	release('released');
	is(scan('released'), '12201|', 'released');
};

subtest 'a periodic one' => sub {
	add_users(4, 'periodic');
	sql(q{SET quota_manager.schedule_clock = '2026-01-01 07:30:00+00'; INSERT INTO quota_manager.quota_strategy (name, type, periodic_expr, amount, model, condition)
		VALUES ('periodic', 'periodic', '0 * * * *', 5, 'm', 'belong-to("periodic")')});
	is(scan('periodic', '2026-01-01 08:00:00+00'), '4|', 'as usual');
	add_users(37, 'periodic');
	like(scan('periodic', '2026-01-01 09:00:00+00'), qr/^0\|stopped/, 'stands still');
	like(scan('periodic', '2026-01-01 10:00:00+00'), qr/^0\|/, 'later firings too');
	release('periodic');
	is(scan('periodic', '2026-01-01 10:30:00+00'), '41|', 'the latest is caught up with');
	is(sql(q{SELECT string_agg(extract(hour FROM r.scheduled_time AT TIME ZONE 'UTC') || ' ' || r.state || ' ' || r.granted, ', ' ORDER BY r.scheduled_time) FROM quota_manager.quota_run r
		JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name = 'periodic'}), '8 done 4, 9 failed 0, 10 done 41', 'each firing is recorded');
	is(scan('periodic', '2026-01-01 11:00:00+00'), '41|', 'and so on');
};
$node->stop;

subtest 'workers' => sub {
	my $gateway = QuotaTest::Workers::gateway();

	$node = QuotaTest::Workers::cluster('breaker_workers', preload => 1, settings => "quota_manager.surge_minimum = 10\n");
	QuotaTest::Workers::database($node, 'postgres', $gateway);
	$users = 0;
	add_users(2, 'worked');
	strategy('worked');
	QuotaTest::Workers::await_grants($node, 'postgres', 'worked', 2);
	sql(q{UPDATE quota_manager.quota_strategy SET condition = 'true()'}, q{INSERT INTO quota_manager.user_info (id) SELECT 'more' || i FROM generate_series(1, 30) i});
	wait_until($node, 'SELECT count(*) = 1 FROM quota_manager.quota_pause WHERE end_time IS NULL');
	is(held(), 'worked|30', 'it stands still');
	my $tries = sql('SELECT sum(occurrences) FROM quota_manager.quota_run');
	strategy('other', condition => 'match-user("more1")');
	QuotaTest::Workers::await_grants($node, 'postgres', 'other', 1);
	is(sql(q{SELECT sum(occurrences) - 1 FROM quota_manager.quota_run}), $tries, 'and is not tried while others are');
	release('worked');
	QuotaTest::Workers::await_grants($node, 'postgres', 'worked', 32);
	pass('released, it runs at once');
	wait_until($node, q{SELECT count(*) = 33 FROM quota_manager.quota_execute WHERE status = 'completed'});
	is(scalar $gateway->applied, 33, 'and is delivered');
	$node->stop;
};

done_testing();
