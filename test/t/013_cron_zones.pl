# A daily schedule fires exactly once per local date that exists, in every time zone whose clock changes between 2000
# and 2037 and at every half hour; and one whose hour is * as often as the clock shows its times.
#
# What the clocks show is read with the C library. Around a change somebody looks at the clock every minute and notes
# when it shows a time for the first time or has leapt over it; the dates that exist are those the clock shows.
# In every check: some zones, some of their changes, and some years; in long runs everything.
#
# QUOTA_MANAGER_SEED  repeats a choice of changes

use strict;
use warnings FATAL => 'all';

use Digest::MD5 qw(md5);
use File::Find ();
use List::Util qw(shuffle);
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Seed;
use Test::More;
use Time::HiRes qw(time);
use Time::Local qw(timegm);

my $long = $ENV{QUOTA_MANAGER_LONG};
QuotaTest::Seed::start(20_131_027);
my $tz_data = '/usr/share/zoneinfo';
my ($first_year, $last_year) = (2000, 2037);

# What is looked at around a change, in minutes: the firings within, from a clock that was watched for some time before.
my ($around, $watched_before) = (30 * 60, 6 * 60);
# The same for a schedule that fires every minute.
my $around_every_minute = $long ? 6 * 60 : 30 * 60;

# For every check: how many changes of a zone, and of which years all dates are counted.
my $changes_per_zone = 4;
my ($first_counted, $last_counted) = $long ? ($first_year, $last_year) : (2009, 2018);

# Changes at midnight or a minute later; of half an hour, of two and of three; winter time that is the odd one out; months
# of Ramadan; offsets of quarters of an hour; leaps over the date line.
my @zones = qw(
  Africa/Cairo Africa/Casablanca Africa/El_Aaiun Africa/Khartoum Africa/Windhoek America/Asuncion America/Caracas
  America/Havana America/Metlakatla America/New_York America/Nuuk America/Santiago America/Sao_Paulo
  America/Scoresbysund America/St_Johns Antarctica/Casey Antarctica/Troll Antarctica/Vostok Asia/Amman Asia/Beirut
  Asia/Damascus Asia/Dhaka Asia/Gaza Asia/Pyongyang Asia/Tehran Atlantic/Azores Australia/Eucla Australia/Lord_Howe
  Europe/Berlin Europe/Dublin Europe/Istanbul Europe/Moscow Europe/Volgograd Pacific/Apia Pacific/Bougainville
  Pacific/Chatham Pacific/Fakaofo Pacific/Norfolk Pacific/Tongatapu);

# Changes that are always among them: a date left out, a gap that ends on the next date, and one that begins with it.
my %always = (
	'Pacific/Apia' => timegm(0, 0, 10, 30, 11, 2011),
	'Pacific/Fakaofo' => timegm(0, 0, 11, 30, 11, 2011),
	'Asia/Pyongyang' => timegm(0, 0, 15, 4, 4, 2018),
	'America/Sao_Paulo' => timegm(0, 0, 3, 4, 10, 2018));

# The days since 1970 of the first of January.
my %new_year = map { $_ => timegm(0, 0, 0, 1, 0, $_) / 86400 } $first_year - 2 .. $last_year + 2;

sub use_zone
{
	$ENV{TZ} = $_[0];
	POSIX::tzset();
	return;
}

# What the clock of the zone in TZ shows at an instant, in seconds since 1970.
sub shown
{
	my ($second, $minute, $hour, undef, undef, $year, undef, $day) = localtime $_[0];

	return (($new_year{ $year + 1900 } + $day) * 24 + $hour) * 3600 + $minute * 60 + $second;
}

# The zones of the tz data, one name for each.
sub all_zones
{
	my %by_content;

	File::Find::find({
			no_chdir => 1,
			wanted => sub {
				my $name = s{^\Q$tz_data\E/}{}r;
				return if !-f $_ || $name =~ m{^(?:posix|right)/};
				my $content = PostgreSQL::Test::Utils::slurp_file($_);
				return if $content !~ /^TZif/;
				push @{ $by_content{ md5($content) } }, $name;
			} },
		$tz_data);
	# rather Europe/Berlin than CET
	my @names = sort map { (sort { ($b =~ m{/}) <=> ($a =~ m{/}) || $a cmp $b } @$_)[0] } values %by_content;
	return @names;
}

# The instants of the first and last year at which the clock of the zone in TZ changes.
sub changes
{
	my ($from, $to) = (timegm(0, 0, 0, 1, 0, $first_year), timegm(0, 0, 0, 1, 0, $last_year + 1));
	my $step = 43200;
	my $offset = shown($from) - $from;
	my @changes;

	for (my $instant = $from + $step; $instant <= $to; $instant += $step)
	{
		next if shown($instant) - $instant == $offset;
		my ($before, $after) = ($instant - $step, $instant);
		while ($after - $before > 1)
		{
			my $middle = int(($before + $after) / 2);
			if (shown($middle) - $middle == $offset) { $before = $middle }
			else { $after = $middle }
		}
		push @changes, $after;
		$offset = shown($instant) - $instant;
	}
	return @changes;
}

