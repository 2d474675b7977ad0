
=pod

=head1 NAME

QuotaTest::OperatorViews - views and explanations, compared with the model of a history of operators

=head1 DESCRIPTION

A part of L<QuotaTest::OperatorHistory>.

=cut

package QuotaTest::OperatorViews;

use strict;
use warnings FATAL => 'all';

use QuotaTest::OperatorBasics;
use QuotaTest::OperatorModel;

# Views that people read.
sub compare_views
{
	my ($self) = @_;
	my $model = $self->{model};
	my %name = map { $_ => $model->{strategies}{$_}{name} } keys %{ $model->{strategies} };
	my @grants = grep { !$_->{pruned} } $model->all_grants;
	my (%trouble, %figure);

	foreach my $grant (@grants)
	{
		$figure{ $grant->{gateway} }{ $grant->{status} }++;
		next if $grant->{status} !~ /^(?:failed|in_doubt)$/;
		my $row = $trouble{"$grant->{gateway} $name{$grant->{strategy}}"} //= { failed => 0, in_doubt => 0, await => 0, amount => 0 };
		$row->{ $grant->{status} }++;
		$row->{await}++ if $model->awaits_people($grant);
		$row->{amount} += $grant->{amount};
	}
	$self->compare_rows('trouble_counts', 'SELECT gateway, strategy, failed, in_doubt, await_you, trim_scale(amount) FROM trouble_counts',
		{ map { $_ => join ' ', @{ $trouble{$_} }{qw(failed in_doubt await)}, QuotaTest::OperatorModel::round($trouble{$_}{amount}) } keys %trouble }, 2);
	$self->compare_rows('metrics', 'SELECT gateway, pending_grants, processing_grants, failed_grants, in_doubt_grants, gateway_paused FROM metrics WHERE gateway IS NOT NULL',
		{ map { $_ => join ' ', (map { $_ // 0 } @{ $figure{$_} }{qw(pending processing failed in_doubt)}), $model->{everything_paused} || $model->{gateways}{$_}{paused} ? 1 : 0 } @GATEWAYS }, 1);
	my @strategies = values %{ $model->{strategies} };
	$self->compare_rows('metrics of all', q(SELECT 'all', strategies_in_use, paused, strategies_stopped FROM metrics WHERE gateway IS NULL),
		{ all => join ' ', scalar(grep { $_->{state} eq 'active' } @strategies), $model->{everything_paused}, scalar(grep { $_->{breaker} } @strategies) }, 1);

	my %sum;
	foreach my $grant (grep { !$model->{strategies}{ $_->{strategy} }{pruned} } $model->all_grants)
	{
		my $row = $sum{ $name{ $grant->{strategy} } } //= [ 0, 0 ];

		next if $grant->{revision} > 0;
		$row->[0]++;
		$row->[1] += $grant->{amount};
	}
	$self->compare_rows('grant_totals', 'SELECT strategy, sum(granted), trim_scale(sum(amount)) FROM grant_totals WHERE NOT is_reversal AND strategy_id NOT IN (SELECT strategy_id FROM pruned_grant) GROUP BY strategy',
		{ map { $_ => "$sum{$_}[0] " . QuotaTest::OperatorModel::round($sum{$_}[1]) } keys %sum }, 1);

	# With reversals, the sum over a strategy is what its grants come to.
	%sum = ();
	foreach my $grant (grep { !$model->{strategies}{ $_->{strategy} }{pruned} } $model->all_grants)
	{
		$sum{ $name{ $grant->{strategy} } } = ($sum{ $name{ $grant->{strategy} } } // 0) + $grant->{amount};
	}
	$self->compare_rows('grant_totals with reversals', 'SELECT strategy, trim_scale(sum(amount)) FROM grant_totals WHERE strategy_id NOT IN (SELECT strategy_id FROM pruned_grant) GROUP BY strategy',
		{ map { $_ => QuotaTest::OperatorModel::round($sum{$_}) } keys %sum }, 1);

	my $user = pick(@USERS);
	my %total;
	foreach my $grant (grep { $_->{user} eq $user } @grants)
	{
		$total{ $grant->{model} } += $grant->{status} eq 'completed' ? $grant->{amount} : 0;
	}
	$self->compare_rows('pruned_grant', 'SELECT strategy_id, user_id, sum(completed), trim_scale(sum(amount)) FROM pruned_grant GROUP BY 1, 2', $self->pruned_sums, 2);
	return if !%total && !$model->{users}{$user};
	$self->compare_rows("user_page of $user", sprintf(q(SELECT entry, value FROM user_page(%s) WHERE section = 'total'), quoted($user)), { map { $_ => QuotaTest::OperatorModel::round($total{$_}) } keys %total }, 1);
	return;
}

# What was deleted, by strategy and user.
sub pruned_sums
{
	my ($self) = @_;
	my %sum;

	foreach my $grant (grep { $_->{pruned} } $self->{model}->all_grants)
	{
		my $row = $sum{"$grant->{strategy} $grant->{user}"} //= [ 0, 0 ];

		next if $grant->{status} ne 'completed';
		$row->[0]++;
		$row->[1] += $grant->{amount};
	}
	return { map { $_ => "$sum{$_}[0] " . QuotaTest::OperatorModel::round($sum{$_}[1]) } keys %sum };
}

# Rows of a query whose first columns are their key.
sub compare_rows
{
	my ($self, $what, $query, $wanted, $keys) = @_;
	my %found = map { join(' ', @{$_}[ 0 .. $keys - 1 ]) => join(' ', @{$_}[ $keys .. $#$_ ]) } @{ $self->ask($query) };

	foreach my $key (sort keys %{ { %found, %$wanted } })
	{
		$self->problem("$what, $key: " . ($found{$key} // 'missing') . ', and should be ' . ($wanted->{$key} // 'missing'))
		  if ($found{$key} // 'missing') ne ($wanted->{$key} // 'missing');
	}
	return;
}

# What a condition says of a user, of all users, and of an edit.
sub compare_explanations
{
	my ($self) = @_;
	my $model = $self->{model};
	my $strategy = $self->random_strategy // return;
	my $user = $self->random_user // return;
	my $name = quoted($strategy->{name});
	my @words = qw(false unknown true);

	$self->read_balances;
	$model->{balances} = sub { return $self->{known}{ $_[1] }{ $_[0] } };
	my $word = sub { return $words[ $model->holds($strategy, $_[0], 0) + $model->holds($strategy, $_[0], 1) ]; };
	$self->compare_rows("explain_match($user, $strategy->{name})", sprintf(q(SELECT 'whole', result FROM explain_match(%s, %s) WHERE parent IS NULL), quoted($user), $name), { whole => $word->($user) }, 1);
	my %count = map { $_ => 0 } @words;
	$count{ $word->($_) }++ foreach keys %{ $model->{users} };
	$self->compare_rows("funnel($strategy->{name})", "SELECT 'whole', holds, fails, unknown FROM funnel($name) LIMIT 1", { whole => "@count{qw(true false unknown)}" }, 1);

	my $version = pick(sort { $a <=> $b } keys %{ $strategy->{versions} });
	return if $version == $strategy->{version};
	my %change = (gained => 0, lost => 0, kept => 0);
	foreach my $id (keys %{ $model->{users} })
	{
		my $now = $model->holds($strategy, $id, 0);
		my $then = $model->holds({ %$strategy, meets => $strategy->{versions}{$version} }, $id, 0);

		$change{ $now && $then ? 'kept' : $now ? 'gained' : 'lost' }++ if $now || $then;
	}
	$self->compare_rows("diff_counts($strategy->{name}, $version)", "SELECT 'users', gained, lost, kept FROM diff_counts($name, $version)", { users => "@change{qw(gained lost kept)}" }, 1);
	return;
}

# why() names what is the case.
sub compare_why
{
	my ($self) = @_;
	my $model = $self->{model};
	my $strategy = $self->random_strategy // return;
	my $user = $self->random_user // return;
	$self->read_balances;
	$model->{balances} = sub { return $self->{known}{ $_[1] }{ $_[0] } };
	my @rows = @{ $self->ask(sprintf 'SELECT kind, what FROM why(%s, %s)', quoted($user), quoted($strategy->{name})) };
	my $told = sub {
		my ($kind, $pattern) = @_;
		return scalar grep { $_->[0] eq $kind && $_->[1] =~ $pattern } @rows;
	};
	my @own = grep { $_->{user} eq $user && $_->{strategy} == $strategy->{id} && !$_->{pruned} } $model->all_grants;
	my $had = grep { $_->{user} eq $user && ($_->{status} ne 'cancelled' || $strategy->{type} eq 'single') } $model->first_grants_of($strategy->{id});
	my $what = "why($user, $strategy->{name})";
	my %wanted = (
		'grant, .' => scalar(grep { $_->{revision} == 0 } @own), 'reversal, .' => scalar(grep { $_->{revision} > 0 } @own), 'delivery, .' => scalar @own,
		'now, ^the user meets the condition' => $model->holds($strategy, $user, 0), 'now, ^the user does not meet the condition' => 1 - $model->holds($strategy, $user, 1),
		'now, ^whether' => $model->holds($strategy, $user, 1) - $model->holds($strategy, $user, 0),
		'now, it grants nothing' => $strategy->{state} eq 'active' ? 0 : 1,
		'brake, ^everything was paused' => $model->{everything_paused} ? 1 : 0, 'brake, ^gateway' => $model->{gateways}{ $model->{models}{ $strategy->{model} } }{paused} ? 1 : 0,
		'brake, ^the strategy was paused' => ($strategy->{state} eq 'paused' ? 1 : 0) + ($strategy->{breaker} ? 1 : 0),
		'now, a single strategy grants once' => $strategy->{type} eq 'single' && $had ? 1 : 0,
		'now, as many as max_exec_per_user' => $strategy->{type} eq 'periodic' && defined $strategy->{cap} && $had >= $strategy->{cap} ? 1 : 0);

	foreach my $entry (sort keys %wanted)
	{
		my ($kind, $pattern) = split /, /, $entry, 2;
		my $times = $told->($kind, qr/$pattern/);

		$self->problem("$what says '$entry' $times times, and should $wanted{$entry} times:\n" . join "\n", map { "@$_" } @rows) if $times != $wanted{$entry};
	}
	return;
}

1;
