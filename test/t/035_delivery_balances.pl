
# Balances that conditions need are read before the scan: each once, many at a
# time, and what cannot be read holds nothing up.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway deliver statuses begin_call end_call);
use QuotaTest::Mock;
use QuotaTest::Wait qw(happens);
use Test::More;
use Time::HiRes qw(time);

my $node = delivery_node('balances');
my $higress = QuotaTest::Mock->start(dialect => 'higress', key => 'one');
my $zgsm = QuotaTest::Mock->start(dialect => 'zgsm', key => 'two');

add_gateway($node, 'h', $higress, is_default => 'true', request_timeout => '300 ms');
add_gateway($node, 'z', $zgsm, request_timeout => '300 ms');
$node->safe_psql('postgres', q{
	INSERT INTO quota_manager.quota_model VALUES ('zm', 'z');
	INSERT INTO quota_manager.user_info (id) SELECT 'user' || n FROM generate_series(1, 400) n;
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)
		VALUES ('refill', 'single', 5, 'hm', 'or(quota-le("hm", 10), quota-le("zm", 2.5))')});
$higress->set_balance("user$_", quota => 100) foreach 1 .. 390;
$zgsm->set_balance("user$_", quota => 10, used => $_ <= 20 ? 8 : 1) foreach 1 .. 400;
# more digits than can be read
my $unreadable = '1000000000000000000';
$zgsm->set_balance('user50', quota => $unreadable);

# A single strategy is due when it was edited, whenever its last scan was.
sub tick
{
	my ($settings) = @_;

	$node->safe_psql('postgres', 'UPDATE quota_manager.quota_strategy SET title = title');
	return $node->safe_psql('postgres', ($settings // '') . ' CALL quota_manager.tick()');
}

# How many queries a gateway answered.
sub queries
{
	my ($mock) = @_;

	return $mock->requests('query')->{200} // 0;
}

$higress->fault(kind => 'slow', match => 'query', count => 100000, delay_ms => 5);
my $start = time;
is(tick(), '1|30', 'tick() reads balances and scans');
cmp_ok(time - $start, '<', 400 * 0.005, 'many balances are read at a time');
$higress->clear_faults;
is(queries($higress), 400, 'higress: each user was asked about once');
is( $node->safe_psql('postgres', q{
		SELECT gateway, count(*), min(balance), max(balance), bool_and(read_time > now() - interval '1 min')
		FROM quota_manager.user_balance WHERE balance IS NOT NULL GROUP BY 1 ORDER BY 1}),
	"h|370|100|100|t\nz|399|2|9|t", 'what was read is written down, and known no more of those who are granted something there');
is( $node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.user_balance WHERE user_id = 'user50' AND gateway = 'z' AND balance IS NOT NULL}),
	0, 'what was not answered is not');

subtest 'a gateway that is down or hangs does not hold up the other for long' => sub {
	foreach my $kind ('hang', 'status')
	{
		$node->safe_psql('postgres', 'DELETE FROM quota_manager.user_balance');
		$zgsm->fault(kind => $kind, match => 'query', count => 100000);
		$start = time;
		tick();
		cmp_ok(time - $start, '<', 5, "$kind: a gateway that does not answer is given up soon");
		is( $node->safe_psql('postgres', 'SELECT gateway, count(*) FROM quota_manager.user_balance WHERE balance IS NOT NULL GROUP BY 1'),
			'h|370', "$kind: the other one is read, for those who have no grant yet");
		$zgsm->clear_faults;
	}
	$zgsm->stop;
	$node->safe_psql('postgres', 'DELETE FROM quota_manager.user_balance');
	tick();
	is( $node->safe_psql('postgres', 'SELECT gateway, count(*) FROM quota_manager.user_balance WHERE balance IS NOT NULL GROUP BY 1'),
		'h|370', 'down: likewise');
};

# Starts over with some users and strategies: name => { column => value, ... }.
sub start_over
{
	my ($users, %strategy) = @_;

	$node->safe_psql('postgres', qq{
		TRUNCATE quota_manager.quota_execute, quota_manager.quota_run, quota_manager.user_balance;
		DELETE FROM quota_manager.quota_strategy;
		DELETE FROM quota_manager.user_info;
		INSERT INTO quota_manager.user_info (id, vip) $users});
	foreach my $name (sort keys %strategy)
	{
		my %column = (type => 'single', amount => 5, model => 'hm', %{ $strategy{$name} });

		$node->safe_psql('postgres', sprintf 'INSERT INTO quota_manager.quota_strategy (name, %s) VALUES ($$%s$$, %s)',
			join(', ', sort keys %column), $name, join(', ', map { "\$\$$column{$_}\$\$" } sort keys %column));
	}
	$higress->reset;
	$zgsm->reset;
	return;
}

