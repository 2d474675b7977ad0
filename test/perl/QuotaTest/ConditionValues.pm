
=pod

=head1 NAME

QuotaTest::ConditionValues - the times and numbers of conditions, read naively

=head1 DESCRIPTION

  my $micros = instant('2024-01-01 00:00:00');   # since 1970, or undef
  my $order = compare_decimals('10', '1e1');     # -1, 0 or 1, exactly

Part of L<QuotaTest::ConditionOracle>.

=cut

package QuotaTest::ConditionValues;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
our @EXPORT_OK = qw($number instant read_time compare_decimals fits_numeric
  number_beyond);

# How a number is written.
our $number = qr{[+-]?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?};

my %instant_cache;

# The microseconds since 1970 of a time, or undef if it is none.
sub instant
{
	my ($text) = @_;

	%instant_cache = () if keys %instant_cache > 10_000;
	$instant_cache{$text} //= [ read_time($text) ];
	return $instant_cache{$text}[0];
}

# The microseconds since 1970 of a time, or undef and the SQLSTATEs that fit.
sub read_time
{
	my ($text) = @_;

	$text =~ /\A([0-9]{4})-([0-9]{2})-([0-9]{2})([ T])
			([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]{1,6})?
			(Z|[+-][0-9]{2}:[0-9]{2})?\z/x
	  or return (undef, '22007');
	my ($year, $month, $day, $between) = ($1, $2, $3, $4);
	my ($hour, $minute, $second, $fraction, $zone) = ($5, $6, $7, $8, $9);

	# Without a zone only the one plain form is a time.
	return (undef, '22007')
	  if !defined $zone && ($between eq 'T' || defined $fraction);

	my $leap = $year % 4 == 0 && ($year % 100 != 0 || $year % 400 == 0);
	my @lengths = (31, $leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31);
	my $offset = 0;

	if (defined $zone && $zone =~ /^([+-])([0-9]{2}):([0-9]{2})$/)
	{
		return (undef, '22007 22008') if $2 > 23 || $3 > 59;
		$offset = ($2 * 60 + $3) * 60;
		$offset = -$offset if $1 eq '-';
	}
	return (undef, '22007 22008')
	  if $year < 1
	  || $month < 1
	  || $month > 12
	  || $day < 1
	  || $day > $lengths[ $month - 1 ]
	  || $hour > 23
	  || $minute > 59
	  || $second > 59;

	# Days since the first day of year 1, then since 1970-01-01.
	my $days = 0;
	my $before = $year - 1;
	$days += $before * 365 + int($before / 4) - int($before / 100) + int($before / 400);
	$days += $lengths[ $_ - 1 ] foreach 1 .. $month - 1;
	$days += $day - 1;
	$days -= 719_162;

	my $seconds = (($days * 24 + $hour) * 60 + $minute) * 60 + $second - $offset;
	my $micros = substr(($fraction // '.') . '000000', 1, 6);

	return $seconds * 1_000_000 + $micros;
}

my %decimal_cache;

# Whether the first decimal is less than (-1), equal to (0) or greater than (1)
# the second, exactly, whatever their length.
sub compare_decimals
{
	my ($left, $right) = @_;

	$left = _plain_decimal($left);
	$right = _plain_decimal($right);

	return $left->[0] <=> $right->[0] if $left->[0] != $right->[0];
	return $left->[0] * (
		     length $left->[1] <=> length $right->[1]
		  || $left->[1] cmp $right->[1]
		  || $left->[2] cmp $right->[2]);
}

# A decimal as its sign, its digits before the point without leading zeros, and
# those behind it without trailing zeros.
sub _plain_decimal
{
	my ($text) = @_;

	return $decimal_cache{$text} if $decimal_cache{$text};
	my $plain = _read_decimal($text);
	%decimal_cache = () if keys %decimal_cache > 10_000;
	$decimal_cache{$text} = $plain
	  if length($text) + length($plain->[1]) + length($plain->[2]) < 100;
	return $plain;
}

sub _read_decimal
{
	my ($text) = @_;

	$text =~ /\A([+-]?)([0-9]+)(?:\.([0-9]+))?(?:e([+-]?[0-9]+))?\z/
	  or die "not a decimal: $text";
	my ($sign, $whole, $part, $exponent) = ($1, $2, $3 // '', $4 // 0);

	if ("$whole$part" !~ /[1-9]/)
	{
		return [ 0, '', '' ];
	}

	# No numeric goes so far, however many digits a text of 64 KiB takes back.
	$exponent = 200_000 if $exponent > 200_000;
	$exponent = -200_000 if $exponent < -200_000;

	if ($exponent > 0)
	{
		$part .= '0' x ($exponent - length $part) if $exponent > length $part;
		$whole .= substr $part, 0, $exponent, '';
	}
	elsif ($exponent < 0)
	{
		$whole = '0' x (-$exponent - length $whole) . $whole
		  if -$exponent > length $whole;
		$part = substr($whole, $exponent, -$exponent, '') . $part;
	}
	$whole =~ s/^0+//;
	$part =~ s/0+$//;
	return [ $sign eq '-' ? -1 : 1, $whole, $part ];
}

# Whether a text has a number somewhere that numeric cannot hold. It is an error
# of its own, whatever else is wrong with the text.
sub number_beyond
{
	my ($text) = @_;

	return scalar grep { !fits_numeric($_) } $text =~ /$number/g;
}

# Whether PostgreSQL's numeric can hold a decimal as it is written: 131072 digits
# before the point, 16383 behind it. Zeros that lead do not count.
sub fits_numeric
{
	my ($text) = @_;
	my ($digits, $part, $exponent) =
	  $text =~ /\A[+-]?([0-9]+(?:\.([0-9]+))?)(?:e([+-]?[0-9]+))?\z/;

	$exponent //= 0;
	$exponent = 200_000 if $exponent > 200_000;
	$exponent = -200_000 if $exponent < -200_000;

	# The places of the last digit and, one higher, of the first.
	my $last = $exponent - length($part // '');
	my $first = $last + length($digits =~ s/\.//r =~ s/^0+(?=.)//r);

	return $first <= 131_072 && $last >= -16_383;
}

1;
