
=pod

=head1 NAME

QuotaTest::OperatorDecisions - decisions and reversals in a history of operators

=head1 DESCRIPTION

A part of L<QuotaTest::OperatorHistory>. Each action returns whether it did anything.

=cut

package QuotaTest::OperatorDecisions;

use strict;
use warnings FATAL => 'all';

use List::Util qw(shuffle);
use QuotaTest::OperatorBasics;
use QuotaTest::OperatorModel;
use QuotaTest::Wait qw(wait_for);

# --- decisions

sub random_grants
{
	my ($self, $number, $filter) = @_;
	my @grants = grep { defined $_->{id} && !$_->{pruned} && (!$filter || $filter->($_)) } $self->{model}->all_grants;

	@grants = shuffle(sort { $a->{id} <=> $b->{id} } @grants);
	splice @grants, $number if @grants > $number;
	return @grants;
}

sub decide
{
	my ($self, $action, @grants) = @_;
	my $model = $self->{model};
	my %call = (
		resolve_applied => 'resolve(%s, true, %s)', resolve_not_applied => 'resolve(%s, false, %s)', correct_applied => 'correct(%s, true, %s)',
		correct_not_applied => 'correct(%s, false, %s)', retry => 'retry(%s, %s)', cancel => 'cancel(%s, %s)', reinstate => 'reinstate(%s, %s)');
	my $note = quoted("step $self->{step}");

	# What is due in a moment is due by then, on one machine, and not yet on another.
	foreach my $grant (grep { $action eq 'retry' && $_->{status} eq 'pending' && $_->{later} } @grants)
	{
		my $wait;

		wait_for("grant $grant->{id} to be due", sub { $wait = $self->ask("SELECT extract(epoch FROM next_attempt_time - clock_timestamp()) FROM quota_execute WHERE id = $grant->{id}")->[0][0]; return $wait <= 0 || $wait > 60; });
		$grant->{later} = $wait > 0;
	}
	if (@grants == 1)
	{
		my $obstacle = $model->obstacle($action, @grants, @grants);

		$self->act(sprintf("SELECT $call{$action}", $grants[0]{id}, $note), defined $obstacle ? '55000' : undef);
		$model->decide($action, @grants);
	}
	elsif (@grants)
	{
		my $done = $self->act(sprintf "SELECT $call{$action}", sprintf('ARRAY[%s]::bigint[]', join ', ', map { $_->{id} } @grants), $note)->[0][0];
		my $expected = $model->decide($action, @grants);

		$self->problem("$action decided about $done grants, and should have about $expected") if $done != $expected;
	}
	return scalar @grants;
}