# The users whose balance was read, of a gateway.
sub asked_about
{
	my ($gateway) = @_;

	return $node->safe_psql('postgres', qq{
		SELECT coalesce(string_agg(user_id, ' ' ORDER BY user_id), '') FROM quota_manager.user_balance WHERE gateway = '$gateway'});
}

# State, unknown balances and reason of the last run of a strategy.
sub last_run
{
	my ($name) = @_;

	return $node->safe_psql('postgres', qq{
		SELECT r.state, r.granted, r.unknown_balance, r.reason FROM quota_manager.quota_run r
		JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name = '$name' ORDER BY r.id DESC LIMIT 1});
}

my $levels;
subtest 'only those are asked about whose answer depends on it' => sub {
	$levels = q{VALUES ('a', 0), ('b', 1), ('c', 2), ('d', 3)};
	$zgsm->restart;
	start_over($levels, strategy => { condition => 'and(is-vip(2), quota-le("hm", 10))' });
	is(tick() . ' ' . asked_about('h'), '1|2 c d', 'and: only those who meet the rest are asked about');
	start_over($levels, strategy => { condition => 'or(is-vip(2), quota-le("hm", -1))' });
	is(tick() . ' ' . asked_about('h'), '1|2 a b', 'or: only those who do not meet the rest are');
	start_over($levels, strategy => { condition => 'and(quota-le("hm", 10), not(quota-le("hm", 10)), is-vip(9))' });
	is(tick() . ' ' . asked_about('h'), '1|0 ', 'nobody is where no answer would help');
	start_over($levels, strategy => { condition => 'is-vip(1)' });
	is(tick() . ' ' . asked_about('h'), '1|3 ', 'nor where no balance is asked for');
	is(queries($higress), 0, 'and nothing is sent');

	start_over($levels, strategy => { condition => 'quota-le("hm", 10)' });
	tick();
	is(queries($higress), 4, 'everybody is asked about once,');
	$node->safe_psql('postgres', 'DELETE FROM quota_manager.user_balance');
	tick();
	is(queries($higress), 4, 'and nobody who has the grant');
	start_over($levels, strategy => { condition => 'quota-le("hm", 10)', type => 'periodic', periodic_expr => '0 8 * * *', max_exec_per_user => 1 });
	$node->safe_psql('postgres', q{
		INSERT INTO quota_manager.quota_execute (strategy_id, user_id, scheduled_time, run_id, strategy_version, status, amount, model, gateway, batch_number)
			SELECT id, 'a', '2025-06-30 08:00:00+00', NULL, 1, 'completed', 5, 'hm', 'h', '' FROM quota_manager.quota_strategy});
	is($node->safe_psql('postgres', q{SELECT string_agg(user_id, ' ' ORDER BY user_id) FROM quota_manager.undecided((SELECT id FROM quota_manager.quota_strategy))}),
		'b c d', 'nor who has had as many as there are to be had');
};

subtest 'once per user and gateway, however often and in however many strategies' => sub {
	start_over(
		$levels,
		one => { condition => 'or(quota-le("hm", -1), quota-le("other", -2), quota-le("zm", -1))' },
		two => { condition => 'quota-le("hm", -3)' },
		three => { condition => 'and(quota-le("third", 0), quota-le("zm", 0))', model => 'zm' });
	is(tick(), '3|4', 'several strategies ask for the same balances');
	is(queries($higress), 4, 'higress: they are read once');
	is(queries($zgsm), 4, 'zgsm: likewise');
};

subtest 'how old a balance may be is a setting' => sub {
	start_over($levels, strategy => { condition => 'quota-le("hm", -1)' });
	tick();
	$node->safe_psql('postgres', q{UPDATE quota_manager.user_balance SET read_time = now() - interval '4 min' WHERE user_id IN ('a', 'b')});
	tick();
	is(queries($higress), 4, 'a balance of four minutes is not asked for again,');
	$node->safe_psql('postgres', q{UPDATE quota_manager.user_balance SET read_time = now() - interval '6 min' WHERE user_id IN ('a', 'b')});
	tick();
	is(queries($higress), 6, 'one of six minutes is,');
	$node->safe_psql('postgres', q{UPDATE quota_manager.user_balance SET read_time = now() - interval '6 min'});
	is(tick(q{SET quota_manager.balance_max_age = '10 min';}) . ' ' . queries($higress), '1|0 6', 'unless the setting says otherwise');
	$node->safe_psql('postgres', q{UPDATE quota_manager.user_balance SET read_time = now() - interval '2 s'});
	is(tick(q{SET quota_manager.balance_max_age = '1 s';}) . ' ' . queries($higress), '1|0 10', 'either way');
	$higress->set_balance($_, quota => -5) foreach 'a' .. 'd';
	is(tick() . last_run('strategy'), '1|0done|0|0|', 'what has changed meanwhile is not seen,');
	$node->safe_psql('postgres', q{UPDATE quota_manager.user_balance SET read_time = now() - interval '6 min'});
	is(tick(), '1|4', 'and is when the balance is too old');
};

