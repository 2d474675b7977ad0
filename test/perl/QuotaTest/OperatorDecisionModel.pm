
=pod

=head1 NAME

QuotaTest::OperatorDecisionModel - what decisions, reversals and their undoing come to, by the documentation

=head1 DESCRIPTION

A part of L<QuotaTest::OperatorModel>.

=cut

package QuotaTest::OperatorDecisionModel;

use strict;
use warnings FATAL => 'all';

use QuotaTest::OperatorBasics;

# --- decisions

# Why a decision is not possible; undef: it is.
sub obstacle
{
	my ($self, $action, $grant, @among) = @_;
	my $status = $grant->{status};
	my $chain = $self->chain(@{$grant}{qw(strategy user firing)});
	my $is_last = $chain->[-1] == $grant;
	my $gateway = $self->{gateways}{ $grant->{gateway} };

	if ($action =~ /^correct_(not_)?applied$/)
	{
		my $applied = !$1;

		return 'not resolved' if !defined $grant->{resolved};
		return 'resolved as just that' if $grant->{resolved} == $applied;
		return 'followed' if !$is_last && $status !~ /^(?:pending|processing|in_doubt)$/;
		return $applied
		  ? ($status =~ /^(?:processing|in_doubt|completed)$/ ? $status : undef)
		  : ($status ne 'completed' ? $status : undef);
	}
	return $status eq 'in_doubt' ? undef : $status if $action =~ /^resolve/;
	return $status eq 'pending' ? undef : $status if $action eq 'cancel';
	if ($action eq 'reinstate')
	{
		return $status if $status ne 'cancelled';
		return 'followed' if !$is_last;
		return $self->_reaches_cap($grant, @among) ? 'cap' : undef;
	}
	# retry
	return $status if $status !~ /^(?:failed|pending|in_doubt)$/;
	return 'followed' if $status eq 'failed' && !$is_last;
	return undef if $status eq 'failed';
	return 'elsewhere' if $status eq 'in_doubt' && $grant->{elsewhere};
	return $grant->{later} ? undef : 'due' if $status eq 'pending';
	return $gateway->{policy} eq 'resend' ? undef : 'policy';
}

sub _reaches_cap
{
	my ($self, $grant, @among) = @_;
	my $strategy = $self->{strategies}{ $grant->{strategy} };

	return 0 if !defined $strategy->{cap} || $grant->{revision} > 0;
	my @counted = grep {
		my $other = $_;
		$other->{user} eq $grant->{user}
		  && ($other->{status} ne 'cancelled' || $other->{id} < $grant->{id} && grep { $_ == $other } @among)
	} $self->first_grants_of($strategy->{id});
	return @counted >= $strategy->{cap};
}

# Decides about those of the grants that allow it; returns them.
sub decide
{
	my ($self, $action, @grants) = @_;
	my @possible = grep { !defined $self->obstacle($action, $_, @grants) } @grants;

	$self->_apply($action, $_) foreach @possible;
	$self->continue_reversals(map { $_->{id} } @possible) if @possible;
	return @possible;
}

sub _apply
{
	my ($self, $action, $grant) = @_;
	my %after = (
		resolve_applied => 'completed', resolve_not_applied => 'pending', correct_applied => 'completed', correct_not_applied => 'pending',
		cancel => 'cancelled', reinstate => 'pending');
	my $before = $grant->{status};

	$grant->{status} = $after{$action} // ($before eq 'failed' ? 'pending' : $before);
	$grant->{resolved} = $action =~ /not_applied/ ? 0 : 1 if $action =~ /applied/;
	$grant->{said_applied} = 1 if $grant->{status} eq 'completed';
	# As if it had never been sent.
	$grant->{epoch}++ if $action =~ /not_applied/;
	$grant->{said_applied} = 0 if $action =~ /not_applied/;
	$grant->{later} = 0;
	$grant->{elsewhere} = 0 if $grant->{status} ne 'in_doubt';
	$grant->{acts} = 1 if $action eq 'retry' && $before eq 'in_doubt';
	$grant->{acts} = 0 if $grant->{status} ne 'in_doubt';
	return;
}

# --- reversals

