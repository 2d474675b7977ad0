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
use QuotaTest::CronOracle qw(use_zone offset_at readings date_comes expected_firings @cron_fields);
use Test::More;
use Time::Local qw(timegm);

my $cases = $ENV{QUOTA_MANAGER_CRON_CASES} || 5_000;
my $seed = $ENV{QUOTA_MANAGER_SEED} || 20_111_230;
my $per_window = 50;

# A window is five days around a change; what fires on the first and last is not
# compared, since the nominal times of those dates may lie outside.
my $window = 5 * 1440;
my ($low, $high) = (1440, 4 * 1440);

my @zones = qw(
  Africa/Cairo Africa/Casablanca Africa/Monrovia America/Caracas
  America/Havana America/New_York America/Santiago America/Sao_Paulo
  America/St_Johns Antarctica/Casey Antarctica/Troll Asia/Amman Asia/Gaza
  Asia/Kathmandu Asia/Pyongyang Asia/Shanghai Asia/Tehran Australia/Lord_Howe
  Europe/Berlin Europe/Dublin Europe/Lisbon Europe/London Pacific/Apia
  Pacific/Chatham Pacific/Kiritimati Pacific/Kwajalein UTC);

# Changes of the clock that are unlike the others: a date left out, a gap that
# ends on the next date.
my @special = (
	[ 'Pacific/Apia', timegm(0, 0, 10, 30, 11, 2011) ],
	[ 'Pacific/Kwajalein', timegm(0, 0, 12, 21, 7, 1993) ],
	[ 'Pacific/Kiritimati', timegm(0, 40, 10, 31, 11, 1994) ],
	[ 'Asia/Pyongyang', timegm(0, 0, 15, 4, 4, 2018) ],
	[ 'America/Caracas', timegm(0, 0, 7, 1, 4, 2016) ]);

sub pick { return $_[ rand @_ ] }
sub between { return $_[0] + int rand($_[1] - $_[0] + 1) }

# A random instant at which the zone in TZ changes its offset, or any instant.
sub random_change
{
	foreach my $attempt (1 .. 5)
	{
		my $from = timegm(0, 0, 0, 1, 0, between(1973, 2023));
		my @changes = grep { offset_at($_) != offset_at($_ + 7 * 86400) }
		  map { $from + $_ * 7 * 86400 } 0 .. 51;
		next if !@changes;

		my $before = pick(@changes);
		my $after = $before + 7 * 86400;
		my $offset = offset_at($before);
		while ($after - $before > 60)
		{
			my $middle = int(($before + $after) / 120) * 60;
			if (offset_at($middle) == $offset) { $before = $middle }
			else { $after = $middle }
		}
		return $after;
	}
	return between(timegm(0, 0, 0, 1, 0, 1973), timegm(0, 0, 0, 1, 0, 2023));
}

# One element of a list: its text, and the values it names.
sub random_element
{
	my ($low_value, $high_value, $names) = @_;
	my $named = @$names && rand() < 0.5;
	my $write = sub {
		my ($value) = @_;
		return $value if !$named;
		my $name = $names->[ $value - $low_value ];
		return rand() < 0.5 ? lc $name : $name;
	};
	my $from = between($low_value, $high_value);
	my $to = between($from, $high_value);
	my $step = between(1, $high_value);
	my $every = sub {
		my ($first, $last) = @_;
		return grep { ($_ - $first) % $step == 0 } $first .. $last;
	};

	return pick(
		sub { ("*/$step", $every->($low_value, $high_value)) },
		sub { ($write->($from) . '-' . $write->($to), $from .. $to) },
		sub { ($write->($from) . '-' . $write->($to) . "/$step", $every->($from, $to)) },
		sub { ($write->($from) . "/$step", $every->($from, $high_value)) },
		(sub { ($write->($from), $from) }) x 3)->();
}

# A field: its text, and a hash of the values that match.
sub random_field
{
	my ($number, $any) = @_;
	my ($low_value, $high_value, $names) = @{ $cron_fields[$number] };
	my (@texts, %values);

	if (rand() < $any)
	{
		my $mark = $number == 2 || $number == 4 ? pick('*', '?') : '*';
		return ($mark, { map { $_ => 1 } $low_value .. $high_value });
	}
	foreach my $i (1 .. pick(1, 1, 1, 2, 3))
	{
		my ($text, @element) = random_element($low_value, $high_value, $names);
		push @texts, $text;
		$values{$_} = 1 foreach @element;
	}
	return (join(',', @texts), \%values);
}

# A schedule: its text, its second, and the texts and values of the other fields.
sub random_schedule
{
	my @any = (0.15, 0.3, 0.6, 0.8, 0.6);
	my (@texts, @values);

	while (1)
	{
		foreach my $number (0 .. $#cron_fields)
		{
			($texts[$number], $values[$number]) = random_field($number, $any[$number]);
		}
		# dates that never come are refused
		last if date_comes(@values[ 2, 3 ]);
	}
	my $second = rand() < 0.2 ? between(0, 59) : 0;
	my $text = join ' ', ($second ? $second : ()), @texts;

	return { text => $text, second => $second, texts => [@texts], values => [@values] };
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
