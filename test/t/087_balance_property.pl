
# Whoever is granted something met the condition by the true balance, with
# everything granted before: whatever the strategies, gateways, workers, jobs
# and operators do.  QUOTA_MANAGER_LONG=1: ten minutes, and 5,000 users.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway deliver deliver_all begin_call end_call);
use QuotaTest::Mock;
use QuotaTest::Seed;
use QuotaTest::Wait qw(becomes_true);
use Test::More;
use Time::HiRes qw(time);

my $long = $ENV{QUOTA_MANAGER_LONG};
QuotaTest::Seed::start(87);
my $node = delivery_node('balance_property', <<'CONF');
shared_preload_libraries = 'quota_manager'
quota_manager.worker_role = 'quota_worker'
quota_manager.poll_interval = 100ms
quota_manager.retry_base = 10ms
quota_manager.retry_max = 50ms
quota_manager.linger = 1s
CONF
my %mock = map { $_ => QuotaTest::Mock->start(dialect => 'zgsm', key => $_, lifetime => 7200) } qw(a b);
my $users = 30;

sub sql { return $node->safe_psql('postgres', join '; ', @_); }
sub pick { return $_[ rand @_ ]; }

add_gateway($node, $_, $mock{$_}, is_default => $_ eq 'a' ? 'true' : 'false', request_timeout => '2 s') foreach qw(a b);
sql(
	q{INSERT INTO quota_manager.quota_model VALUES ('a', 'a'), ('b', 'b')},
	"INSERT INTO quota_manager.user_info (id, vip) SELECT 'user' || n, n % 3 FROM generate_series(1, $users) n",
	'CREATE TABLE quota_test.first_balance (user_id text, gateway text, balance numeric)',
	'CREATE TABLE quota_test.lost (user_id text, gateway text)',
	# What a strategy asks: vip and below, vip or below, not below; null: nothing.
	'CREATE TABLE quota_test.asks (name text, kind text, gateway text, most numeric)');
foreach my $gateway (qw(a b))
{
	foreach my $n (1 .. $users)
	{
		my $balance = int rand 40;

		$mock{$gateway}->set_balance("user$n", quota => $balance);
		sql("INSERT INTO quota_test.first_balance VALUES ('user$n', '$gateway', $balance)");
	}
}

my %condition = (
	below => 'quota-le("%s", %d)',
	both => 'and(is-vip(1), quota-le("%s", %d))',
	either => 'or(is-vip(2), quota-le("%s", %d))',
	above => 'not(quota-le("%s", %d))',
	vip => 'is-vip(2)');
my $strategies = 0;

sub add_strategy
{
	my ($kind) = @_;
	my ($gateway, $most, $name) = (pick(qw(a a b)), 5 * (1 + int rand 20), 's' . ++$strategies);
	my $condition = $kind eq 'vip' ? $condition{vip} : sprintf($condition{$kind}, $gateway, $most);
	my $schedule = pick('* * * * * *', '*/2 * * * * *', '*/3 * * * * *');
	my $catch_up = pick(qw(none latest all));

	sql("INSERT INTO quota_test.asks VALUES ('$name', '$kind', '$gateway', $most)",
		sprintf q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, periodic_expr, catch_up) VALUES ('%s', 'periodic', %d, '%s', $$%s$$, '%s', '%s')},
		$name, 1 + int rand 10, pick($gateway, $gateway, 'b'), $condition, $schedule, $catch_up);
	return;
}