# Looks at the clock of the zone in TZ once a minute, after one instant and up to another. Returns when each half hour of
# a day is due, as [number of the half hour, instant], and the instants at which the clock shows a full or half hour.
sub watch
{
	my ($after, $until) = @_;
	my $begin = $after - $watched_before * 60;
	my $latest = shown($begin) / 60;
	my (@due, @leapt_over, @half_hours, %date_exists);

	for (my $instant = $begin + 60; $instant <= $until; $instant += 60)
	{
		my $reading = shown($instant) / 60;

		die "$ENV{TZ} shows seconds at $instant" if $reading != int $reading;
		push @half_hours, $instant if $reading % 30 == 0;
		$date_exists{ int($reading / 1440) } = 1;
		if ($reading == $latest + 1)
		{
			push @due, [ $reading % 1440 / 30, $instant ] if $reading % 30 == 0;
		}
		else
		{
			foreach my $missed (grep { $_ % 30 == 0 } $latest + 1 .. $reading)
			{
				push @leapt_over, [ $missed % 1440 / 30, $instant, int($missed / 1440) ];
			}
		}
		$latest = $reading if $reading > $latest;
	}
	push @due, map { [ @$_[ 0, 1 ] ] } grep { $date_exists{ $_->[2] } } @leapt_over;
	return ([ grep { $_->[1] > $after } @due ], [ grep { $_ > $after } @half_hours ]);
}

# The number of dates that the clock of the zone in TZ shows in the years counted, and the instant before the first.
sub dates
{
	my @bounds;
	my %exists;

	foreach my $year ($first_counted, $last_counted + 1)
	{
		my $reading = $new_year{$year} * 86400;
		my $offset = shown($reading) - $reading;

		die "the clock of $ENV{TZ} changes at the beginning of $year"
		  if grep { shown($reading + $_ * 3600) - ($reading + $_ * 3600) != $offset } -30 .. 30;
		push @bounds, $reading - $offset;
	}
	for (my $instant = $bounds[0]; $instant < $bounds[1]; $instant += 3 * 3600)
	{
		$exists{ int(shown($instant) / 86400) } = 1;
	}
	return (scalar keys %exists, $bounds[0] - 1, $bounds[1] - 1);
}


my $folder = PostgreSQL::Test::Utils::tempdir();
my (@windows, $due_count, $zone_count, $change_count);
my $started = time;
{
	local $ENV{TZ} = 'UTC';
	open my $window_file, '>', "$folder/windows" or die $!;
	open my $due_file, '>', "$folder/due" or die $!;
	open my $half_file, '>', "$folder/half_hours" or die $!;
	open my $year_file, '>', "$folder/years" or die $!;

	foreach my $zone ($long ? all_zones() : @zones)
	{
		use_zone($zone);
		my @changes = changes() or next;
		my $always = $always{$zone};

		die "$zone does not change its clock at $always" if defined $always && !grep { $_ == $always } @changes;
		if (!$long)
		{
			@changes = grep { defined } (shuffle(@changes))[ 0 .. $changes_per_zone - 1 ];
			push @changes, $always if defined $always && !grep { $_ == $always } @changes;
		}
		$zone_count++;
		print $year_file join("\t", $zone, dates()), "\n";
		foreach my $change (@changes)
		{
			# away from the boundaries of minutes, so that no firing is on one
			my ($after, $until) = map { $change + $_ * $around * 60 } -1, 1;
			my ($due, $half_hours) = watch($after, $until);

			$change_count++;
			$due_count += @$due;
			print $window_file join("\t", $change_count, $zone, $change, $after, $until), "\n";
			print $due_file map { join("\t", $change_count, @$_) . "\n" } @$due;
			print $half_file map { "$change_count\t$_\n" } @$half_hours;
		}
	}
	close $_ foreach $window_file, $due_file, $half_file, $year_file;
}
POSIX::tzset();
note sprintf '%d zones, %d changes, %d firings expected, found in %.0f s', $zone_count, $change_count, $due_count,
  time - $started;
cmp_ok($zone_count, '>=', $long ? 150 : @zones, 'zones with changes');

