# Firings of a strategy are run one by one, each in a transaction of its own, and others run between them,
# however many are to be made up for. A run that is recorded for a time to come stops nothing.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('apart', preload => 1, settings => 'max_worker_processes = 8');

QuotaTest::Workers::set($node, 'quota_manager.workers', 'off');
QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', 1);

# As a restored row, so that firings from before it was written are due: one each second for some time.
sub late_strategy
{
	my ($name, $seconds, $most) = @_;

	return qq{INSERT INTO quota_manager.quota_strategy
			(name, type, amount, model, periodic_expr, condition, catch_up, catch_up_window, catch_up_max, version, schedule_since)
		VALUES ('$name', 'periodic', 1, 'm', '* * * * * *', 'true()', 'all', '1 year', $most, 1, clock_timestamp() - interval '$seconds s')};
}

my $runs = q{FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id};
# A grant has the time of its transaction; there is one user.
my $apart = q{SELECT count(*) >= 200, count(*) = count(DISTINCT e.create_time) FROM quota_manager.quota_execute e
	JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name =};

# tick()
$node->safe_psql('postgres', late_strategy('ticked', 200, 10000));
$node->safe_psql('postgres', 'CALL quota_manager.tick()');
is($node->safe_psql('postgres', qq{$apart 'ticked'}), 't|t', 'tick() runs all that is due, each firing in a transaction of its own');
$node->safe_psql('postgres', q{UPDATE quota_manager.quota_strategy SET enabled = false WHERE name = 'ticked'});

# scan() is a function: what it does is one transaction, its caller's.
$node->safe_psql('postgres', late_strategy('scanned', 200, 10000));
$node->safe_psql('postgres', q{SELECT quota_manager.scan('scanned')});
is( $node->safe_psql('postgres', qq{SELECT min(e.create_time) = max(e.create_time) FROM quota_manager.quota_execute e
		JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name = 'scanned'}), 't', 'scan() is one transaction');
$node->safe_psql('postgres', q{UPDATE quota_manager.quota_strategy SET enabled = false WHERE name = 'scanned'});

subtest 'the scheduler: who comes later does not wait for a strategy that has much to make up for' => sub {
	QuotaTest::Workers::set($node, 'quota_manager.workers', 'on');
	QuotaTest::Workers::await_worker($node, 'postgres', 'scheduler');
	$node->safe_psql('postgres', late_strategy('behind', 20000, 10000));
	QuotaTest::Workers::await($node, 'postgres', qq{SELECT count(*) > 0 $runs WHERE r.state = 'done' AND s.name = 'behind'});
	QuotaTest::Workers::strategy($node, 'postgres', name => 'beside');
	QuotaTest::Workers::await($node, 'postgres', qq{SELECT count(*) > 0 $runs WHERE r.state = 'done' AND s.name = 'beside'});
	cmp_ok($node->safe_psql('postgres', qq{SELECT count(*) $runs WHERE r.state = 'done' AND s.name = 'behind'}), '<', 10000, 'others are run between its firings');
	QuotaTest::Workers::await($node, 'postgres', qq{SELECT count(*) >= 200 $runs WHERE r.state = 'done' AND s.name = 'behind'});
	is($node->safe_psql('postgres', qq{$apart 'behind'}), 't|t', 'each in a transaction of its own');
	$node->safe_psql('postgres', q{SET statement_timeout = '30s'; UPDATE quota_manager.quota_strategy SET enabled = false WHERE name = 'behind'});
	my $count = $node->safe_psql('postgres', qq{SELECT count(*) $runs WHERE r.state = 'done' AND s.name = 'behind'});
	QuotaTest::Workers::strategy($node, 'postgres', name => 'after');
	QuotaTest::Workers::await($node, 'postgres', qq{SELECT count(*) > 0 $runs WHERE r.state = 'done' AND s.name = 'after'});
	is($node->safe_psql('postgres', qq{SELECT count(*) $runs WHERE r.state = 'done' AND s.name = 'behind'}), $count, 'it can be disabled in the middle');
};

# There is a bound, also for rows that are restored.
my (undef, undef, $err) = $node->psql('postgres', late_strategy('too many', 10, 10001));
like($err, qr/catch_up_max of strategy "too many" must be between 1 and 10000/, 'catch_up_max has a bound');

subtest 'runs of times to come' => sub {
	$node->safe_psql('postgres', q{
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('alive', 'periodic', 1, 'm', '* * * * * *', 'true()');
		INSERT INTO quota_manager.quota_run (strategy_id, strategy_version, scheduled_time, state, start_time, finish_time)
			SELECT s.id, 1, '9999-01-01 00:00:00+00', 'done', '9999-01-01 00:00:00+00', '9999-01-01 00:00:00+00' FROM quota_manager.quota_strategy s WHERE s.name = 'alive'});
	QuotaTest::Workers::await($node, 'postgres', qq{SELECT count(*) >= 3 $runs WHERE s.name = 'alive' AND r.state = 'done' AND r.scheduled_time < clock_timestamp()});
	pass('a run that is recorded for the year 9999 stops no firing before it');
	is($node->safe_psql('postgres', q{SELECT DISTINCT reason FROM quota_manager.strategy_due WHERE name = 'alive' AND state = 'scheduled'}),
		'firings after the schedule clock are recorded already: see restart_schedule()', 'and strategy_due says that there is one');
};

$node->stop;
done_testing();