# By what the gateway has, nearly always.
sub resolve
{
	my ($self) = @_;
	my @doubtful = $self->random_grants(between(1, 4), sub { $_[0]{status} eq 'in_doubt' });
	my %by = (0 => [], 1 => []);

	return 0 if !@doubtful;
	foreach my $grant (@doubtful)
	{
		my $applied = $grant->{applied}{ $grant->{epoch} // 0 } ? 1 : 0;

		$applied = !$applied if rand() < 0.1;
		push @{ $by{ $applied ? 1 : 0 } }, $grant;
	}
	$self->decide('resolve_applied', @{ $by{1} });
	$self->decide('resolve_not_applied', @{ $by{0} });
	return 1;
}

sub decide_anything
{
	my ($self) = @_;
	my %likely = (cancel => 'pending', reinstate => 'cancelled', retry => 'failed|in_doubt', correct_applied => 'pending|failed|cancelled', correct_not_applied => 'completed');
	my $action = pick(sort keys %likely);
	my $filter = $action =~ /correct/ ? sub { defined $_[0]{resolved} && $_[0]{status} =~ /^(?:$likely{$action})$/ } : sub { $_[0]{status} =~ /^(?:$likely{$action})$/ };

	$filter = undef if rand() < 0.15;
	return $self->decide($action, $self->random_grants(between(1, 3), $filter));
}

# --- reversals

# What a call of a reversal returned is what the model says; returns its number, if it has one.
sub compare_outcomes
{
	my ($self, $call, $rows, $expected) = @_;
	my ($id) = map { $_->[0] } grep { $_->[0] ne '' } @$rows;
	my %found = map { $_->[1] => [ $_->[2], $_->[3] ] } @$rows;

	foreach my $outcome (sort keys %{ { %found, %$expected } })
	{
		my ($found, $wanted) = map { $_ ? "$_->[0] of " . QuotaTest::OperatorModel::round($_->[1]) : 'none' } $found{$outcome}, $expected->{$outcome};

		$self->problem("$call: $outcome: $found, and should be $wanted") if $found ne $wanted;
	}
	return $id;
}

sub reverse
{
	my ($self) = @_;
	my $model = $self->{model};
	my $kind = pick(qw(run strategy strategy grants));
	my (@grants, $call, $preview);

	if ($kind eq 'run')
	{
		my ($one) = $self->random_grants(1) or return 0;

		@grants = grep { !$_->{pruned} && ($_->{run} // '') eq $one->{run} } $model->all_grants;
		($call, $preview) = ("reverse_run($one->{run}, %s)", "run_id => $one->{run}");
	}
	elsif ($kind eq 'strategy')
	{
		my $strategy = $self->random_strategy // return 0;
		my $name = quoted($strategy->{name});

		@grants = $model->first_grants_of($strategy->{id});
		($call, $preview) = ("reverse_strategy($name, %s)", "strategy => $name");
		if (@grants && rand() < 0.5)
		{
			my $one = (sort { $a->{id} <=> $b->{id} } @grants)[ rand @grants ];

			if ($strategy->{type} eq 'periodic' && rand() < 0.6)
			{
				@grants = grep { $_->{firing} eq $one->{firing} } @grants;
				my $firing = quoted(time_text($one->{firing}));
				($call, $preview) = ("reverse_strategy($name, %s, firing => $firing)", "strategy => $name, firing => $firing");
			}
			else
			{
				@grants = grep { $_->{version} == $one->{version} } @grants;
				($call, $preview) = ("reverse_strategy($name, %s, version => $one->{version})", "strategy => $name, version => $one->{version}");
			}
		}
	}
	else
	{
		@grants = $self->random_grants(between(1, 4)) or return 0;
		my $ids = sprintf 'ARRAY[%s]::bigint[]', join ', ', map { $_->{id} } @grants;
		($call, $preview) = ("reverse_grants($ids, %s)", "ids => $ids");
	}
	my $expected = $model->preview_reversal(@grants);
	$self->compare_outcomes("preview_reversal($preview)",
		[ map { [ '', @$_ ] } @{ $self->ask("SELECT outcome, grants, trim_scale(amount) FROM preview_reversal($preview)") } ], $expected);
	my $rows = $self->act(sprintf "SELECT reversal_id, outcome, grants, trim_scale(amount) FROM $call", quoted("step $self->{step}"));
	my $id = $self->compare_outcomes($call, $rows, $expected);
	my $next = defined $id ? $id : -1;
	my $done = $model->reverse($next, \@grants);

	$self->problem("$call is " . (defined $id ? '' : 'not ') . 'recorded') if $done != (defined $id ? 1 : 0);
	return 1;
}

sub undo
{
	my ($self) = @_;
	my $model = $self->{model};
	my $id = pick(sort { $a <=> $b } keys %{ $model->{reversals} }) // return 0;
	my $error = $model->is_reversed_since($id) ? '55000' : undef;
	my $acts = $model->undo_does_something($id);
	my $rows = $self->act(sprintf('SELECT undo_id, outcome, grants, trim_scale(amount) FROM undo_reversal(%d, %s)', $id, quoted("step $self->{step}")), $error);

	return 1 if defined $error;
	my ($undo) = map { $_->[0] } grep { $_->[0] ne '' } @$rows;
	$self->problem("undo_reversal($id) is " . (defined $undo ? '' : 'not ') . 'recorded') if ($acts ? 1 : 0) != (defined $undo ? 1 : 0);
	$model->undo($undo, $id) if defined $undo;
	return 1;
}

1;