my $node = PostgreSQL::Test::Cluster->new('zones');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\njit = off");
$node->start;
$node->safe_psql('postgres', <<"SQL");
CREATE EXTENSION quota_manager;
CREATE TABLE clock_change (id integer PRIMARY KEY, zone text, instant bigint, after bigint, until bigint);
CREATE TABLE due (change integer, slot integer, instant bigint);
CREATE TABLE half_hour (change integer, instant bigint);
CREATE TABLE years (zone text, dates integer, after bigint, until bigint);
COPY clock_change FROM '$folder/windows';
COPY due FROM '$folder/due';
COPY half_hour FROM '$folder/half_hours';
COPY years FROM '$folder/years';
CREATE INDEX ON due (change, slot, instant);
ANALYZE;
CREATE FUNCTION daily(slot integer) RETURNS quota_manager.cron LANGUAGE sql IMMUTABLE
RETURN (slot % 2 * 30 || ' ' || slot / 2 || ' * * *')::quota_manager.cron;
CREATE FUNCTION seconds(at timestamptz) RETURNS bigint LANGUAGE sql STABLE RETURN extract(epoch FROM at)::bigint;
CREATE TABLE fired AS
SELECT id AS change, slot, seconds(f) AS instant
FROM clock_change, generate_series(0, 47) AS slot,
	quota_manager.firings(daily(slot), to_timestamp(after), to_timestamp(until), zone) AS f;
SQL

# Runs a statement that returns what is wrong.
sub nothing
{
	my ($name, $statement) = @_;
	my $begun = time;
	my $wrong = $node->safe_psql('postgres', $statement);

	is($wrong, '', $name) or diag $wrong;
	note sprintf '%.1f s', time - $begun;
	return;
}

my $wrong = "SELECT 'wrong', zone, to_timestamp(c.instant), slot, to_timestamp(x.instant) FROM clock_change c JOIN x ON change = id LIMIT 10";
nothing('no firing too many around a change',
	"WITH x AS (TABLE fired EXCEPT ALL TABLE due) $wrong");
nothing('no firing too few around a change',
	"WITH x AS (TABLE due EXCEPT ALL TABLE fired) $wrong");
nothing('the same wherever the search begins', <<'SQL');
SELECT zone, slot, to_timestamp(begin), next, to_timestamp(next_due)
FROM clock_change AS c, generate_series(0, 47) AS slot, generate_series(c.instant - 3600, c.instant + 3 * 3600, 1800) AS begin,
	LATERAL (SELECT quota_manager.next_firing(daily(slot), to_timestamp(begin), zone) AS next) AS n,
	LATERAL (SELECT min(instant) AS next_due FROM due AS d WHERE d.change = id AND d.slot = slot.slot AND d.instant > begin) AS due
WHERE seconds(next) IS DISTINCT FROM next_due
LIMIT 10
SQL
nothing('with the hour * once per time that the clock shows', <<'SQL');
WITH fired AS (
	SELECT id, seconds(f) FROM clock_change,
		quota_manager.firings('*/30 * * * *', to_timestamp(after), to_timestamp(until), zone) AS f)
(TABLE fired EXCEPT ALL TABLE half_hour) UNION ALL (TABLE half_hour EXCEPT ALL TABLE fired) LIMIT 10
SQL
nothing('with * throughout once per minute that passes', <<"SQL");
SELECT zone, to_timestamp(instant), minutes.* FROM clock_change,
	LATERAL (SELECT count(*) AS firings, count(DISTINCT f) AS minutes, min(f), max(f), bool_or(seconds(f) % 60 <> 0) AS odd
		FROM quota_manager.firings('* * * * *',
			to_timestamp(instant - 60 * $around_every_minute), to_timestamp(instant + 60 * $around_every_minute), zone) AS f) AS minutes
WHERE (firings, minutes, min, max, odd) IS DISTINCT FROM (2 * $around_every_minute, 2 * $around_every_minute,
	to_timestamp(instant - 60 * ($around_every_minute - 1)), to_timestamp(instant + 60 * $around_every_minute), false)
LIMIT 10
SQL

# In the select list one firing after another is computed, and none is kept.
nothing("once per date that exists in $first_counted to $last_counted", <<'SQL');
SELECT zone, slot, dates, firings FROM years, generate_series(0, 47) AS slot,
	LATERAL (SELECT count(*) AS firings
		FROM (SELECT quota_manager.firings(daily(slot), to_timestamp(after), to_timestamp(until), zone)) AS f) AS counted
WHERE firings <> dates
LIMIT 10
SQL
is($node->safe_psql('postgres', <<"SQL"), 'Pacific/Apia|Pacific/Fakaofo', 'two of the zones leave a date out');
SELECT string_agg(zone, '|' ORDER BY zone COLLATE "C") FROM years
WHERE dates < '$last_counted-12-31'::date - '$first_counted-01-01'::date + 1
SQL
is($node->safe_psql('postgres', 'SELECT count(*) FROM due'), $due_count, 'all was compared');

$node->stop;
done_testing();