subtest 'grants that were written although the condition was not met, by everything that was granted or changed before' => sub {
	my $wrong = q{
		SELECT coalesce(string_agg(format('%s grant %s of %s: %s at %s', w.kind, w.id, w.user_id, w.had, w.gateway), '; '), '') FROM (
			SELECT e.id, e.user_id, u.vip, a.kind, a.most, a.gateway,
				(SELECT f.balance FROM quota_test.first_balance f WHERE f.user_id = e.user_id AND f.gateway = a.gateway)
				+ coalesce((SELECT sum(p.amount) FROM quota_manager.quota_execute p
					WHERE p.user_id = e.user_id AND p.gateway = a.gateway AND p.id < e.id AND p.status NOT IN ('failed', 'cancelled')), 0)
				+ coalesce((SELECT sum(c.amount) FROM quota_manager.gateway_call c
					WHERE c.user_id = e.user_id AND c.gateway = a.gateway AND c.action = 'delta' AND c.call_time < e.create_time), 0) AS had
			FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
			JOIN quota_test.asks a ON a.name = s.name JOIN quota_manager.user_info u ON u.id = e.user_id) w
		WHERE CASE w.kind WHEN 'below' THEN w.had > w.most WHEN 'both' THEN w.had > w.most OR w.vip < 1
			WHEN 'either' THEN w.had > w.most AND w.vip < 2 WHEN 'above' THEN w.had <= w.most AND NOT EXISTS (SELECT FROM quota_test.lost l WHERE l.user_id = w.user_id AND l.gateway = w.gateway) ELSE w.vip < 2 END};

	add_strategy($_) foreach qw(below below both either above vip);
	sql('CREATE ROLE quota_worker LOGIN', q{SELECT quota_manager.grant_access('quota_worker', 'worker')});
	my $end = time + ($long ? 600 : 10);
	while (time < $end)
	{
		my $gateway = pick(qw(a b));
		my $user = 'user' . (1 + int rand $users);
		my @calls;

		# Jobs beside the workers.
		push @calls, begin_call($node, pick('CALL quota_manager.tick()', 'CALL quota_manager.deliver()', 'SELECT FROM quota_manager.scan()')) foreach 1 .. 2;
		if (rand() < 0.4)
		{
			$mock{$gateway}->clear_faults;
			$mock{$gateway}->fault(kind => 'status', status => 429, match => 'grant', count => 20) if rand() < 0.4;
			$mock{$gateway}->fault(kind => 'slow', match => 'query', count => 40, delay_ms => 300) if rand() < 0.5;
			$mock{$gateway}->fault(kind => 'status', status => 503, match => 'query', count => 5) if rand() < 0.3;
			$mock{$gateway}->fault(kind => 'apply_close', match => 'grant', count => 1) if rand() < 0.3;
		}
		sql("UPDATE quota_manager.quota_gateway SET rate_limit = " . pick(10, 40, 'NULL') . " WHERE name = '$gateway'") if rand() < 0.3;
		my ($status, $out, $err) = $node->psql('postgres', pick("SELECT quota_manager.gateway_query('$user', '$gateway')", "SELECT quota_manager.gateway_delta('$user', 7, 'more', '$gateway')"));
		# It may have been applied.
		sql("INSERT INTO quota_test.lost VALUES ('$user', '$gateway')") if $err =~ /nobody can tell/;
		sql(q{SELECT quota_manager.resolve(array_agg(e.id), true) FROM quota_manager.quota_execute e WHERE e.status = 'in_doubt' AND e.next_attempt_time = 'infinity'}) if rand() < 0.2;
		add_strategy(pick(keys %condition)) if rand() < 0.1;
		sql("UPDATE quota_manager.quota_strategy SET enabled = NOT enabled WHERE name = 's" . (1 + int rand $strategies) . "'") if rand() < 0.2;
		end_call($_) foreach @calls;
	}
	is(sql($wrong), '', 'who is granted something meets the condition by what was true');
	cmp_ok(sql('SELECT count(*) FROM quota_manager.quota_execute e'), '>', 2 * $users, 'and many are');
};

subtest 'when nothing else happens, everybody gets what is due' => sub {
	$_->clear_faults foreach values %mock;
	sql(q{UPDATE quota_manager.quota_strategy SET state = 'archived'}, 'UPDATE quota_manager.quota_gateway SET rate_limit = NULL',
		q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('last', 'single', 1, 'a', 'quota-le("a", 1000000)')});
	ok( becomes_true($node, "SELECT count(*) = $users FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
			WHERE s.name = 'last' AND e.status = 'completed'"),
		'everybody gets what is due when their balance is known');
	sql('ALTER SYSTEM SET quota_manager.workers = off', 'SELECT pg_reload_conf()');
	ok(becomes_true($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type ~ 'quota_manager (courier|scheduler)'}), 'the workers end');
};

my $mock;
subtest 'jobs each minute, a gateway that takes 60 requests a second and often asks to come back later, five hours to be caught up' => sub {
	my $many = $long ? 5000 : 120;
	$mock = QuotaTest::Mock->start(dialect => 'zgsm', key => 'c', lifetime => 7200);
	add_gateway($node, 'c', $mock, rate_limit => 60);
	sql(q{INSERT INTO quota_manager.quota_model VALUES ('c', 'c')}, 'DELETE FROM quota_manager.user_info', "INSERT INTO quota_manager.user_info (id) SELECT 'many' || n FROM generate_series(1, $many) n",
		q{SET quota_manager.schedule_clock = '2025-07-01 03:00:00+00'},
		q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, periodic_expr, catch_up) VALUES ('hourly', 'periodic', 25, 'c', 'quota-le("c", 10)', '0 * * * *', 'all')});
	$mock->set_balance("many$_", quota => $_ % 20) foreach 1 .. $many;
	my $due = q{SELECT count(*) FROM quota_manager.quota_execute e WHERE e.gateway = 'c'};
	my $minute = 0;
	do
	{
		my $clock = sprintf q{SET quota_manager.schedule_clock = '2025-07-01 08:%02d:00+00'}, ++$minute;

		$mock->clear_faults;
		$mock->fault(kind => 'status', status => 429, match => $_, count => 1 + int rand 10) foreach grep { rand() < 0.5 } 'grant', 'query';
		sql('SELECT quota_internal.end_back_offs()', $clock, 'CALL quota_manager.tick()');
		deliver($node);
	} while ($minute < 59
		&& sql(q{SELECT count(*) > 0 FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name = 'hourly' AND r.state = 'incomplete'}) eq 't');
	$mock->clear_faults;
	ok(deliver_all($node, 'c'), "five hours caught up: all is delivered (in minute $minute)");
	is(sql(q{SELECT string_agg(r.state, ' ') FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name = 'hourly'}),
		'done done done done done', 'five hours caught up: each firing comes to its end');
	is(join(' ', grep { $mock->balance("many$_") != ($_ % 20 <= 10 ? 25 : 0) + $_ % 20 } 1 .. $many), '', 'five hours caught up: each has what the rule says');
};

$node->stop;
done_testing();