# Many at a time, at all gateways at once.
start_over("SELECT 'user' || n, 1 FROM generate_series(1, 100) n", strategy => { condition => 'or(quota-le("hm", -1), quota-le("zm", -1))' });
$node->safe_psql('postgres', q{UPDATE quota_manager.quota_gateway SET request_timeout = '1 min'});
$_->fault(kind => 'hang', match => 'query', count => 100000) foreach $higress, $zgsm;
my $call = begin_call($node, "SET application_name = 'asking'", 'CALL quota_manager.tick()');
my $open = sub { $higress->stats->{open_connections} >= 16 && $zgsm->stats->{open_connections} >= 16 };
ok(happens($open, 60), 'as many queries are sent at a time as connections are allowed, to all gateways at once');
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'asking'});
end_call($call);
$_->clear_faults foreach $higress, $zgsm;
$node->safe_psql('postgres', q{UPDATE quota_manager.quota_gateway SET request_timeout = '300 ms'});

subtest 'what could not be read is said, and paid once when it can be' => sub {
	foreach my $type ('single', 'periodic')
	{
		my $clock = q{SET quota_manager.schedule_clock = '2025-07-01 08:00:30+00';};

		start_over($levels, refill => { condition => 'quota-le("hm", 10)' }, other => { condition => 'is-vip(1)', model => 'zm' });
		$node->safe_psql('postgres', q{
			SET quota_manager.schedule_clock = '2025-07-01 07:30:00+00';
			UPDATE quota_manager.quota_strategy SET type = 'periodic', periodic_expr = '0 * * * *' WHERE name = 'refill'})
		  if $type eq 'periodic';
		$higress->fault(kind => 'status', status => 503, match => 'query', user => $_, count => 1000) foreach 'b', 'd';
		is(tick($clock), '2|5', "$type: those whose balance is known are paid");
		is(last_run('refill'), 'incomplete|2|2|some balances are not known', "$type: the others are reported");
		tick($clock);
		# A firing has one run; each scan of a single strategy that is not like the last has its own.
		is(last_run('refill'), ($type eq 'single' ? 'incomplete|0|2|' : 'incomplete|2|2|') . 'some balances are not known', "$type: as long as it lasts");
		$higress->clear_faults;
		$higress->set_balance('d', quota => 11);
		is(tick($clock), '2|1', "$type: when it is known, who is due is paid");
		is(last_run('refill'), $type eq 'single' ? 'done|1|0|' : 'done|3|0|', "$type: and the run is done");
		is(tick($clock) =~ s/.*\|//r, '0', "$type: nobody is paid again");
		is($node->safe_psql('postgres', q{
				SELECT string_agg(e.user_id, ' ' ORDER BY e.user_id) FROM quota_manager.quota_execute e
				JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name = 'refill'}),
			'a b c', "$type: each has one grant");
	}
};

subtest 'users whom the gateway cannot answer for are passed over, however many there are, and at whatever place' => sub {
	foreach my $kind ('an error', 'a pause', 'silence')
	{
		my $count = $kind eq 'silence' ? 20 : 60;

		start_over("SELECT 'a' || n, 1 FROM generate_series(1, $count) n UNION ALL SELECT 'b' || n, 1 FROM generate_series(1, 20) n",
			strategy => { condition => 'quota-le("zm", 10)', model => 'zm' });
		foreach my $n (1 .. $count)
		{
			$zgsm->set_balance("a$n", quota => $unreadable) if $kind eq 'an error';
			$zgsm->fault(kind => 'status', status => 429, match => 'query', user => "a$n", count => 10) if $kind eq 'a pause';
			$zgsm->fault(kind => 'hang', match => 'query', user => "a$n", count => 10) if $kind eq 'silence';
		}
		is(tick(), '1|20', "$kind: many users without an answer do not keep others from theirs");
		is(last_run('strategy'), "incomplete|20|$count|some balances are not known", "$kind: they are reported");
		$zgsm->clear_faults;
		$zgsm->set_balance("a$_", quota => 1) foreach 1 .. $count;
		is(tick(), "1|$count", "$kind: and paid later");
	}
};

$node->stop;
done_testing();
