# Random schedules around clock changes: firings() and next_firing() agree with an
# oracle that walks from minute to minute with the C library's local time.
#
# QUOTA_MANAGER_CRON_CASES  how many schedules (5000)
# QUOTA_MANAGER_SEED        another seed than the usual one

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::CronOracle qw(use_zone readings expected_firings);
use QuotaTest::Schedules qw(@zones @special pick between random_change random_schedule);
use Test::More;

my $cases = $ENV{QUOTA_MANAGER_CRON_CASES} || 5_000;
my $seed = $ENV{QUOTA_MANAGER_SEED} || 20_111_230;
my $per_window = 50;

# A window is five days around a change; what fires on the first and last is not
# compared, since the nominal times of those dates may lie outside.
my $window = 5 * 1440;
my ($low, $high) = (1440, 4 * 1440);

srand $seed;
note("seed $seed, $cases schedules");

my (@expected, @rows, @texts);
{
	local $ENV{TZ} = 'UTC';

	while (@rows < $cases)
	{
		my ($zone, $change) = rand() < 0.1 ? @{ pick(@special) } : (pick(@zones));

		use_zone($zone);
		$change //= random_change();
		my $start = $change - int($window / 2) * 60 - between(-900, 900) * 60;
		my $readings = readings($start - $start % 60, $window);

		foreach my $i (1 .. $per_window)
		{
			my $schedule = random_schedule();
			my $until = $readings->{start} + 60 * $high;
			# often within the hours around the change, where a search can go astray
			my $after =
			  rand() < 0.5
			  ? $change + between(-7200, 7200)
			  : $readings->{start} + 60 * between($low, $high);
			my ($text, $given) =
			  rand() < 0.1 ? ("CRON_TZ=$zone $schedule->{text}", 'UTC') : ($schedule->{text}, $zone);

			push @expected, [ expected_firings($schedule, $readings, $after, $until) ];
			push @rows, join("\t", scalar @rows, $text, $after, $until, $given) . "\n";
			push @texts, "$text ($given, $after to $until)";
		}
	}
}
POSIX::tzset();

my $node = PostgreSQL::Test::Cluster->new('cron');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION quota_manager');

my $answers = $node->safe_psql('postgres', <<"SQL");
SET search_path = quota_manager, pg_catalog;
CREATE TEMP TABLE asked (n integer, schedule cron, after_time bigint, until_time bigint, zone text);
COPY asked FROM stdin;
@{[ join '', @rows ]}\\.
SELECT n,
	coalesce((SELECT string_agg(extract(epoch FROM f)::bigint::text, ' ')
		FROM firings(schedule, to_timestamp(after_time), to_timestamp(until_time), zone) AS f), ''),
	extract(epoch FROM next_firing(schedule, to_timestamp(after_time), zone))::bigint,
	until_time, schedule::text::cron = schedule
FROM asked ORDER BY n;
SQL
$node->stop;

my %failures = (firings => 0, next_firing => 0, stable => 0);
my $fired = 0;
my @answers = split /\n/, $answers;
is(scalar @answers, scalar @rows, 'an answer to every question');
foreach my $answer (@answers)
{
	my ($n, $firings, $next, $until, $stable) = split /\|/, $answer;
	my @wanted = @{ $expected[$n] };
	my %right = (
		firings => $firings eq join(' ', @wanted),
		next_firing => @wanted ? $next eq $wanted[0] : $next eq '' || $next > $until,
		stable => $stable eq 't');

	$fired += @wanted;
	foreach my $what (grep { !$right{$_} } sort keys %right)
	{
		diag("$what: $texts[$n]: expected @wanted, got $firings, next $next")
		  if $failures{$what}++ < 10;
	}
}
note("$fired firings");
cmp_ok($fired, '>', $cases, 'enough of them fire');
is($failures{firings}, 0, 'firings as the oracle has them');
is($failures{next_firing}, 0, 'next_firing is the first of them');
is($failures{stable}, 0, 'the canonical text is stable');

done_testing();
