
=pod

=head1 NAME

QuotaTest::OperatorEdits - what operators do to users, strategies, brakes and ceilings in a history

=head1 DESCRIPTION

A part of L<QuotaTest::OperatorHistory>. Each action returns whether it did anything.

=cut

package QuotaTest::OperatorEdits;

use strict;
use warnings FATAL => 'all';

use List::Util qw(shuffle sum0);
use QuotaTest::OperatorBasics;
use QuotaTest::OperatorModel;

# --- users

sub random_user
{
	my ($self) = @_;

	return pick(sort keys %{ $self->{model}{users} });
}

sub random_attributes
{
	return (vip => pick(undef, 0, 1, 2, 3), org => pick(undef, @ORGS), github_star => pick(undef, @STARS));
}

sub add_user
{
	my ($self) = @_;
	my $model = $self->{model};
	my @absent = grep { !$model->{users}{$_} } @USERS;

	return 0 if !@absent;
	my %row = (id => pick(@absent), random_attributes());
	$self->act(sprintf 'INSERT INTO user_info (id, vip, org, github_star) VALUES (%s)', join ', ', map { quoted($row{$_}) } qw(id vip org github_star));
	$model->{users}{ $row{id} } = \%row;
	return 1;
}

sub change_users
{
	my ($self) = @_;
	my $model = $self->{model};
	my @users = (shuffle(sort keys %{ $model->{users} }))[ 0 .. between(0, 3) ];
	my %attribute = random_attributes();
	my $column = pick(sort keys %attribute);

	@users = grep { defined } @users;
	return 0 if !@users;
	$self->act(sprintf 'UPDATE user_info SET %s = %s WHERE id IN (%s)', $column, quoted($attribute{$column}), join ', ', map { quoted($_) } @users);
	$model->{users}{$_}{$column} = $attribute{$column} foreach @users;
	return 1;
}

sub remove_user
{
	my ($self) = @_;
	my $user = $self->random_user // return 0;

	$self->act(sprintf 'DELETE FROM user_info WHERE id = %s', quoted($user));
	delete $self->{model}{users}{$user};
	return 1;
}

# --- strategies

# What a call says of a user, as a part of a condition: of it, or of its negation.
sub call_of
{
	my ($text, $says) = @_;

	return ($text, sub { my ($row, $context, $positive) = @_; return $positive ? $says->($row) : !$says->($row); });
}

