
=pod

=head1 NAME

QuotaTest::OperatorBasics - who and what there is in histories of operators, and how it is chosen and written

=head1 SYNOPSIS

  use QuotaTest::OperatorBasics;

  my $user = pick(@USERS);

=cut

package QuotaTest::OperatorBasics;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use POSIX qw(strftime);

our @EXPORT = qw($HOUR $DAY $START $TIMEOUT @USERS @ORGS @STARS %DIALECT @GATEWAYS pick between quoted differ time_text key);

our $HOUR = 3600;
our $DAY = 24 * $HOUR;
# A Monday, ten o'clock.
our $START = 1772445600;

# How long a gateway may take to answer.
our $TIMEOUT = '150 ms';

our @USERS = map { sprintf 'u%02d', $_ } 1 .. 16;
our @ORGS = qw(red green blue);
our @STARS = ('vscode', 'zgsm', 'zgsm, vscode', '');
our %DIALECT = (hold => 'zgsm', resend => 'higress', reconcile => 'zgsm');
our @GATEWAYS = sort keys %DIALECT;

sub pick { return $_[ rand @_ ]; }
sub between { return $_[0] + int rand($_[1] - $_[0] + 1); }

sub quoted
{
	my ($text) = @_;

	return 'NULL' if !defined $text;
	return "'" . $text =~ s/'/''/gr . "'";
}

# Amounts have at most six decimals.
sub differ { return abs($_[0] - $_[1]) > 1e-8; }

sub time_text { return strftime('%Y-%m-%d %H:%M:%S+00', gmtime $_[0]); }

# Of a grant and its reversals, from strategy, user and firing.
sub key { return join ' ', @_; }

1;
