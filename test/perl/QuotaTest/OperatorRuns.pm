
=pod

=head1 NAME

QuotaTest::OperatorRuns - scans, deliveries and crashes in a history of operators

=head1 DESCRIPTION

A part of L<QuotaTest::OperatorHistory>. Each action returns whether it did anything.

=cut

package QuotaTest::OperatorRuns;

use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PostgreSQL::Test::Utils;
use QuotaTest::OperatorBasics;
use QuotaTest::Wait qw(wait_until wait_for);
use Time::HiRes qw(usleep);

# --- scans

sub scan
{
	my ($self) = @_;
	my $model = $self->{model};
	my $strategy = rand() < 0.4 ? $self->random_strategy : undef;

	return 0 if !keys %{ $model->{strategies} };
	$self->read_balances;
	$model->{balances} = sub { return $self->{known}{ $_[1] }{ $_[0] } };
	$self->compare_preview($strategy) if $strategy;
	my $rows = $self->act(sprintf 'SELECT strategy, extract(epoch FROM scheduled_time)::bigint, granted FROM scan(%s)', $strategy ? quoted($strategy->{name}) : '');
	my @ran = $model->scan($strategy ? $strategy->{name} : undef);
	my %expected = map { join(' ', $_->[0]{name}, $_->[1] eq 'once' ? '' : $_->[1]) => scalar @{ $_->[2]{granted} } } @ran;
	my %found = map { join(' ', @{$_}[ 0, 1 ]) => $_->[2] } grep { $_->[2] > 0 || exists $expected{ join ' ', @{$_}[ 0, 1 ] } } @$rows;

	foreach my $run (sort keys %{ { %expected, %found } })
	{
		$self->problem("scan() granted " . ($found{$run} // 'nothing') . " for $run, and should have granted " . ($expected{$run} // 'nothing'))
		  if ($found{$run} // 0) != ($expected{$run} // 0);
	}
	return 1;
}

# The preview of a strategy is what its scan would do.
sub compare_preview
{
	my ($self, $strategy) = @_;
	my $model = $self->{model};

	return if $strategy->{state} ne 'active' || $model->{everything_paused} || $model->is_stopped($strategy);
	my ($retried, $run) = $strategy->{type} eq 'periodic' ? $model->due_firings($strategy) : ([], ['once']);
	my $firing = (@$retried, @$run)[0] // return;
	my $expected = $model->evaluate($strategy, $firing);
	my %found = map { $_->[0] => $_->[1] } @{ $self->ask(sprintf 'SELECT reason, users, trim_scale(amount) FROM preview(%s)', quoted($strategy->{name})) };
	my %wanted = (
		granted => scalar @{ $expected->{granted} }, 'already granted' => $expected->{already}, capped => $expected->{capped},
		'over a ceiling' => $expected->{over}, sufficient => $expected->{sufficient}, 'balance unknown' => $expected->{unknown},
		'stopped by the breaker' => $expected->{stopped} eq 'breaker' ? undef : 0);

	foreach my $reason (sort keys %wanted)
	{
		$self->problem("preview() of $strategy->{name} for $firing says $reason: " . ($found{$reason} // 0) . ", and should say $wanted{$reason}")
		  if defined $wanted{$reason} && ($found{$reason} // 0) != $wanted{$reason};
	}
	return;
}

# Waits until balances can be read of whoever has nothing open; false: gateways are not open, and it cannot be foretold
# whose can be read. Where the order in which they are read may make a difference, they are read before: while one
# strategy waits for balances others run, and what they grant makes the balances of the same users unusable.
sub balances_can_be_read
{
	my ($self) = @_;
	my $model = $self->{model};
	my $nothing_is_lost = q(SELECT count(*) = 0 FROM quota_manager.user_balance b WHERE quota_internal.answer_may_arrive(nullif(b.lost_time, '-infinity'), b.lost_moment));
	my @asking = grep { $_->{allowance} ne 'add' || $_->{condition} =~ /quota-le/ } $model->active_strategies;

	return 1 if !@asking;
	return 0 if $self->ask(q(SELECT count(*) FROM quota_gateway WHERE state <> 'open'))->[0][0];
	wait_for('late answers', sub { $self->ask($nothing_is_lost)->[0][0] eq 't' });
	$self->query_balances if %{ $model->{ceilings} } || $model->active_strategies > 1 || grep { $_->{granted} } map { @{ $_->{scans} } } @asking;
	$self->read_balances;
	$model->{balances} = sub {
		my ($user, $gateway) = @_;
		return $self->{known}{$gateway}{$user} if $model->{gateways}{$gateway}{paused};
		return $self->true_balance($gateway, $user);
	};
	return 1;
}

# Asks all gateways for the balances of all users, again if one was too slow to answer.
sub query_balances
{
	my ($self) = @_;

	wait_for('the balances of all users', sub { return ($self->act('SELECT count(gateway_query(u.id, g.name)) FROM user_info u, quota_gateway g', '|08.*'))[1] eq ''; });
	return 1;
}

sub tick
{
	my ($self) = @_;
	my $model = $self->{model};

	return 0 if $self->{workers} || !$self->balances_can_be_read;
	# Balances are answered, however slow the machine is.
	$self->ask(q(UPDATE quota_gateway SET request_timeout = '30 s'));
	$self->act('SELECT quota_internal.end_back_offs()');
	my @order = map { $_->[0] } @{ $self->ask(q(SELECT strategy_id FROM strategy_due WHERE state = 'due' GROUP BY 1 ORDER BY min(due_time), 1)) };
	$self->act('CALL tick()');
	# Reversals go on first, and what they take back makes balances unusable.
	$self->ask("UPDATE quota_gateway SET request_timeout = '$TIMEOUT'");
	$model->continue_reversals;
	$model->scan(undef, @order);
	return 1;
}

sub move_clock
{
	my ($self) = @_;
	my $model = $self->{model};

	$model->{clock} += pick(60, 1800, $HOUR, 2 * $HOUR, 7 * $HOUR, 20 * $HOUR, 50 * $HOUR);
	# Not so early that what was granted a minute ago was granted yesterday.
	$model->{clock} += 2 * $HOUR if $model->{clock} % $DAY < 2 * $HOUR;
	$self->set_clock;
	$self->note_line(sprintf q(SET quota_manager.schedule_clock = '%s';), time_text($model->{clock}));
	return 1;
}

# --- deliveries

my @FAULTS = (
	[ kind => 'apply_close' ], [ kind => 'close' ], [ kind => 'hang' ], [ kind => 'apply_hang' ], [ kind => 'status', status => 429, retry_after => 0 ], [ kind => 'status', status => 500 ],
	[ kind => 'apply_status', status => 500 ], [ kind => 'apply_close' ], [ kind => 'apply_reset' ], [ kind => 'refuse' ], [ kind => 'failure' ], [ kind => 'reset' ]);

sub arm_fault
{
	my ($self) = @_;
	# Rather where something is to be sent.
	my $gateway = (rand() < 0.8 ? pick(map { $_->{gateway} } grep { $_->{status} eq 'pending' && !$self->{model}->grant_is_held($_) } $self->{model}->all_grants) : undef) // pick(@GATEWAYS);
	my @fault = (@{ pick(@FAULTS) }, match => 'grant', count => between(1, 3));

	push @fault, user => pick(@USERS) if rand() < 0.15;
	$self->{mocks}{$gateway}->fault(@fault);
	$self->note_line("-- the gateway $gateway will misbehave: @fault");
	return 1;
}

# Grants that are held from now on, until something is done: they must not be sent.
sub remember_held
{
	my ($self) = @_;

	$self->{held_grants} = { map { $_->{id} => 1 } grep { defined $_->{id} && $self->{model}->grant_is_held($_) } $self->{model}->all_grants };
	return;
}

sub deliver
{
	my ($self) = @_;

	return 0 if $self->{workers};
	$self->arm_fault if rand() < 0.5;
	$self->{sends} = 1;
	$self->act('CALL deliver()');
	return 1;
}

sub crash
{
	my ($self) = @_;
	my $node = $self->{node};

	$self->{sends} = 1;
	if (rand() < 0.4)
	{
		$self->note_line('-- the server is stopped as it is, and started again');
		$node->stop('immediate');
		$node->start;
	}
	elsif ($self->{workers})
	{
		my $log = -s $node->logfile;
		my $pid = pick(map { $_->[0] } @{ $self->ask(q(SELECT pid FROM worker_status WHERE kind IN ('scheduler', 'courier') AND pid IS NOT NULL)) }) // return 0;

		$self->note_line('-- a worker is killed');
		$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log) if kill 'KILL', $pid;
	}
	else
	{
		my $gateway = pick(@GATEWAYS);
		my ($in, $out) = ('', '');

		$self->{mocks}{$gateway}->fault(kind => pick(qw(hang apply_hang)), match => 'grant', count => 0);
		$self->note_line("-- the gateway $gateway hangs; a session calls deliver() and is killed");
		my $call = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr($self->{database}) . " application_name=killed", '-c', 'CALL quota_manager.deliver()' ], '<', \$in, '>', \$out, '2>', \$out);
		my $pid;
		wait_for('the session that delivers', sub { $call->pump_nb; $pid = $self->ask(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'killed'})->[0][0]; return $pid || !$call->pumpable; });
		# At some moment of its work.
		usleep(rand 100_000);
		my $log = -s $node->logfile;
		my $killed = defined $pid ? kill 'KILL', $pid : 0;
		eval { IPC::Run::finish($call) };
		# It may have been about to end by itself. The server writes how it ended before it lets anybody in.
		wait_for('the end of the session', sub { !kill 0, $pid }) if $killed;
		wait_until($node, 'SELECT true');
		$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log) if $killed && PostgreSQL::Test::Utils::slurp_file($node->logfile, $log) =~ /\(PID $pid\) was terminated by signal 9/;
		$self->{mocks}{$gateway}->clear_faults;
	}
	wait_until($node, 'SELECT true');
	$self->connect;
	return 1;
}

# --- while grants are being sent

# Reverses a strategy whose grants are being sent: each is in the state in which the reversal has found it.
sub reverse_meanwhile
{
	my ($self) = @_;
	my $model = $self->{model};
	my $strategy = $self->random_strategy(sub { scalar $model->first_grants_of($_[0]{id}) }) // return;
	my @grants = $model->first_grants_of($strategy->{id});
	my $rows = $self->act(sprintf 'SELECT reversal_id, outcome, grants FROM reverse_strategy(%s, %s)', quoted($strategy->{name}), quoted("step $self->{step}"));
	my ($id) = map { $_->[0] } grep { $_->[0] ne '' } @$rows;

	return if !defined $id;
	my %found = map { $_->[0] => $_->[1] } @{ $self->ask("SELECT grant_id, outcome FROM quota_reversal_item WHERE reversal_id = $id") };
	my %status = map { $_->[0] => $_->[1] } @{ $self->ask('SELECT id, status FROM quota_execute') };
	my %was = (cancelled => 'pending', taken_back => 'completed', waits => 'processing');
	my @all = grep { defined $_->{id} && $_->{strategy} == $strategy->{id} && !$_->{pruned} } $model->all_grants;
	my %taken = map { $_->{user} . ' ' . $_->{firing} => 1 } grep { $found{ $_->{id} } } @all;

	foreach my $grant (grep { $_->{status} !~ /^(?:completed|failed|cancelled)$/ } @all)
	{
		my ($outcome, $now) = ($found{ $grant->{id} }, $status{ $grant->{id} });
		my $takes_back = $grant->{amount} * $model->chain(@{$grant}{qw(strategy user firing)})->[0]{amount} < 0;

		# What has ended since was being sent: otherwise it would have been taken back, as what waited already or was not
		# taken back after all.
		if (defined $outcome) { $grant->{status} = $was{$outcome}; }
		elsif ($now eq 'completed' && $model->is_awaited($grant->{id}) || $now eq 'failed' && $takes_back && !$taken{"$grant->{user} $grant->{firing}"}) { $grant->{status} = 'processing'; }
		elsif ($now =~ /^(?:failed|completed)$/) { $grant->{status} = $now; }
		# It was, or may have been, sent since the gateways were last read.
		$grant->{was_sent} = 1 if $grant->{status} =~ /^(?:failed|completed)$/;
	}
	$model->reverse($id, \@grants);
	return;
}

# A session delivers to slow gateways while others pause, edit, scan and reverse.
sub deliver_meanwhile
{
	my ($self) = @_;
	my $model = $self->{model};
	my $node = $self->{node};
	my $output = '';

	return 0 if $self->{workers} || !grep { $_->{status} eq 'pending' && !$model->grant_is_held($_) } $model->all_grants;
	$_->fault(kind => 'slow', match => 'grant', count => 0, delay_ms => between(10, 80)) foreach values %{ $self->{mocks} };
	$self->{sends} = 1;
	$self->note_line('-- all gateways are slow; a session calls deliver(); meanwhile');
	my $call = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr($self->{database}), '-c', 'CALL quota_manager.deliver()' ], '<', '/dev/null', '>', \$output, '2>&1');
	wait_for('something to be sent', sub { $call->pump_nb; return !$call->pumpable || grep { $_->{status} ne 'pending' } $self->pending_grants; });
	foreach (1 .. between(1, 3))
	{
		my $action = pick(qw(pause_gateway pause_everything pause_strategy edit_strategy change_users reverse_meanwhile reverse_meanwhile));
		my @before = map { $_->{id} } grep { defined $_->{id} && !$model->grant_is_held($_) } $model->all_grants;

		$self->$action;
		$self->watch_pause(@before) if $action =~ /^pause_/;
		# They may be paused again.
		delete @{ $self->{held_grants} }{ grep { !$model->grant_is_held($model->{by_id}{$_}) } keys %{ $self->{held_grants} } };
	}
	# What is in flight is awaited for as long as its request may take, and what is held is left.
	IPC::Run::finish($call);
	$self->problem("deliver() said: $output") if $output =~ /ERROR|FATAL|WARNING/;
	$_->clear_faults foreach values %{ $self->{mocks} };
	$self->note_line('-- the session has ended');
	$self->check_watched;
	return 1;
}

