# Preloaded, started without preloading, or called by pg_cron: the same is run and delivered.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::PgCron;
use QuotaTest::Workers;
use Test::More;

my $day = '2025-07-01';
my $has_pg_cron = QuotaTest::PgCron::is_available();

my %content = (preloaded => preloaded(), started => started());
if ($has_pg_cron)
{
	$content{$_} = by_pg_cron($_) foreach 'pg_cron by background workers', 'pg_cron by connections';
}

subtest 'what is compared is what is to be there' => sub {
	is($content{preloaded}{runs}, <<'OUT', 'each firing that is due is run, once');
capped|2025-07-01 07:45:00|done||2|2|0|0|0
capped|2025-07-01 08:00:00|done||2|0|0|2|0
capped|2025-07-01 10:00:00|done||2|0|0|2|0
hourly|2025-07-01 08:00:00|done||3|3|0|0|0
hourly|2025-07-01 09:00:00|done||3|3|0|0|0
hourly|2025-07-01 10:00:00|done||3|3|0|0|0
low|||||2|||
once|||||3|||
OUT
	is(() = $content{preloaded}{grants} =~ /\|completed\|1\|/g, 16, 'and its grants are delivered');
	foreach my $way (sort grep { $_ ne 'preloaded' } keys %content)
	{
		is($content{$way}{$_}, $content{preloaded}{$_}, "$way: the same $_") foreach sort keys %{ $content{preloaded} };
	}
};
done_testing();

sub preloaded
{
	my $node = QuotaTest::Workers::cluster('preloaded', preload => 1, settings => settings());

	return scenario($node, sub { $node->safe_psql('postgres', 'SELECT quota_manager.start_workers()') }, wait_for($node));
}

sub started
{
	my $node = QuotaTest::Workers::cluster('started', settings => settings());

	return scenario($node, sub { $node->safe_psql('postgres', 'SELECT quota_manager.start_workers()') }, wait_for($node));
}

sub by_pg_cron
{
	my ($way) = @_;
	my $cron = QuotaTest::PgCron->start($way =~ s/ /_/gr, clock => '2027-03-01 12:00:10', client => scalar($way =~ /connections/), settings => settings());
	my $node = $cron->node;

	return scenario(
		$node,
		sub { $node->safe_psql('postgres', 'SELECT quota_manager.schedule_jobs()') },
		sub {
			# a tick, and after it a delivery
			$cron->next_minute foreach 1 .. 2;
			wait_for($node)->(@_);
		});
}

# How to wait for a condition where it comes about by itself.
sub wait_for
{
	my ($node) = @_;

	return sub { QuotaTest::Workers::await($node, 'postgres', $_[0]) };
}

sub settings
{
	return "quota_manager.schedule_clock = '$day 07:30:00+00'\ntimezone = 'UTC'\nmax_parallel_workers_per_gather = 2\n";
}

# Plays the scenario, whatever it is that runs strategies, and returns what there is in the end.
sub scenario
{
	my ($node, $begin, $until) = @_;
	my $gateway = QuotaTest::Workers::gateway();
	my %content;

	QuotaTest::Workers::database($node, 'postgres', $gateway);
	QuotaTest::Workers::users($node, 'postgres', 3);
	$gateway->ask('balance', { user => 'user3', quota => 100 });
	$node->safe_psql('postgres', 'SELECT quota_manager.stop_workers()') unless $node->name =~ /pg_cron/;
	QuotaTest::Workers::strategy($node, 'postgres', name => 'once', amount => 5);
	QuotaTest::Workers::strategy($node, 'postgres', name => 'low', amount => 7, condition => 'quota-le("m", 10)');
	QuotaTest::Workers::strategy($node, 'postgres', name => 'hourly', amount => 1, type => 'periodic', periodic_expr => '0 * * * *', catch_up => 'all');
	QuotaTest::Workers::strategy($node, 'postgres', name => 'capped', amount => 2, type => 'periodic', periodic_expr => '*/15 * * * *',
		condition => 'match-user("user1", "user2")', max_exec_per_user => 1);
	$begin->();
	$until->(completed(5));
	$node->append_conf('postgresql.conf', "quota_manager.schedule_clock = '$day 07:45:00+00'");
	$node->reload;
	$until->(completed(7));
	$node->append_conf('postgresql.conf', "quota_manager.schedule_clock = '$day 08:00:30+00'");
	$node->reload;
	$until->(completed(10) . q{ AND (SELECT count(*) = 2 FROM quota_manager.quota_run WHERE capped > 0 OR scheduled_time = '2025-07-01 07:45:00+00')});
	$node->append_conf('postgresql.conf', "quota_manager.schedule_clock = '$day 10:00:00+00'");
	$node->reload;
	$until->(completed(16) . q{ AND (SELECT count(*) = 6 FROM quota_manager.quota_run WHERE state = 'done' AND scheduled_time IS NOT NULL)});

	# How often single strategies are read is not the same, nor what of them must wait for a balance that a delivery has just changed.
	$content{runs} = $node->safe_psql('postgres', q{
		SELECT s.name, r.scheduled_time::timestamp, r.state, r.reason, r.matched, r.granted, r.already_granted, r.capped, r.unknown_balance
		FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id
		WHERE r.state <> 'skipped' AND r.scheduled_time IS NOT NULL
		UNION ALL SELECT s.name, NULL, NULL, NULL, NULL, sum(r.granted), NULL, NULL, NULL
		FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id
		WHERE r.scheduled_time IS NULL GROUP BY s.name
		ORDER BY 1, 2}) . "\n";
	$content{skips} = $node->safe_psql('postgres', q{
		SELECT s.name, r.scheduled_time::timestamp, r.last_scheduled_time::timestamp, r.occurrences, r.reason
		FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id
		WHERE r.state = 'skipped' ORDER BY s.name, r.scheduled_time});
	$content{grants} = $node->safe_psql('postgres', q{
		SELECT s.name, e.user_id, e.scheduled_time, e.revision, e.strategy_version, e.amount, e.model, e.gateway, e.batch_number, e.status, e.claim_number, e.last_status, e.last_error
		FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id ORDER BY 1, 2, 3});
	$content{applied} = join "\n", sort map { "$_->{user} $_->{amount}" } $gateway->applied;
	$node->stop;
	return \%content;
}

# That so many grants are delivered, and no other is there.
sub completed
{
	my ($count) = @_;

	return "(SELECT count(*) = $count AND bool_and(status = 'completed') FROM quota_manager.quota_execute)";
}
