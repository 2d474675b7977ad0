# Random schedules around clock changes: firings() and next_firing() agree with an
# oracle that walks from minute to minute with the C library's local time.
#
# QUOTA_MANAGER_CRON_CASES  how many schedules (5000)
# QUOTA_MANAGER_SEED        another seed than the usual one

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use QuotaTest::Schedules qw(@zones @special pick between use_zone random_change random_schedule);

my $cases = $ENV{QUOTA_MANAGER_CRON_CASES} || 5_000;
my $seed = $ENV{QUOTA_MANAGER_SEED} || 20_111_230;
my $per_window = 50;

# A window is five days around a change; what fires on the first and last is not
# compared, since the nominal times of those dates may lie outside.
my $window = 5 * 1440;
my ($low, $high) = (1440, 4 * 1440);

# What the clock on the wall shows at each minute of a window: [date, minute of
# the day, both as a text that sorts]; the first minute of the window at which it
# shows each; and the dates by their names, as [day, month, weekday].
sub readings
{
	my ($start) = @_;
	my (@shown, %first, %dates);

	foreach my $i (0 .. $window - 1)
	{
		my (undef, $minute, $hour, $day, $month, $year, $weekday) = localtime($start + 60 * $i);
		my $date = sprintf '%04d-%02d-%02d', $year + 1900, $month + 1, $day;
		my $reading = sprintf '%s %04d', $date, $hour * 60 + $minute;

		$dates{$date} //= [ $day, $month + 1, $weekday ];
		$first{$date}[ $hour * 60 + $minute ] //= $i;
		push @shown, [ $date, $hour * 60 + $minute, $reading ];
	}
	return { start => $start, shown => \@shown, first => \%first, dates => \%dates };
}

sub date_matches
{
	my ($schedule, $date) = @_;
	my ($day, $month, $weekday) = @$date;
	my $values = $schedule->{values};

	return 0 if !$values->[3]{$month};
	return $values->[2]{$day} && $values->[4]{$weekday}
	  if grep { /^[*?]/ } @{ $schedule->{texts} }[ 2, 4 ];
	return $values->[2]{$day} || $values->[4]{$weekday};
}

# The firings of a schedule after one instant in a window and up to another, as the
# rules tell them.
sub expected_firings
{
	my ($schedule, $readings, $after, $until) = @_;
	my ($start, $shown, $first) = @{$readings}{qw(start shown first)};
	my ($minutes, $hours) = @{ $schedule->{values} };
	my %matching =
	  map { $_ => 1 }
	  grep { date_matches($schedule, $readings->{dates}{$_}) } keys %{ $readings->{dates} };
	my %firings;

	if ($schedule->{texts}[1] eq '*')
	{
		# every instant at which the clock shows a matching time
		foreach my $i (0 .. $window - 1)
		{
			$firings{ $start + 60 * $i + $schedule->{second} } = 1
			  if $matching{ $shown->[$i][0] } && $minutes->{ $shown->[$i][1] % 60 };
		}
	}
	else
	{
		# every nominal time once: when first shown, or at the end of the gap it is in
		foreach my $date (keys %matching)
		{
			foreach my $hour (keys %$hours)
			{
				foreach my $minute (keys %$minutes)
				{
					my $i = $first->{$date}[ $hour * 60 + $minute ];

					if (defined $i)
					{
						$firings{ $start + 60 * $i + $schedule->{second} } = 1;
						next;
					}
					my $nominal = sprintf '%s %04d', $date, $hour * 60 + $minute;
					next if $nominal lt $shown->[0][2] || $nominal gt $shown->[-1][2];
					$i = gap_end($readings, $nominal);
					$firings{ $start + 60 * $i } = 1;
				}
			}
		}
	}
	return grep { $_ > $after && $_ <= $until } sort { $a <=> $b } keys %firings;
}

# The first minute after the gap that a time the clock never shows lies in.
sub gap_end
{
	my ($readings, $nominal) = @_;
	my $shown = $readings->{shown};

	$readings->{gap_ends} //=
	  [ grep { ($shown->[$_][1] - $shown->[ $_ - 1 ][1]) % 1440 != 1
		  || $shown->[$_][0] gt $shown->[ $_ - 1 ][0] } 1 .. $window - 1 ];
	foreach my $i (@{ $readings->{gap_ends} })
	{
		return $i if $shown->[ $i - 1 ][2] lt $nominal && $nominal lt $shown->[$i][2];
	}
	die "no gap holds $nominal";
}

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
		my $readings = readings($start - $start % 60);

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
