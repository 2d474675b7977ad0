# Random schedules and spans, in which the clock often changes: firing_range() says of
# them what firings() does when all of it is looked at.
#
# QUOTA_MANAGER_CRON_CASES  how many schedules (3000)
# QUOTA_MANAGER_SEED        another seed than the usual one

use strict;
use warnings FATAL => 'all';

use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use QuotaTest::CronOracle qw(use_zone);
use QuotaTest::Schedules qw(@zones @special pick between random_change random_text);

my $cases = $ENV{QUOTA_MANAGER_CRON_CASES} || 3_000;
my $seed = $ENV{QUOTA_MANAGER_SEED} || 20_180_504;

# How long a span is, in seconds: the longer the fewer firings a day has.
sub random_length
{
	my ($text) = @_;
	my @days = $text =~ /^\d+ \d+ \S+ \S+ \S+$/ ? (1, 400, 4_000) : $text =~ /^\S+ \S+ \S+ \S+ \S+$/ ? (1, 5, 400) : (1, 5, 30);

	return between(0, pick(3, 7_200, map { $_ * 86_400 } @days, @days));
}

srand $seed;
note("seed $seed, $cases schedules");

my @rows;
{
	local $ENV{TZ} = 'UTC';

	while (@rows < $cases)
	{
		my ($zone, $change) = rand() < 0.2 ? @{ pick(@special) } : (pick(@zones));

		use_zone($zone);
		$change //= random_change();
		foreach my $i (1 .. 10)
		{
			my $text = random_text();
			my $length = random_length($text);
			# before, across, at and after the change
			my $after = $change + pick(-$length, -between(0, $length), -between(0, 7_200), between(-2, 2), between(0, 7_200));
			my @fractions = map { rand() < 0.2 ? rand() : 0 } 1 .. 2;

			push @rows, join("\t", scalar @rows, $text, $after + $fractions[0], $after + $length + $fractions[1], $zone) . "\n";
		}
	}
}
POSIX::tzset();

my $node = PostgreSQL::Test::Cluster->new('firing_range');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION quota_manager');

my $answers = $node->safe_psql('postgres', <<"SQL");
SET search_path = quota_manager, pg_catalog;
SET timezone = 'UTC';
CREATE TEMP TABLE asked (n integer, schedule cron, after_time double precision, until_time double precision, zone text);
COPY asked FROM stdin;
@{[ join '', @rows ]}\\.
SELECT n, schedule, zone, to_timestamp(after_time), to_timestamp(until_time),
	concat_ws(' | ', counted.first_firing, counted.last_firing, counted.firings), concat_ws(' | ', listed.first, listed.last, listed.number)
FROM asked
CROSS JOIN LATERAL firing_range(schedule, to_timestamp(after_time), to_timestamp(until_time), zone) AS counted
CROSS JOIN LATERAL (SELECT min(f), max(f), count(*)
	FROM firings(schedule, to_timestamp(after_time), to_timestamp(until_time), zone) AS f) AS listed(first, last, number)
ORDER BY n;
SQL
$node->stop;

my ($compared, $empty, $fired, $wrong) = (0, 0, 0, 0);
foreach my $answer (split /\n/, $answers)
{
	my ($n, $schedule, $zone, $after, $until, $counted, $listed) = $answer =~
	  /^(\d+)\|(.*)\|([^|]+)\|([^|]+)\|([^|]+)\|((?:[^|]+ \| [^|]+ \| )?\d+)\|((?:[^|]+ \| [^|]+ \| )?\d+)$/
	  or die "not understood: $answer";

	$compared++;
	$empty++ if $listed eq '0';
	$fired += ($listed =~ /(\d+)$/)[0];
	next if $counted eq $listed;
	diag("$schedule ($zone, $after to $until): counted $counted, listed $listed") if $wrong++ < 10;
}
note("$fired firings, $empty empty spans");
is($compared, scalar @rows, 'an answer to every question');
cmp_ok($fired, '>', 100 * $cases, 'enough of them fire');
cmp_ok($empty, '<', $cases * 2 / 3, 'in enough of the spans');
is($wrong, 0, 'first, last and number as the list has them');

done_testing();