sub head
{
	my ($self, $grant) = @_;

	my @applied = grep { $_->{revision} >= $grant->{revision} && $_->{status} !~ /^(?:failed|cancelled)$/ } @{ $self->chain(@{$grant}{qw(strategy user firing)}) };

	return $applied[-1];
}

sub _outcome_of
{
	my ($reversal, $id) = @_;
	my $item = $reversal->{items}{$id};

	return $item ? $item->{outcome} : '';
}

sub is_awaited
{
	my ($self, $id) = @_;

	return scalar grep { _outcome_of($_, $id) eq 'waits' } values %{ $self->{reversals} };
}

# What a reversal does with a grant.
sub outcome
{
	my ($self, $grant) = @_;
	my $head = $self->head($grant);

	return "nothing to do: $grant->{status}" if !$head;
	return $head->{status} eq 'completed' ? 'taken back before' : 'is being taken back' if $head->{amount} != $grant->{amount};
	return 'cancelled' if $head->{status} eq 'pending';
	return 'taken back' if $head->{status} eq 'completed';
	return 'waits already' if $self->is_awaited($head->{id});
	return $head->{status} eq 'in_doubt' ? 'waits: in doubt' : 'waits: being sent';
}

# Of several revisions of a grant the first one counts.
sub _first_revisions
{
	my ($self, @grants) = @_;
	my %first;

	foreach my $grant (sort { $a->{revision} <=> $b->{revision} } @grants)
	{
		$first{ key(@{$grant}{qw(strategy user firing)}) } //= $grant;
	}
	my @first = sort { $a->{id} <=> $b->{id} } values %first;

	return @first;
}

sub preview_reversal
{
	my ($self, @grants) = @_;
	my %first = map { $_->{id} => 1 } $self->_first_revisions(@grants);
	my %outcome;

	foreach my $grant (@grants)
	{
		my $outcome = $first{ $grant->{id} } ? $self->outcome($grant) : 'named twice';

		$outcome{$outcome}[0]++;
		$outcome{$outcome}[1] += $grant->{amount};
	}
	return \%outcome;
}

# Reverses grants as a reversal that is known by its id from now on; returns whether it did anything.
sub reverse
{
	my ($self, $id, $grants) = @_;
	my $reversal = { items => {}, order => ++$self->{order} };
	my @first = $self->_first_revisions(@$grants);

	return 0 if !grep { $self->outcome($_) =~ /^(?:cancelled|taken back|waits: .*)$/ } @first;
	$self->{reversals}{$id} = $reversal;
	$self->_reverse_each($reversal, @first);
	return 1;
}

sub _reverse_each
{
	my ($self, $reversal, @grants) = @_;
	my @outcomes = map { [ $_, scalar $self->head($_), $self->outcome($_) ] } @grants;

	foreach my $entry (@outcomes)
	{
		my ($grant, $head, $outcome) = @$entry;

		if ($outcome eq 'cancelled')
		{
			$self->_apply('cancel', $head);
			$reversal->{items}{ $head->{id} } = { outcome => 'cancelled' };
		}
		elsif ($outcome eq 'taken back')
		{
			my $chain = $self->chain(@{$head}{qw(strategy user firing)});
			my $doubtful = $reversal->{order} < $self->{doubtful};
			my $opposite = $self->add_grant(
				%{$head}{qw(strategy user firing gateway model version)},
				revision => $chain->[-1]{revision} + 1, status => $doubtful ? 'in_doubt' : 'pending', amount => -$head->{amount}, elsewhere => $doubtful);

			$reversal->{items}{ $head->{id} } = { outcome => 'taken_back', opposite => $opposite };
		}
		elsif ($outcome =~ /^waits: /)
		{
			$reversal->{items}{ $head->{id} } = { outcome => 'waits' };
		}
	}
	return;
}

