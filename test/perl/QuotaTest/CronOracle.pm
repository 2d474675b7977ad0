
=pod

=head1 NAME

QuotaTest::CronOracle - when schedules fire, found by the C library's local time

=head1 SYNOPSIS

  use_zone('Europe/Berlin');
  my $readings = readings($start, $minutes);     # whole minutes since 1970
  my $schedule = schedule_of('30 2 * * *');
  my @firings = expected_firings($schedule, $readings, $after, $until);

=head1 DESCRIPTION

An implementation of docs/schedules.md that shares nothing with the extension's:
it looks up what the clock on the wall shows in every minute, and what fires then.

A schedule is a hash: its text, its second, the texts of the other fields, and for
each of these a hash of the values that match.

=cut

package QuotaTest::CronOracle;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use POSIX qw(floor);
use Time::Local qw(timegm);

our @EXPORT_OK = qw(use_zone offset_at readings date_comes schedule_of expected_firings @cron_fields);

# low, high and names of minute, hour, day of month, month and day of week
our @cron_fields = (
	[ 0, 59, [] ],
	[ 0, 23, [] ],
	[ 1, 31, [] ],
	[ 1, 12, [qw(JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC)] ],
	[ 0, 6, [qw(SUN MON TUE WED THU FRI SAT)] ]);
my @longest_month = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31);

# Offsets change at whole minutes, and not twice within this many of them.
my $stride = 15;

# From here on local time is that of the zone.
sub use_zone
{
	$ENV{TZ} = $_[0];
	POSIX::tzset();
	return;
}

# The offset of the zone in TZ at an instant.
sub offset_at
{
	my ($instant) = @_;
	my @local = localtime $instant;

	return timegm(@local[ 0 .. 4 ], $local[5] + 1900) - $instant;
}

# What the clock on the wall shows in the zone in TZ in each minute from a start on: for each date, by its
# number, its day, month and weekday, and either the minute in which it begins, if its 1440 minutes follow
# each other, or a list of [minute, minute of the day]. Gaps: [last reading before, first after, minute].
sub readings
{
	my ($start, $minutes) = @_;
	my (%dates, @gaps, $last);
	my $offset = offset_at($start);

	for (my $i = 0; $i < $minutes; $i += $stride)
	{
		my $end = $i + $stride < $minutes ? $i + $stride : $minutes;
		my $changes = offset_at($start + 60 * $end) != $offset;

		foreach my $minute ($i .. $end - 1)
		{
			$offset = offset_at($start + 60 * $minute) if $changes;
			my $reading = ($start + $offset) / 60 + $minute;
			my $date = floor($reading / 1440);

			push @gaps, [ $last, $reading, $minute ] if defined $last && $reading > $last + 1;
			push @{ $dates{$date}{shown} }, [ $minute, $reading - 1440 * $date ];
			$last = $reading;
		}
		$offset = offset_at($start + 60 * $end) if $changes;
		_close(\%dates, floor($last / 1440) - 2);
	}
	_close(\%dates, $_) foreach keys %dates;
	return { start => $start, minutes => $minutes, dates => \%dates, gaps => \@gaps };
}

# Names a date, and keeps no more of it than is needed.
sub _close
{
	my ($dates, $number) = @_;
	my $date = $dates->{$number};

	return if !$date || $date->{named};
	my (undef, undef, undef, $day, $month, undef, $weekday) = gmtime($number * 86400);
	my $shown = $date->{shown};

	$date->{named} = [ $day, $month + 1, $weekday ];
	if (@$shown == 1440 && !grep { $shown->[$_][1] != $_ || $shown->[$_][0] != $shown->[0][0] + $_ } 0 .. 1439)
	{
		$date->{begin} = $shown->[0][0];
		delete $date->{shown};
		return;
	}
	foreach my $pair (@$shown)
	{
		$date->{first}[ $pair->[1] ] //= $pair->[0];
	}
	return;
}

