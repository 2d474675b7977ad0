
=pod

=head1 NAME

QuotaTest::OperatorGrants - grants, balances and records, compared with the model of a history of operators

=head1 DESCRIPTION

A part of L<QuotaTest::OperatorHistory>. What gateways have applied is read from L<QuotaTest::Mock>.

=cut

package QuotaTest::OperatorGrants;

use strict;
use warnings FATAL => 'all';

use List::Util qw(min sum0);
use QuotaTest::OperatorBasics;
use QuotaTest::OperatorModel;

# Changes that the gateways have made since: by grant, or by hand. Those of grants are kept until they are compared.
sub read_gateways
{
	my ($self) = @_;
	my $applied = $self->{applied};

	foreach my $gateway (@GATEWAYS)
	{
		foreach my $change ($self->{mocks}{$gateway}->applied(from => $self->{seen}{$gateway} + 1))
		{
			my $key = $change->{idempotency_key} // '';

			$self->{seen}{$gateway} = $change->{seq};
			$self->{total}{$gateway}{ $change->{user} } += $change->{amount};
			if ($key =~ /^[0-9a-f-]{36}-(\d+)$/)
			{
				push @{ $applied->{$1} }, { gateway => $gateway, %$change };
			}
			else
			{
				push @{ $self->{by_hand} }, { gateway => $gateway, %$change };
			}
		}
	}
	return $applied;
}

my %MAY_BECOME = (
	pending => 'pending|processing|completed|failed|in_doubt',
	processing => 'pending|processing|completed|failed|in_doubt',
	in_doubt => 'in_doubt|completed|pending|processing|failed',
	completed => 'completed',
	failed => 'failed',
	cancelled => 'cancelled');

