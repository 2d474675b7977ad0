
=pod

=head1 NAME

QuotaTest::Audit - compares what gateways applied with what the database says

=head1 DESCRIPTION

  my $audit = QuotaTest::Audit->new($node, gateway => $mock, ...);
  is_deeply([ $audit->problems ], [], 'whatever is going on');
  is_deeply([ $audit->all_problems ], [], 'and those that are long settled');
  is_deeply([ $audit->open ], [], 'when everything has come to an end');

A gateway's changes are told from each other by their Idempotency-Key. A change of 0
without a key is how the courier finds out whether a gateway takes grants, and does
not count.

=cut

package QuotaTest::Audit;

use strict;
use warnings FATAL => 'all';

sub new
{
	my ($class, $node, %mocks) = @_;

	return bless {
		node => $node,
		mocks => \%mocks,
		seen => { map { $_ => 0 } keys %mocks },    # changes read so far
		applied => { map { $_ => {} } keys %mocks },    # by id: how often, and the last one
		settled => { map { $_ => 0 } keys %mocks },    # up to this id nothing changes any more
		stray => [],
	}, $class;
}

# Reads what the gateways have applied since.
sub _read_gateways
{
	my ($self) = @_;

	$self->{installation} //=
	  $self->{node}->safe_psql('postgres', 'SELECT id FROM quota_manager.quota_installation');
	foreach my $gateway (sort keys %{ $self->{mocks} })
	{
		foreach my $change ($self->{mocks}{$gateway}->applied(from => $self->{seen}{$gateway} + 1))
		{
			my $key = $change->{idempotency_key} // '';

			$self->{seen}{$gateway} = $change->{seq};
			next if $key eq '' && $change->{amount} == 0;
			if ($key =~ /^\Q$self->{installation}\E-(\d+)$/ && $change->{action} eq 'delta')
			{
				my $applied = $self->{applied}{$gateway}{$1} //= { count => 0 };

				$applied->{count}++;
				$applied->{change} = $change;
			}
			else
			{
				push @{ $self->{stray} },
				  "$gateway: $change->{action} of $change->{amount} with the key $key";
			}
		}
	}
	return;
}

# The grants of a gateway that are not known to be settled, by id: status, user, amount.
sub _grants
{
	my ($self, $gateway) = @_;

	return map {
		my ($id, $status, $amount, $acts, $user) = split /\|/, $_, 5;
		$id => { status => $status, amount => $amount, acts => $acts eq 't', user => $user }
	} split /\n/, $self->{node}->safe_psql('postgres', qq{
		SELECT id, status, trim_scale(amount), next_attempt_time < 'infinity', user_id FROM quota_manager.quota_execute
		WHERE gateway = '$gateway' AND id > $self->{settled}{$gateway}});
}

# Remembers up to where the grants that were just looked at are completed, or left to an operator.
sub _settle
{
	my ($self, $gateway, $grants) = @_;

	foreach my $id (sort { $a <=> $b } keys %$grants)
	{
		my $grant = $grants->{$id};

		last unless $grant->{status} eq 'completed' || ($grant->{status} eq 'in_doubt' && !$grant->{acts});
		$self->{settled}{$gateway} = $id;
	}
	return;
}

# What contradicts the promise, at any moment. The list of changes is read before and after the grants:
# what was applied before must be known as sent, and what is completed must have been applied by then.
sub problems
{
	my ($self) = @_;
	my @problems;

	$self->_read_gateways;
	my %before = map {
		my $applied = $self->{applied}{$_};
		$_ => { map { $_ => 1 } keys %$applied }
	} keys %{ $self->{mocks} };
	my %grants = map { $_ => { $self->_grants($_) } } keys %{ $self->{mocks} };
	$self->_read_gateways;

	foreach my $gateway (sort keys %grants)
	{
		my $grants = $grants{$gateway};
		my $applied = $self->{applied}{$gateway};

		foreach my $id (sort { $a <=> $b } keys %$applied)
		{
			my ($grant, $count, $change) = ($grants->{$id}, @{ $applied->{$id} }{ 'count', 'change' });

			push @problems, "$gateway: grant $id was applied $count times" if $count > 1;
			next if !$before{$gateway}{$id} || $id <= $self->{settled}{$gateway};
			if (!$grant)
			{
				push @problems, "$gateway: grant $id was applied and is unknown";
				next;
			}
			push @problems, "$gateway: grant $id was applied and is $grant->{status}"
			  if $grant->{status} !~ /^(?:completed|in_doubt|processing)$/;
			push @problems, "$gateway: grant $id of $grant->{amount} to $grant->{user}"
			  . " was applied as $change->{amount} to $change->{user}"
			  if $grant->{user} ne $change->{user} || $grant->{amount} != $change->{amount};
		}
		push @problems, map { "$gateway: grant $_ is completed and was not applied" }
		  grep { $grants->{$_}{status} eq 'completed' && !$applied->{$_} }
		  sort { $a <=> $b } keys %$grants;
		$self->_settle($gateway, $grants);
	}
	$self->{grants} = \%grants;
	return (@problems, @{ $self->{stray} });
}

# The same of all grants, those too that were settled at an earlier look.
sub all_problems
{
	my ($self) = @_;

	$self->{settled}{$_} = 0 foreach keys %{ $self->{mocks} };
	return $self->problems;
}

# What has not come to an end, when nothing is going on any more, as of the last look at the problems.
sub open
{
	my ($self) = @_;
	my @open;

	foreach my $gateway (sort keys %{ $self->{grants} })
	{
		my $grants = $self->{grants}{$gateway};

		push @open, map { "$gateway: grant $_ is $grants->{$_}{status}" }
		  grep { $grants->{$_}{status} !~ /^(?:completed|in_doubt)$/ }
		  sort { $a <=> $b } keys %$grants;
	}
	return @open;
}

# Figures of a gateway as of the last look at all problems: grants by status, as a hash, and applied.
sub figures
{
	my ($self, $gateway) = @_;
	my %figure = (completed => 0, in_doubt => 0, grants => 0);

	foreach my $grant (values %{ $self->{grants}{$gateway} })
	{
		$figure{ $grant->{status} }++;
		$figure{grants}++;
	}
	$figure{applied} = keys %{ $self->{applied}{$gateway} };
	return %figure;
}

1;
