
=pod

=head1 NAME

QuotaTest::RandomConditions - small conditions at random, for a few users with balances at two gateways

=head1 SYNOPSIS

  my $text = condition(2);        # at most two operators deep

=head1 DESCRIPTION

They are about users of vip 0 to 3 in the organizations org0 to org2, named u1 to u25 or p1 to p25, and about the
models a and b.  They draw from rand().  Larger ones, with stars and strange literals, are those of
QuotaTest::ConditionGenerator.

=cut

package QuotaTest::RandomConditions;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT_OK = qw(pick condition);

sub pick { return $_[ rand @_ ]; }

sub call
{
	return pick(sprintf('is-vip(%d)', rand 4), sprintf('belong-to("org%d")', rand 3), 'true()', sprintf('quota-le("%s", %d)', pick('a', 'b'), rand 20),
		sprintf('match-user("u%d", "p%d")', 1 + rand 25, 1 + rand 25));
}

# A condition of so many operators above each other at most.
sub condition
{
	my ($depth) = @_;

	return call() if $depth == 0 || rand() < 0.5;
	return 'not(' . condition($depth - 1) . ')' if rand() < 0.2;
	return pick('and', 'or') . '(' . join(', ', map { condition($depth - 1) } 0 .. 1 + int rand 2) . ')';
}

1;