# Compares all grants with the model; sends: deliveries may have gone on with them since.
sub compare_grants
{
	my ($self, $sends) = @_;
	my $model = $self->{model};
	my $applied = $self->read_gateways;
	my (%seen, @wrong);

	foreach my $row (@{ $self->ask(<<'SQL') })
SELECT e.id, e.strategy_id, e.user_id, CASE e.scheduled_time WHEN '-infinity' THEN 'once' ELSE extract(epoch FROM e.scheduled_time)::bigint::text END, e.revision, e.status,
	trim_scale(e.amount), e.gateway, e.model, e.strategy_version, e.next_attempt_time < 'infinity', e.next_attempt_time > clock_timestamp(), e.run_id, e.last_error
FROM quota_execute e ORDER BY e.id
SQL
	{
		my ($id, $strategy, $user, $firing, $revision, $status, $amount, $gateway, $name, $version, $acts, $later, $run) = @$row;
		my $find = sub { return (grep { $_->{revision} == $revision } @{ $model->chain($strategy, $user, $firing) })[0]; };
		my $grant = $find->();
		my $what = "grant $id (strategy $strategy, $user, $firing, revision $revision)";

		# What was waited for is settled by now; it has a lower id.
		if (!$grant && $self->{workers} && $model->continue_reversals)
		{
			$grant = $find->();
		}
		if (!$grant)
		{
			push @wrong, "$what of $amount is there, $status, and should not be";
			next;
		}
		$model->name_grant($grant, $id) if !defined $grant->{id};
		$seen{$id} = 1;
		push @wrong, "$what has the id $id and had $grant->{id}" if $grant->{id} != $id;
		push @wrong, "$what is of $amount of $name at $gateway by version $version, and should be of $grant->{amount} of $grant->{model} at $grant->{gateway} by version $grant->{version}"
		  if differ($grant->{amount}, $amount) || $grant->{gateway} ne $gateway || $grant->{model} ne $name || $grant->{version} != $version;
		# It turned out that it was not applied, and so the reversal that waited for it has cancelled it.
		if ($self->{workers} && $status eq 'cancelled' && $grant->{status} =~ /^(?:processing|in_doubt)$/ && $model->is_awaited($id))
		{
			$grant->{status} = 'pending';
			$model->continue_reversals($id);
		}
		push @wrong, $self->compare_status($what, $grant, $status, $applied->{$id} // [], $sends);
		@{$grant}{qw(acts later run)} = ($status eq 'in_doubt' && $acts eq 't', $later eq 't', $run);
		delete $applied->{$id};
	}
	$model->continue_reversals if $self->{workers};
	push @wrong, map { "two revisions $_->{revision} of a grant" } grep { my $g = $_; 1 < grep { $_->{revision} == $g->{revision} } @{ $model->chain(@{$g}{qw(strategy user firing)}) } } $model->all_grants;
	push @wrong, map { "grant of $_->{amount} to $_->{user} of strategy $_->{strategy} for $_->{firing}, revision $_->{revision}, is missing" }
	  grep { !$_->{pruned} && (!defined $_->{id} || !$seen{ $_->{id} }) } $model->all_grants;
	push @wrong, map { "a gateway applied grant $_, which is not there" } keys %$applied;
	$self->problem(join "\n", @wrong[ 0 .. min(9, $#wrong) ]) if @wrong;
	return;
}

# One grant: its status, and what the gateway applied of it since the last look.
sub compare_status
{
	my ($self, $what, $grant, $status, $changes, $sends) = @_;
	my $model = $self->{model};
	my $gateway = $grant->{gateway};
	my $held = $self->{held_grants}{ $grant->{id} } && $model->grant_is_held($grant);
	my $before = $grant->{status};
	my $was_sent = delete $grant->{was_sent};
	my @wrong;

	foreach my $change (@$changes)
	{
		push @wrong, "$what was applied at $change->{gateway} as $change->{amount} to $change->{user}"
		  if $change->{gateway} ne $gateway || differ($change->{amount}, $grant->{amount}) || $change->{user} ne $grant->{user};
		push @wrong, "$what was $before and is $status, is held, and was sent" if $held;
		push @wrong, "$what was $before and was sent" if $before !~ /^(?:pending|processing|in_doubt)$/ && !$was_sent;
		$grant->{applied}{ $grant->{epoch} // 0 }++;
	}
	push @wrong, "$what was applied although nothing sends" if @$changes && !$sends;
	my $here = $grant->{applied}{ $grant->{epoch} // 0 } // 0;
	my $ever = sum0 values %{ $grant->{applied} // {} };
	# A gateway that knows the key does not apply it again, whoever says what.
	my $counts = $gateway eq 'resend' ? $ever : $here;

	push @wrong, "$what was applied $counts times" if $counts > 1;
	if ($sends && !$held)
	{
		push @wrong, "$what was $before and is $status" if $status !~ /^(?:$MAY_BECOME{$before})$/;
	}
	elsif ($sends)
	{
		push @wrong, "$what is held, was $before and is $status" if $status ne $before && !($before eq 'processing' || $before eq 'in_doubt');
	}
	else
	{
		push @wrong, "$what is $status and should be $before" if $status ne $before;
	}
	push @wrong, "$what is completed and was not applied" if $status eq 'completed' && !$counts && !$grant->{said_applied};
	push @wrong, "$what is $status and was applied"
	  if $status =~ /^(?:pending|failed|cancelled)$/ && $here && !($before eq $status);
	$self->{grants}{$status}{ $grant->{id} } = 1;
	$grant->{status} = $status;
	return @wrong;
}

# The total of each user at each gateway is what the grants say.
sub compare_totals
{
	my ($self) = @_;
	my $model = $self->{model};
	my %total;

	foreach my $grant ($model->all_grants)
	{
		$total{ $grant->{gateway} }{ $grant->{user} } += $grant->{amount} * sum0(values %{ $grant->{applied} // {} });
	}
	foreach my $change (@{ $self->{by_hand} })
	{
		$total{ $change->{gateway} }{ $change->{user} } += $change->{amount};
	}
	foreach my $gateway (@GATEWAYS)
	{
		foreach my $user (sort keys %{ $self->{total}{$gateway} })
		{
			$self->problem("$user has $self->{total}{$gateway}{$user} at $gateway, and should have $total{$gateway}{$user}")
			  if differ($self->{total}{$gateway}{$user}, $total{$gateway}{$user});
		}
	}
	return;
}

# What a gateway answers for a user: zgsm does not tell how much a total is below zero.
sub true_balance
{
	my ($self, $gateway, $user) = @_;
	my $balance = QuotaTest::OperatorModel::round(($self->{before}{$gateway}{$user} // 0) + ($self->{total}{$gateway}{$user} // 0));

	return $balance < 0 && $DIALECT{$gateway} eq 'zgsm' ? -0.000001 : $balance;
}

# The balances that count at this moment, by gateway and user; each must be the true one.
sub read_balances
{
	my ($self) = @_;
	my %known;

	foreach my $row (@{ $self->ask(<<'SQL') })
SELECT gateway, user_id, trim_scale(balance) FROM user_balance WHERE balance IS NOT NULL AND read_time > quota_internal.balance_horizon() AND read_time <= quota_internal.balance_clock()
SQL
	{
		my ($gateway, $user, $balance) = @$row;

		$known{$gateway}{$user} = $balance;
		next if grep { $_->{user} eq $user && $_->{gateway} eq $gateway && QuotaTest::OperatorModel::is_open($_) } $self->{model}->all_grants;
		my $true = $self->true_balance($gateway, $user);
		$self->problem("the balance of $user at $gateway counts as $balance, and is $true") if differ($balance, $true);
	}
	$self->{known} = \%known;
	return;
}

# Items of reversals, and counts, are those of the model.
sub compare_records
{
	my ($self) = @_;
	my $model = $self->{model};
	my (%found, %wanted);

	$found{"$_->[0] $_->[1]"} = "$_->[2] $_->[3]" foreach @{ $self->ask('SELECT reversal_id, grant_id, outcome, opposite_id FROM quota_reversal_item') };
	foreach my $id (keys %{ $model->{reversals} })
	{
		my $items = $model->{reversals}{$id}{items};

		foreach my $grant (keys %$items)
		{
			my $opposite = $items->{$grant}{opposite};

			$self->problem("grant $grant was not taken back by reversal $id") if $opposite && !defined $opposite->{id};
			$wanted{"$id $grant"} = "$items->{$grant}{outcome} " . ($opposite ? $opposite->{id} : '');
		}
	}
	foreach my $item (sort keys %{ { %found, %wanted } })
	{
		$self->problem("the reversal and grant $item: " . ($found{$item} // 'missing') . ', and should be ' . ($wanted{$item} // 'missing'))
		  if ($found{$item} // '') ne ($wanted{$item} // '');
	}
	# It reads all grants: not after each step.
	my $counts = $self->{step} % 3 == 1 || $self->{step} > $self->{steps} ? join '; ', map { join ' ', @$_ } @{ $self->ask('SELECT * FROM quota_internal.check_counts()') } : '';
	$self->problem("check_counts(): $counts") if $counts ne '';
	foreach my $row (@{ $self->ask('SELECT ceiling_id, grants, trim_scale(amount), grants_left, amount_left FROM ceiling_status') })
	{
		my ($id, $grants, $amount) = @$row;
		my $ceiling = $model->{ceilings}{$id};
		next if $ceiling->{period} eq 'run';
		my $used = $ceiling->{usage}{ $model->period_of($ceiling) } // { grants => 0, amount => 0 };

		$self->problem("ceiling $id has counted $grants grants of $amount, and should have $used->{grants} of $used->{amount}")
		  if $grants != $used->{grants} || differ($amount, $used->{amount});
	}
	return;
}

1;