# A condition and what it means.
sub random_condition
{
	my ($self, $depth) = @_;
	my $kind = rand;

	$depth //= 0;
	return call_of('true()', sub { 1 }) if $kind < 0.12;
	if ($kind < 0.3 || $depth > 2)
	{
		my $level = between(0, 3);
		return call_of("is-vip($level)", sub { ($_[0]{vip} // 0) >= $level });
	}
	if ($kind < 0.42)
	{
		my $org = pick(@ORGS);
		return call_of(qq(belong-to("$org")), sub { ($_[0]{org} // '') eq $org });
	}
	if ($kind < 0.54)
	{
		my $star = pick(qw(zgsm vscode));
		return call_of(qq(github-star("$star")), sub { scalar grep { $_ eq $star } split / *, */, $_[0]{github_star} // '' });
	}
	if ($kind < 0.62)
	{
		my %ids = map { $_ => 1 } map { pick(@USERS) } 1 .. between(1, 6);
		return call_of(sprintf('match-user(%s)', join ', ', map { qq("$_") } sort keys %ids), sub { $ids{ $_[0]{id} } });
	}
	# Workers read balances when they like.
	if ($kind < 0.72 && !$self->{workers})
	{
		my ($gateway, $most) = (pick(@GATEWAYS), between(0, 20));
		return (
			"quota-le(m-$gateway, $most)",
			sub {
				my ($row, $context, $positive) = @_;
				my $balance = $context->{balance}->($gateway) // return $context->{unknown};
				return $positive ? $balance <= $most : $balance > $most;
			});
	}
	my ($text, $meets) = $self->random_condition($depth + 1);
	return ("not($text)", sub { my ($row, $context, $positive) = @_; return $meets->($row, $context, !$positive); }) if $kind < 0.8;
	my ($other_text, $other) = $self->random_condition($depth + 1);
	my $joins = $kind < 0.9 ? 'and' : 'or';
	# Of a negation, and is or.
	return ("$joins($text, $other_text)", sub { return ($joins eq 'and') == !!$_[2] ? $meets->(@_) && $other->(@_) : $meets->(@_) || $other->(@_); });
}

sub add_strategy
{
	my ($self) = @_;
	my $model = $self->{model};

	return 0 if keys %{ $model->{strategies} } >= 9;
	my ($condition, $meets) = $self->random_condition;
	my $type = pick(qw(single periodic));
	my %row = (
		name => 's' . ++$self->{strategies}, type => $type, amount => pick(1 .. 9, -2), model => 'm-' . pick(@GATEWAYS), condition => $condition,
		state => pick(qw(draft active active active paused)), allowance => $self->{workers} ? 'add' : pick(qw(add add add top_up exact)), max_exec_per_user => $type eq 'periodic' ? pick(undef, undef, 1, 2, 3) : undef,
		periodic_expr => $type eq 'periodic' ? pick(sort keys %QuotaTest::OperatorModel::schedules) : undef, catch_up => pick(qw(none latest all)));
	$row{amount} = abs $row{amount} if $row{allowance} ne 'add';
	my @columns = sort keys %row;
	my $rows = $self->act(sprintf 'INSERT INTO quota_strategy (%s) VALUES (%s) RETURNING id', join(', ', @columns), join ', ', map { quoted($row{$_}) } @columns);
	my $id = $rows->[0][0];

	$model->{strategies}{$id} = {
		%row{qw(name type amount model condition state catch_up allowance)}, id => $id, meets => $meets, cap => $row{max_exec_per_user}, expr => $row{periodic_expr}, version => 1,
		since => $model->{clock}, closed => $model->{clock}, runs => [], scans => [], created => ++$model->{order}, versions => { 1 => $meets }
	};
	return 1;
}

# What has granted something is proof.
sub delete_strategy
{
	my ($self) = @_;
	my $model = $self->{model};
	my $strategy = $self->random_strategy // return 0;
	my $is_proof = $strategy->{pruned} || $model->first_grants_of($strategy->{id});

	$self->act(sprintf('DELETE FROM quota_strategy WHERE name = %s', quoted($strategy->{name})), $is_proof ? '23503' : '');
	return 1 if $is_proof;
	delete $model->{strategies}{ $strategy->{id} };
	delete $model->{ceilings}{$_} foreach grep { ($model->{ceilings}{$_}{strategy} // 0) == $strategy->{id} } keys %{ $model->{ceilings} };
	return 1;
}

sub edit_gateway
{
	my ($self) = @_;
	my ($name, $policy) = @{ pick([ hold => 'hold' ], [ hold => 'reconcile' ], [ resend => 'hold' ], [ resend => 'resend' ], [ resend => 'resend' ], [ reconcile => 'hold' ], [ reconcile => 'reconcile' ], [ reconcile => 'reconcile' ]) };

	$self->act("UPDATE quota_gateway SET doubt_policy = '$policy', sole_writer = true WHERE name = '$name'");
	$self->{model}{gateways}{$name}{policy} = $policy;
	return 1;
}

sub random_strategy
{
	my ($self, $filter) = @_;
	my $strategies = $self->{model}{strategies};

	return pick(grep { !$filter || $filter->($_) } map { $strategies->{$_} } sort { $a <=> $b } keys %$strategies);
}

# The state follows an edit, or a call.
sub change_state
{
	my ($self, $strategy, $state) = @_;
	my $model = $self->{model};
	my $former = $strategy->{state};

	return if $state eq $former;
	$strategy->{since} = $model->{clock} if $state eq 'active' && $former ne 'active' || $former eq 'archived';
	$model->close_firings($strategy) if $strategy->{type} eq 'periodic';
	$strategy->{state} = $state;
	# One that is archived is neither held by the breaker nor released.
	delete @{$strategy}{qw(breaker released)} if $state eq 'archived';
	return;
}

sub next_version
{
	my ($self, $strategy) = @_;

	$strategy->{versions}{ ++$strategy->{version} } = $strategy->{meets};
	return;
}

sub edit_strategy
{
	my ($self) = @_;
	my $model = $self->{model};
	my $strategy = $self->random_strategy // return 0;
	my $kind = pick(qw(amount condition condition cap state state catch_up schedule model));
	my %change;
	my $error;

	if ($kind eq 'amount') { %change = (amount => pick(1 .. 9)); }
	elsif ($kind eq 'model') { %change = (model => 'm-' . pick(@GATEWAYS)); }
	elsif ($kind eq 'catch_up') { %change = (catch_up => pick(qw(none latest all))); }
	elsif ($kind eq 'cap')
	{
		%change = (max_exec_per_user => pick(undef, 1, 2, 3));
		$error = '55000' if $strategy->{pruned} && !defined $strategy->{cap} && defined $change{max_exec_per_user};
	}
	elsif ($kind eq 'state')
	{
		%change = (state => pick(qw(draft active active paused archived)));
		$error = '55000' if $change{state} eq 'draft' && $strategy->{state} ne 'draft' && ($strategy->{pruned} || $model->first_grants_of($strategy->{id}));
	}
	elsif ($kind eq 'schedule')
	{
		return 0 if $strategy->{type} eq 'single';
		%change = (periodic_expr => pick(sort keys %QuotaTest::OperatorModel::schedules));
	}
	my $meets;
	($change{condition}, $meets) = $self->random_condition if $kind eq 'condition';
	$self->act(sprintf('UPDATE quota_strategy SET %s, edit_note = %s WHERE name = %s', join(', ', map { "$_ = " . quoted($change{$_}) } sort keys %change),
			quoted("step $self->{step}"), quoted($strategy->{name})), $error);
	return 1 if defined $error;

	$strategy->{version}++;
	if (exists $change{periodic_expr} && $change{periodic_expr} ne $strategy->{expr})
	{
		$strategy->{since} = $model->{clock};
		$model->close_firings($strategy);
		$strategy->{expr} = $change{periodic_expr};
	}
	$strategy->{amount} = $change{amount} if exists $change{amount};
	$strategy->{catch_up} = $change{catch_up} if exists $change{catch_up};
	$strategy->{model} = $change{model} if exists $change{model};
	$strategy->{cap} = $change{max_exec_per_user} if exists $change{max_exec_per_user};
	@{$strategy}{qw(condition meets)} = ($change{condition}, $meets) if $meets;
	$strategy->{versions}{ $strategy->{version} } = $strategy->{meets};
	$self->change_state($strategy, $change{state}) if exists $change{state};
	return 1;
}

# --- brakes

sub pause_everything
{
	my ($self) = @_;
	my $model = $self->{model};

	$model->{everything_paused} = rand() < 0.35 ? 1 : 0;
	$self->act(sprintf 'SELECT %s(%s)', $model->{everything_paused} ? 'pause_all' : 'unpause_all', quoted("step $self->{step}"));
	return 1;
}

sub pause_gateway
{
	my ($self) = @_;
	my $name = pick(@GATEWAYS);
	my $gateway = $self->{model}{gateways}{$name};

	$gateway->{paused} = rand() < 0.35 ? 1 : 0;
	$self->act(sprintf 'SELECT %s(%s, %s)', $gateway->{paused} ? 'pause_gateway' : 'unpause_gateway', quoted($name), quoted("step $self->{step}"));
	return 1;
}

sub pause_strategy
{
	my ($self) = @_;
	my $strategy = $self->random_strategy // return 0;
	my $pauses = rand() < 0.4;
	my $error = $pauses && $strategy->{state} =~ /^(?:draft|archived)$/ ? '55000' : undef;

	$self->act(sprintf('SELECT %s(%s, %s)', $pauses ? 'pause_strategy' : 'unpause_strategy', quoted($strategy->{name}), quoted("step $self->{step}")), $error);
	return 1 if defined $error;
	if ($pauses && $strategy->{state} eq 'active')
	{
		$self->change_state($strategy, 'paused');
		$self->next_version($strategy);
	}
	elsif (!$pauses)
	{
		$strategy->{released} = $strategy->{breaker} if $strategy->{breaker};
		delete $strategy->{breaker};
		if ($strategy->{state} eq 'paused')
		{
			$self->change_state($strategy, 'active');
			$self->next_version($strategy);
		}
	}
	return 1;
}

# Strategies that the breaker has stopped are looked at.
sub release_strategy
{
	my ($self) = @_;
	my $strategy = $self->random_strategy(sub { $_[0]{breaker} }) // return 0;

	$self->act(sprintf 'SELECT unpause_strategy(%s, %s)', quoted($strategy->{name}), quoted("step $self->{step}"));
	$strategy->{released} = delete $strategy->{breaker};
	if ($strategy->{state} eq 'paused')
	{
		$self->change_state($strategy, 'active');
		$self->next_version($strategy);
	}
	return 1;
}

# --- ceilings

sub add_ceiling
{
	my ($self) = @_;
	my $model = $self->{model};

	return 0 if keys %{ $model->{ceilings} } >= 4;
	# Workers run strategies in an order of their own, and perhaps more than once.
	my $strategy = rand() < 0.6 || $self->{workers} ? $self->random_strategy : undef;
	return 0 if $self->{workers} && !$strategy;
	my %row = (
		strategy_id => $strategy ? $strategy->{id} : undef, period => pick($self->{workers} ? () : 'run', qw(day total)), on_excess => pick(qw(refuse cut)),
		max_grants => pick(undef, 3, 8, 20), max_amount => pick(undef, 10, 40, 100));
	$row{max_grants} //= 12 if !defined $row{max_amount};
	my @columns = sort keys %row;
	my $id = $self->act(sprintf 'INSERT INTO quota_ceiling (%s) VALUES (%s) RETURNING id', join(', ', @columns), join ', ', map { quoted($row{$_}) } @columns)->[0][0];
	my $ceiling = $model->{ceilings}{$id} = { %row, strategy => $row{strategy_id}, usage => {} };

	# What was granted before counts; grants know the real time alone, in which all of this is one day.
	if ($ceiling->{period} ne 'run')
	{
		my @all = grep { !$strategy || $_->{strategy} == $strategy->{id} } $model->all_grants;
		my @counted = grep { $_->{revision} == 0 && !$_->{pruned} && !($_->{old} && $ceiling->{period} eq 'day') } @all;
		my ($grants, $amount) = (scalar @counted, sum0 map { abs $_->{amount} } @counted);

		# Of those that were deleted, what they have come to.
		if ($ceiling->{period} eq 'total')
		{
			my @pruned = grep { $_->{pruned} } @all;
			my %sum;

			$grants += grep { $_->{revision} == 0 && $_->{status} ne 'cancelled' } @pruned;
			$sum{"$_->{strategy} $_->{user} $_->{gateway}"} += $_->{amount} foreach grep { $_->{status} eq 'completed' } @pruned;
			$amount += sum0 map { abs $_ } values %sum;
		}
		$ceiling->{usage}{ $model->period_of($ceiling) } = { grants => $grants, amount => QuotaTest::OperatorModel::round($amount) };
	}
	return 1;
}

sub change_ceiling
{
	my ($self) = @_;
	my $model = $self->{model};
	my $id = pick(sort { $a <=> $b } keys %{ $model->{ceilings} }) // return 0;
	my $ceiling = $model->{ceilings}{$id};

	if (rand() < 0.3)
	{
		$self->act("DELETE FROM quota_ceiling WHERE id = $id");
		delete $model->{ceilings}{$id};
		return 1;
	}
	my %change = pick([ on_excess => pick(qw(refuse cut)) ], [ max_grants => pick(2, 6, 15, 40) ], [ max_amount => pick(5, 30, 80, 200) ])->@*;
	$self->act(sprintf 'UPDATE quota_ceiling SET %s WHERE id = %d', join(', ', map { "$_ = " . quoted($change{$_}) } sort keys %change), $id);
	%$ceiling = (%$ceiling, %change);
	return 1;
}

1;
