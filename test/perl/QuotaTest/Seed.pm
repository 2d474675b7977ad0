
=pod

=head1 NAME

QuotaTest::Seed - the seed of a random test

=head1 SYNOPSIS

  my $seed = QuotaTest::Seed::start(20_111_230);

=head1 DESCRIPTION

QUOTA_MANAGER_SEED, if it is set.  In long runs (QUOTA_MANAGER_LONG=1) another one each time, so that they find what
nobody has seen yet.  Otherwise the usual one of the test: whether a change passes is not left to luck.

=cut

package QuotaTest::Seed;

use strict;
use warnings FATAL => 'all';

use Test::More;

my $main = $$;
my $started;

# Seeds rand() and notes the seed, which is printed again if the test fails.
sub start
{
	my ($usual) = @_;

	$started = $ENV{QUOTA_MANAGER_SEED} // ($ENV{QUOTA_MANAGER_LONG} ? int(rand(1_000_000_000)) : $usual);
	srand $started;
	note "QUOTA_MANAGER_SEED=$started";
	return $started;
}

END
{
	diag "to repeat it: QUOTA_MANAGER_SEED=$started" if defined $started && $$ == $main && !Test::More->builder->is_passing;
}

1;