# Grants that were pending when the model last knew, as they are now.
sub pending_grants
{
	my ($self) = @_;

	return map { { status => $_->[0] } } @{ $self->ask(sprintf 'SELECT status FROM quota_execute WHERE id = ANY (%s)',
			quoted('{' . join(',', map { $_->{id} } grep { $_->{status} eq 'pending' && !$self->{model}->grant_is_held($_) } $self->{model}->all_grants) . '}')) };
}

# A pause has just been committed: of what it holds, no more is applied than was in flight.
sub watch_pause
{
	my ($self, @before) = @_;
	my $model = $self->{model};
	my %applied = map { $_ => 1 } keys %{ $self->read_gateways };

	$self->{watched} = { map { $_ => 1 } grep { $model->grant_is_held($model->{by_id}{$_}) && !$applied{$_} } @before };
	return;
}

sub check_watched
{
	my ($self) = @_;
	my $model = $self->{model};
	my $applied = $self->read_gateways;
	my %late;

	# Another pause may have ended meanwhile.
	$late{ $model->{by_id}{$_}{gateway} }++ foreach grep { $applied->{$_} && $model->grant_is_held($model->{by_id}{$_}) } keys %{ $self->{watched} // {} };
	delete $self->{watched};
	foreach my $gateway (sort keys %late)
	{
		$self->problem("after the pause $late{$gateway} grants were sent to $gateway, which has 4 connections") if $late{$gateway} > 4;
	}
	return;
}

1;