# Whether there is a date in some year that matches the fields.
sub date_comes
{
	my ($days, $months) = @_;

	foreach my $month (keys %$months)
	{
		return 1 if grep { $_ <= $longest_month[ $month - 1 ] } keys %$days;
	}
	return 0;
}

# The schedule of a text of five or six fields, the first of six being one number.
sub schedule_of
{
	my ($text) = @_;
	my @texts = split ' ', $text;
	my $second = @texts == 6 ? shift @texts : 0;
	my @values = map { _values_of($_, $texts[$_]) } 0 .. $#cron_fields;

	return { text => $text, second => $second, texts => \@texts, values => \@values };
}

sub _values_of
{
	my ($number, $text) = @_;
	my ($low, $high, $names) = @{ $cron_fields[$number] };
	my %value_of = map { $names->[$_] => $low + $_ } 0 .. $#$names;
	my $last = $number == 4 ? 7 : $high;
	my %values;

	foreach my $element (split /,/, $text)
	{
		my ($range, $step) = split m{/}, $element;
		my ($from, $to) = map { $value_of{$_} // $_ } split /-/, $range;

		($from, $to) = ($low, $high) if $range =~ /^[*?]$/;
		$to //= $step ? $high : $from;
		# a Sunday that ends a range
		$to = $last if $number == 4 && $range =~ /-SUN$/;
		die "what is $text" if $from < $low || $from > $to || $to > $last;
		for (my $value = $from; $value <= $to; $value += $step // 1)
		{
			$values{ $value > $high ? $low : $value } = 1;
		}
	}
	return \%values;
}

sub _date_matches
{
	my ($schedule, $date) = @_;
	my ($day, $month, $weekday) = @$date;
	my $values = $schedule->{values};

	return 0 if !$values->[3]{$month};
	return $values->[2]{$day} && $values->[4]{$weekday}
	  if grep { /^[*?]/ } @{ $schedule->{texts} }[ 2, 4 ];
	return $values->[2]{$day} || $values->[4]{$weekday};
}

# The firings of a schedule after one instant and up to another, both among the readings, as the rules tell
# them. What the first and the last date hold is not known: they may be cut off.
sub expected_firings
{
	my ($schedule, $readings, $after, $until) = @_;
	my ($minutes, $hours) = @{ $schedule->{values} };
	my %firings;

	foreach my $number (keys %{ $readings->{dates} })
	{
		my $date = $readings->{dates}{$number};

		next if !_date_matches($schedule, $date->{named});
		if ($schedule->{texts}[1] eq '*' && $date->{shown})
		{
			# every instant at which the clock shows a matching time
			foreach my $pair (grep { $minutes->{ $_->[1] % 60 } } @{ $date->{shown} })
			{
				$firings{ $readings->{start} + 60 * $pair->[0] + $schedule->{second} } = 1;
			}
			next;
		}
		# every nominal time once: when first shown, or at the end of the gap it is in
		foreach my $hour (keys %$hours)
		{
			foreach my $minute (keys %$minutes)
			{
				my $time = 60 * $hour + $minute;
				my $shown = defined $date->{begin} ? $date->{begin} + $time : $date->{first}[$time];

				if (defined $shown)
				{
					$firings{ $readings->{start} + 60 * $shown + $schedule->{second} } = 1;
					next;
				}
				my $end = _gap_end($readings, 1440 * $number + $time);
				$firings{ $readings->{start} + 60 * $end } = 1 if defined $end;
			}
		}
	}
	return grep { $_ > $after && $_ <= $until } sort { $a <=> $b } keys %firings;
}

# The first minute after the gap that a time the clock never shows lies in; undefined: it is shown before
# or after the readings.
sub _gap_end
{
	my ($readings, $nominal) = @_;

	foreach my $gap (@{ $readings->{gaps} })
	{
		return $gap->[2] if $gap->[0] < $nominal && $nominal < $gap->[1];
	}
	return undef;
}

1;
