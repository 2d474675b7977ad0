
=pod

=head1 NAME

QuotaTest::Schedules - random schedules, zones, and changes of their clocks

=cut

package QuotaTest::Schedules;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use QuotaTest::CronOracle qw(offset_at date_comes @cron_fields);
use Time::Local qw(timegm);

our @EXPORT_OK = qw(@zones @special pick between random_change random_schedule random_text);

our @zones = qw(
  Africa/Cairo Africa/Casablanca Africa/Monrovia America/Caracas
  America/Havana America/New_York America/Santiago America/Sao_Paulo
  America/St_Johns Antarctica/Casey Antarctica/Troll Asia/Amman Asia/Gaza
  Asia/Kathmandu Asia/Pyongyang Asia/Shanghai Asia/Tehran Australia/Lord_Howe
  Europe/Berlin Europe/Dublin Europe/Lisbon Europe/London Pacific/Apia
  Pacific/Chatham Pacific/Kiritimati Pacific/Kwajalein UTC);

# Changes of the clock that are unlike the others: a date left out, a gap that
# ends on the next date.
our @special = (
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

# The text of a schedule, often one with several seconds.
sub random_text
{
	my $schedule = random_schedule();
	my ($seconds) = pick('', '*', random_element(0, 59, []));

	return join ' ', grep { $_ ne '' } $seconds, @{ $schedule->{texts} };
}

1;