# Goes on with reversals that wait for what is settled by now; ids: only those.
sub continue_reversals
{
	my ($self, @ids) = @_;
	my $all = !@ids;
	my $continued = 0;

	foreach my $number (sort { $a <=> $b } keys %{ $self->{reversals} })
	{
		my $reversal = $self->{reversals}{$number};
		my @settled = grep {
			my $id = $_;
			$reversal->{items}{$id}{outcome} eq 'waits' && $self->{by_id}{$id}{status} !~ /^(?:processing|in_doubt)$/ && ($all || grep { $_ == $id } @ids)
		} keys %{ $reversal->{items} };

		$continued += @settled;
		$self->_reverse_each($reversal, $self->_first_revisions(map { $self->{by_id}{$_} } @settled));
		$reversal->{items}{$_}{outcome} = 'nothing'
		  foreach grep { $reversal->{items}{$_}{outcome} eq 'waits' && $self->outcome($self->{by_id}{$_}) !~ /^(?:cancelled|taken back$|waits)/ } @settled;
	}
	return $continued;
}

# The targets of an undo: grants to reverse, to reinstate, and those that it still waits for.
sub undo_targets
{
	my ($self, $id) = @_;
	my $items = $self->{reversals}{$id}{items};
	my (@opposites, @cancelled, @waiting);

	foreach my $grant_id (sort { $a <=> $b } keys %$items)
	{
		my $item = $items->{$grant_id};
		my $grant = $self->{by_id}{$grant_id};

		next if $grant->{pruned};
		push @opposites, $item->{opposite} // $grant if $item->{outcome} =~ /^(?:taken_back|reinstated|spared)$/;
		push @waiting, $grant if $item->{outcome} eq 'waits';
		next if $item->{outcome} ne 'cancelled';
		# What was reinstated, and cancelled again since, was cancelled by somebody else.
		next if $grant->{status} eq 'cancelled'
		  && grep { ($_->{undone} // 0) == $id && _outcome_of($_, $grant_id) eq 'reinstated' } values %{ $self->{reversals} };
		push @cancelled, $grant;
	}
	return (\@opposites, \@cancelled, \@waiting);
}

# Was what an undone reversal is about reversed again since? Then a second undo is refused.
sub is_reversed_since
{
	my ($self, $id) = @_;
	my ($undone) = sort { $a <=> $b } grep { ($self->{reversals}{$_}{undone} // 0) == $id } keys %{ $self->{reversals} };

	return 0 if !defined $undone;
	my %about = map { key(@{$_}{qw(strategy user firing)}) => 1 } grep { !$_->{pruned} } map { $self->{by_id}{$_} } keys %{ $self->{reversals}{$id}{items} };
	foreach my $number (grep { $_ > $undone && ($self->{reversals}{$_}{undone} // 0) != $id } keys %{ $self->{reversals} })
	{
		my $items = $self->{reversals}{$number}{items};

		return 1 if grep { $items->{$_}{outcome} =~ /^(?:taken_back|cancelled)$/ && $about{ key(@{ $self->{by_id}{$_} }{qw(strategy user firing)}) } } keys %$items;
	}
	return 0;
}

sub undo
{
	my ($self, $new, $id) = @_;
	my ($opposites, $cancelled, $waiting) = $self->undo_targets($id);

	return 0 if !$self->undo_does_something($id);
	my $reversal = $self->{reversals}{$new} = { items => {}, undone => $id, order => ++$self->{order} };
	$self->_reverse_each($reversal, $self->_first_revisions(@$opposites));
	foreach my $grant (grep { !defined $self->obstacle('reinstate', $_, @$cancelled) } @$cancelled)
	{
		$self->_apply('reinstate', $grant);
		$reversal->{items}{ $grant->{id} } = { outcome => 'reinstated' };
	}
	foreach my $grant (grep { $self->{reversals}{$id}{items}{ $_->{id} }{outcome} eq 'waits' } @$waiting)
	{
		$self->{reversals}{$id}{items}{ $grant->{id} }{outcome} = 'withdrawn';
		$reversal->{items}{ $grant->{id} } //= { outcome => 'spared' };
	}
	return 1;
}

sub undo_does_something
{
	my ($self, $id) = @_;
	my ($opposites, $cancelled, $waiting) = $self->undo_targets($id);

	return @$waiting
	  || (grep { $self->outcome($_) =~ /^(?:cancelled|taken back|waits: .*)$/ } $self->_first_revisions(@$opposites))
	  || grep { !defined $self->obstacle('reinstate', $_, @$cancelled) } @$cancelled;
}

1;
