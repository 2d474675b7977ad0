# Workers that have nothing to do cost next to nothing: a generous bound for a machine that is busy, which bench/idle
# measures properly.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time);

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('idle', preload => 1, settings => "quota_manager.poll_interval = 1s\nautovacuum = off");

QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', 100);
$node->safe_psql('postgres', q{
	INSERT INTO quota_manager.quota_gateway (name, dialect, base_url)
		SELECT 'idle ' || n, 'higress', 'http://127.0.0.1:1' FROM generate_series(1, 9) n;
	INSERT INTO quota_manager.quota_run (strategy_id, strategy_version, scheduled_time, state, start_time, finish_time)
		SELECT 1, 1, timestamptz '2025-01-01 00:00:00+00' + n * interval '1 hour', 'done', now(), now() FROM generate_series(1, 1000) n;
	INSERT INTO quota_manager.quota_strategy (name, type, periodic_expr, amount, model, condition)
		SELECT 'periodic ' || n, 'periodic', '0 0 29 2 *', 1, 'm', 'is-vip(9)' FROM generate_series(1, 50) n;
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)
		SELECT 'single ' || n, 'single', 1, 'm', 'is-vip(9)' FROM generate_series(1, 50) n});
QuotaTest::Workers::await($node, 'postgres',
	q{SELECT count(DISTINCT strategy_id) = 50 FROM quota_manager.quota_run WHERE scheduled_time IS NULL});
QuotaTest::Workers::await_worker($node, 'postgres', 'courier');

# Seconds of processor time that some processes have used.
sub processor_time
{
	my $nanoseconds = 0;

	$nanoseconds += (split / /, slurp_file("/proc/$_/schedstat"))[0] foreach @_;
	return $nanoseconds / 1e9;
}

# Percent of a core that the workers use while they look for work for four seconds and find none.
sub load
{
	my @pids = split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM quota_manager.worker_status WHERE pid IS NOT NULL');
	my $begin = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
	my $since = time;
	my $used = processor_time(@pids);

	is(scalar(@pids), 3, 'all workers run');
	QuotaTest::Workers::await($node, 'postgres',
		"SELECT min(last_tick) > '$begin'::timestamptz + interval '4 s' FROM quota_manager.worker_status WHERE kind <> 'launcher'");
	return 100 * (processor_time(@pids) - $used) / (time - $since);
}

my $best;
foreach (1 .. 3)
{
	my $load = load();

	$best = $load if !defined $best || $load < $best;
	last if $best < 0.5;
}
cmp_ok($best, '<', 0.5, sprintf 'idle workers use next to nothing (%.3f %% of a core)', $best);

$node->stop;
done_testing();
