
=pod

=head1 NAME

QuotaTest::OperatorHistory - a random history of what operators do, compared with a model after each step

=head1 SYNOPSIS

  my $history = QuotaTest::OperatorHistory->new(node => $node, mocks => \%mocks, seed => 1, steps => 60);
  my $problem = $history->play;        # undef: everything was as the model says
  print $history->script;              # the statements, as SQL

=head1 DESCRIPTION

Each step draws from a random sequence of its own, so that a history can be played again with some of its steps left out.

What can be done and compared is in classes of their own: L<QuotaTest::OperatorEdits>, L<QuotaTest::OperatorRuns>,
L<QuotaTest::OperatorCalls>, L<QuotaTest::OperatorDecisions>, L<QuotaTest::OperatorGrants>, L<QuotaTest::OperatorViews>;
L<QuotaTest::OperatorDatabase> is what they act on, and L<QuotaTest::OperatorModel> says what it comes to.

=cut

package QuotaTest::OperatorHistory;

use strict;
use warnings FATAL => 'all';

use parent map { "QuotaTest::Operator$_" } qw(Database Grants Views Edits Runs Calls Decisions);

use List::Util qw(sum0);
use QuotaTest::OperatorBasics;
use Time::HiRes qw(usleep);

sub new
{
	my ($class, %option) = @_;

	return bless { %option, log => [], skip => $option{skip} // {}, counts => {}, grants => {} }, $class;
}

# The statements so far, as SQL that can be replayed; what was done besides is in comments.
sub script
{
	my ($self) = @_;

	return join '', map { "$_\n" } "-- QUOTA_MANAGER_SEED=$self->{seed}", @{ $self->{log} };
}

my %ACTIONS = (
	add_user => 3, bulk_call => 3, change_by_hand => 2, change_users => 7, copy => 0.5, deliver_meanwhile => 9, delete_strategy => 1, edit_gateway => 2, remove_user => 2, add_strategy => 7, edit_strategy => 8, pause_everything => 2, pause_gateway => 3, pause_strategy => 4,
	release_strategy => 4, retain => 1, roll_back => 2, add_ceiling => 3, change_ceiling => 3, scan => 14, tick => 4, move_clock => 9, query_balances => 2, arm_fault => 10, deliver => 10, crash => 0.7, resolve => 7, decide_anything => 8,
	reverse => 7, undo => 4);

sub random_action
{
	my $number = rand sum0 values %ACTIONS;

	foreach my $action (sort keys %ACTIONS)
	{
		return $action if ($number -= $ACTIONS{$action}) < 0;
	}
	return 'scan';
}

sub check_step
{
	my ($self) = @_;

	$self->compare_grants($self->{sends});
	$self->compare_totals;
	$self->compare_records;
	$self->compare_bulk_calls;
	$self->read_balances;
	return;
}

sub step
{
	my ($self) = @_;

	foreach (1 .. 20)
	{
		my $action = random_action();

		$self->{sends} = 0;
		$self->remember_held;
		$self->note_line("-- step $self->{step}: $action");
		if ($self->$action)
		{
			$self->{counts}{$action}++;
			last;
		}
		pop @{ $self->{log} };
	}
	$self->let_workers_work;
	$self->check_step;
	$self->compare_views if rand() < 0.3;
	$self->compare_why if rand() < 0.3;
	$self->compare_explanations if rand() < 0.3;
	return;
}

# Plays it. Returns undef, or what was not as the model says.
sub play
{
	my ($self) = @_;
	my $done = eval {
		srand($self->{seed} * 10007);
		$self->{step} = 0;
		$self->begin;
		foreach my $step (1 .. $self->{steps})
		{
			$self->{step} = $step;
			next if $self->{skip}{$step};
			srand($self->{seed} * 10007 + $step);
			$self->step;
		}
		$self->{step} = $self->{steps} + 1;
		srand($self->{seed} * 10007 + $self->{step});
		$self->finish;
		1;
	};
	my $error = $@;

	$self->{counts}{"grants $_"} += keys %{ $self->{grants}{$_} } foreach keys %{ $self->{grants} };
	$self->note_runs if !$done;
	$self->{session}->end if $self->{session};
	delete $self->{session};
	$self->{node}->safe_psql('postgres', "DROP DATABASE $self->{database} WITH (FORCE)") if $done;
	return undef if $done;
	return ref $error ? $error->{problem} : $error;
}

# Everything comes to an end, and reversing everything brings back what was before.
sub finish
{
	my ($self) = @_;
	my $model = $self->{model};

	$self->note_line('-- everything comes to an end');
	$_->clear_faults foreach values %{ $self->{mocks} };
	foreach my $strategy (sort { $a->{id} <=> $b->{id} } values %{ $model->{strategies} })
	{
		next if $strategy->{state} eq 'archived';
		$self->act("UPDATE quota_strategy SET state = 'archived' WHERE id = $strategy->{id}");
		$self->change_state($strategy, 'archived');
	}
	$self->act('SELECT unpause_all()');
	$model->{everything_paused} = 0;
	foreach my $gateway (@GATEWAYS)
	{
		$self->act("SELECT unpause_gateway('$gateway')");
		$model->{gateways}{$gateway}{paused} = 0;
	}
	$self->settle_everything;
	foreach my $strategy (sort { $a->{id} <=> $b->{id} } values %{ $model->{strategies} })
	{
		my @grants = $model->first_grants_of($strategy->{id});
		my $expected = $model->preview_reversal(@grants);
		my $name = quoted($strategy->{name});
		my $rows = $self->act("SELECT reversal_id, outcome, grants, trim_scale(amount) FROM reverse_strategy($name, 'all of it')");
		my $id = $self->compare_outcomes("reverse_strategy($name)", $rows, $expected);

		$model->reverse($id, \@grants) if defined $id;
		$self->{sends} = 0;
		$self->let_workers_work;
		$self->check_step;
	}
	$self->settle_everything;
	$self->problem('a reversal waits for ever') if grep { $_->[0] > 0 } @{ $self->ask('SELECT waits FROM reversal_status') };
	$self->compare_end;
	$self->compare_views;
	return;
}

# Until nothing is pending or in doubt, as people and couriers do; people do not lie any more.
sub settle_everything
{
	my ($self) = @_;
	my $model = $self->{model};

	foreach (1 .. 200)
	{
		$self->remember_held;
		$self->{sends} = 1;
		$self->act('CALL deliver()');
		$self->let_workers_work;
		$self->check_step;
		$self->{sends} = 0;
		my @doubtful = grep { $_->{status} eq 'in_doubt' && $model->awaits_people($_) } $model->all_grants;
		$self->decide('resolve_applied', grep { $_->{applied}{ $_->{epoch} // 0 } } @doubtful);
		$self->decide('resolve_not_applied', grep { !$_->{applied}{ $_->{epoch} // 0 } } @doubtful);
		$self->act('CALL tick()');
		$model->continue_reversals;
		$self->let_workers_work;
		$self->check_step;
		return if !grep { $_->{status} =~ /^(?:pending|processing|in_doubt)$/ } $model->all_grants;
		usleep(10_000);
	}
	$self->problem('deliveries do not come to an end');
	return;
}

# What users have is what was given by hand, and what people said wrongly; what was taken back is gone.
sub compare_end
{
	my ($self) = @_;
	my $model = $self->{model};

	foreach my $chain (values %{ $model->{chains} })
	{
		my @standing = grep { $_->{status} eq 'completed' } @$chain;
		my $sum = sum0 map { $_->{amount} } @standing;

		$self->problem("after everything was reversed, grant $chain->[0]{id} comes to $sum") if differ($sum, 0) && !$chain->[0]{pruned};
	}
	return;
}

1;
