
=pod

=head1 NAME

QuotaTest::OperatorModel - what users, strategies, ceilings, brakes, decisions and reversals come to, by the documentation

=head1 DESCRIPTION

Written from the documentation, in Perl, and asks the database nothing. What deliveries do depends on the gateways, and is
observed; everything else is predicted to the last grant.

A grant is { id, strategy, user, firing, revision, status, amount, gateway, model, version, acts }, where acts is true while
a doubt policy is about to do something. Grants are known by their keys before their ids are: "strategy user firing".

=cut

package QuotaTest::OperatorModel;

use strict;
use warnings FATAL => 'all';

use List::Util qw(max min sum0);
use POSIX ();

my $HOUR = 3600;
my $DAY = 24 * $HOUR;

# Schedules: hour of the day, or every so many hours, or every day at a time.
our %schedules = (
	'0 * * * *' => [ $HOUR, 0 ],
	'30 */2 * * *' => [ 2 * $HOUR, 1800 ],
	'0 */6 * * *' => [ 6 * $HOUR, 0 ],
	'15 8 * * *' => [ $DAY, 8 * $HOUR + 900 ],
	'0 0 * * *' => [ $DAY, 0 ]);

sub new
{
	my ($class, %option) = @_;

	return bless {
		clock => $option{clock},
		surge_factor => $option{surge_factor},
		surge_minimum => $option{surge_minimum},
		users => {}, gateways => {}, strategies => {}, ceilings => {}, chains => {}, by_id => {}, reversals => {},
		everything_paused => 0, order => 0, doubtful => 0
	}, $class;
}

# Firings after one time, up to another.
sub firings
{
	my ($expr, $after, $until) = @_;
	my ($step, $offset) = @{ $schedules{$expr} };
	my @firings;

	for (my $firing = (int(($after - $offset) / $step) - 1) * $step + $offset; $firing <= $until; $firing += $step)
	{
		push @firings, $firing if $firing > $after;
	}
	return @firings;
}

# --- grants

sub key { return join ' ', @_; }

sub chain
{
	my ($self, $strategy, $user, $firing) = @_;

	return $self->{chains}{ key($strategy, $user, $firing) } //= [];
}

sub all_grants
{
	my ($self) = @_;

	return map { @{ $self->{chains}{$_} } } sort keys %{ $self->{chains} };
}

sub add_grant
{
	my ($self, %grant) = @_;
	my $chain = $self->chain(@grant{qw(strategy user firing)});

	push @$chain, { %grant, acts => 0, resolved => undef, decided => 0 };
	return $chain->[-1];
}

# Once its id is known.
sub name_grant
{
	my ($self, $grant, $id) = @_;

	$grant->{id} = $id;
	$self->{by_id}{$id} = $grant;
	return;
}

sub first_grants_of
{
	my ($self, $strategy) = @_;

	return map { $_->[0] } grep { $_->[0]{strategy} == $strategy && !$_->[0]{pruned} } grep { @$_ } values %{ $self->{chains} };
}

# --- brakes

sub grant_is_held
{
	my ($self, $grant) = @_;
	my $strategy = $self->{strategies}{ $grant->{strategy} };

	return 1 if $self->{everything_paused} || $self->{gateways}{ $grant->{gateway} }{paused};
	return $grant->{revision} == 0 && $strategy->{state} eq 'paused';
}

# --- scans

sub _last_recorded
{
	my ($self, $strategy) = @_;

	return max($strategy->{since}, map { $_->{last} // $_->{firing} } grep { $_->{firing} <= $self->{clock} } @{ $strategy->{runs} });
}

# An edit that puts a strategy in or out of use, or changes its schedule: what is not recorded is not run any more.
sub close_firings
{
	my ($self, $strategy) = @_;

	$strategy->{closed} = $self->{clock};
	return;
}

sub _retried
{
	my ($self, $strategy, $open) = @_;
	my $clock = $self->{clock};
	my $late = max($strategy->{since}, $strategy->{catch_up} eq 'none' ? $clock - 120 : $strategy->{catch_up} eq 'all' ? $clock - $DAY : 0);
	my @failed = grep { $_->{state} =~ /^(?:failed|incomplete)$/ && $_->{firing} > $late } @{ $strategy->{runs} };

	return map { $_->{firing} } @failed if $strategy->{catch_up} eq 'all';
	return () if $open;
	my $recorded = $self->_recorded($strategy);
	return map { $_->{firing} } grep { $_->{firing} >= $recorded } @failed;
}

sub _recorded
{
	my ($self, $strategy) = @_;

	return max($strategy->{since}, $strategy->{closed}, map { $_->{firing} } @{ $strategy->{runs} });
}

# The firings of a periodic strategy that a scan runs now, those that are tried again first; notes those that are passed over.
sub due_firings
{
	my ($self, $strategy) = @_;
	my $clock = $self->{clock};
	my @open = firings($strategy->{expr}, $self->_recorded($strategy), $clock);
	my @run = @open;

	@run = $run[-1] if $strategy->{catch_up} ne 'all' && @run;
	@run = grep { $_ > $clock - ($strategy->{catch_up} eq 'none' ? 120 : $DAY) } @run if $strategy->{catch_up} ne 'latest';

	return ([ $self->_retried($strategy, scalar @run) ], \@run, \@open);
}

sub is_stopped
{
	my ($self, $strategy) = @_;

	return defined $strategy->{breaker};
}

# Strategies that scans run, in their order.
sub active_strategies
{
	my ($self, $name) = @_;

	return () if $self->{everything_paused};
	return map { $self->{strategies}{$_} } grep { my $s = $self->{strategies}{$_}; $s->{state} eq 'active' && !$self->is_stopped($s) && (!defined $name || $s->{name} eq $name) }
	  sort { $a <=> $b } keys %{ $self->{strategies} };
}

# Does a user meet a condition, if balances that are not known are unfavourable (0) or favourable (1)?
sub holds
{
	my ($self, $strategy, $user, $unknown) = @_;
	my $row = $self->{users}{$user} or return 0;

	return $strategy->{meets}->($row, { unknown => $unknown, balance => sub { $self->balance($user, $_[0]) } }, 1) ? 1 : 0;
}

# The balance of a user that conditions may use; undef: it is missing. The balances that were read, or can be, are set by
# the test.
sub balance
{
	my ($self, $user, $gateway) = @_;

	return undef if grep { $_->{user} eq $user && $_->{gateway} eq $gateway && is_open($_) } $self->all_grants;
	return $self->{balances}->($user, $gateway);
}

# Neither settled nor left to an operator.
sub is_open
{
	my ($grant) = @_;

	return $grant->{status} =~ /^(?:pending|processing)$/ || $grant->{status} eq 'in_doubt' && $grant->{acts};
}

# In doubt, and nothing is done about it by itself.
sub awaits_people
{
	my ($self, $grant) = @_;

	return $grant->{status} eq 'in_doubt' && (!$grant->{acts} || $self->{gateways}{ $grant->{gateway} }{policy} eq 'hold');
}

# What a user lacks, or has too much; undef: the balance is missing.
sub amount_for
{
	my ($self, $strategy, $user) = @_;
	my $gateway = $self->{models}{ $strategy->{model} };

	return $strategy->{amount} if $strategy->{allowance} eq 'add';
	my $balance = $self->balance($user, $gateway) // return undef;
	my $lack = round($strategy->{amount} - $balance);
	return $lack < 0 && $strategy->{allowance} eq 'top_up' ? 0 : $lack;
}

# Amounts have at most six decimals; as PostgreSQL writes them.
sub round
{
	my $text = sprintf('%.6f', $_[0]) =~ s/\.?0+$//r;

	return $text eq '-0' ? '0' : $text;
}

# What a run comes to: granted (user, amount), how many were left out and why, and its state.
sub evaluate
{
	my ($self, $strategy, $firing) = @_;
	my %count = (matched => 0, already => 0, capped => 0, sufficient => 0, unknown => 0, granted => [], over => 0, state => 'done', stopped => '');
	my @ceilings = map { { %$_, $self->left($_, $strategy, $firing) } } grep { !defined $_->{strategy} || $_->{strategy} == $strategy->{id} }
	  map { $self->{ceilings}{$_} } sort { $a <=> $b } keys %{ $self->{ceilings} };
	my @cutting = grep { $_->{on_excess} eq 'cut' } @ceilings;
	my $magnitude = 0;

	foreach my $user (sort keys %{ $self->{users} })
	{
		next if !$self->holds($strategy, $user, 1);
		my $amount = $self->holds($strategy, $user, 0) ? $self->amount_for($strategy, $user) : undef;

		# Of whom a missing balance decides, only those are counted who could get something.
		if (@{ $self->chain($strategy->{id}, $user, $firing) }) { $count{already}++ if defined $amount; }
		elsif (defined $strategy->{cap} && $self->granted_to($strategy, $user) >= $strategy->{cap}) { $count{capped}++ if defined $amount; }
		elsif (!defined $amount) { $count{unknown}++; }
		elsif ($amount == 0) { $count{sufficient}++; }
		elsif ($count{over} || grep { exceeds($_, @{ $count{granted} } + 1, $magnitude + abs $amount) } @cutting) { $count{over}++; }
		else
		{
			push @{ $count{granted} }, [ $user, $amount ];
			$magnitude = round($magnitude + abs $amount);
		}
	}

	my $granted = @{ $count{granted} };
	my $lasting = grep { $_->{period} ne 'run' && exceeds($_, $granted + $count{over}, $magnitude + $count{over} * abs $strategy->{amount}) } @cutting;
	if ($granted && grep { $_->{on_excess} eq 'refuse' && exceeds($_, $granted, $magnitude) } @ceilings)
	{
		@count{qw(state stopped over granted)} = ('failed', 'ceiling', $count{over} + $granted, []);
	}
	elsif ($granted)
	{
		my ($usual, $so_far) = $self->surge_limit($strategy, $firing);

		@count{qw(state stopped would_grant granted)} = ('failed', 'breaker', $so_far + $granted, []) if defined $usual && $so_far + $granted > $usual;
	}
	$count{state} = 'incomplete' if $count{state} eq 'done' && ($count{unknown} || $count{over} && $lasting);
	return \%count;
}

sub exceeds
{
	my ($ceiling, $grants, $amount) = @_;

	return defined $ceiling->{max_grants} && $grants > $ceiling->{max_grants} - $ceiling->{grants}
	  || defined $ceiling->{max_amount} && $amount > $ceiling->{max_amount} - $ceiling->{amount} + 1e-9;
}

# Grants of a user that count for a cap.
sub granted_to
{
	my ($self, $strategy, $user) = @_;

	return scalar grep { $_->{user} eq $user && $_->{status} ne 'cancelled' } $self->first_grants_of($strategy->{id});
}

# What was granted under a ceiling in its present period, before a run: grants and amount.
sub left
{
	my ($self, $ceiling, $strategy, $firing) = @_;

	if ($ceiling->{period} eq 'run')
	{
		# Of a single strategy, the scans since the last that was done in which balances were missing.
		return $self->_tries_of_scan($strategy) if $firing eq 'once';
		my @earlier = grep { $_->{firing} eq $firing } $self->first_grants_of($strategy->{id});

		return (grants => scalar @earlier, amount => sum0 map { abs $_->{amount} } @earlier);
	}
	return %{ $ceiling->{usage}{ $self->period_of($ceiling) } // { grants => 0, amount => 0 } };
}

sub _tries_of_scan
{
	my ($self, $strategy) = @_;
	my ($grants, $amount) = (0, 0);

	foreach my $scan (reverse @{ $strategy->{scans} })
	{
		last if $scan->{state} eq 'done';
		next if $scan->{old} || !$scan->{unknown};
		$grants += $scan->{granted};
		$amount = round($amount + $scan->{magnitude});
	}
	return (grants => $grants, amount => $amount);
}

sub period_of
{
	my ($self, $ceiling) = @_;

	return $ceiling->{period} eq 'day' ? int($self->{clock} / $DAY) : 'total';
}

# Of the breaker: most grants of a run, and how many earlier tries have written.
sub surge_limit
{
	my ($self, $strategy, $firing) = @_;
	my $single = $firing eq 'once';
	my @runs = @{ $strategy->{scans} };
	my ($usual, $so_far);

	if ($single)
	{
		my ($last_done) = grep { $runs[$_]{state} eq 'done' } reverse 0 .. $#runs;
		my $end = $last_done // -1;
		my @later = @runs[ $end + 1 .. $#runs ];

		$so_far = sum0 map { $_->{granted} } @later;
		@runs = @runs[ 0 .. $end ];
	}
	else
	{
		$so_far = sum0 map { $_->{granted} } grep { $_->{firing} eq $firing } @runs;
		@runs = grep { $_->{firing} ne $firing } @runs;
	}
	my @last = grep { $_->{granted} > 0 } @runs;
	return (undef, 0) if !@last;
	splice @last, 0, @last - 10 if @last > 10;
	$usual = max(int(max(map { $_->{granted} } @last) * $self->{surge_factor}), $self->{surge_minimum});
	my $released = $strategy->{released};
	# Until ten runs have granted something since.
	$usual = max($usual, int($released->{would_grant} * 1.1))
	  if $released && $released->{condition} eq $strategy->{condition}
	  && 10 > grep { $_->{granted} > 0 && $_->{order} > $released->{order} } @{ $strategy->{scans} };
	return ($usual, $so_far);
}

# Runs what scan() would: of one strategy or all; order: ids of strategies, where they are run in another order than that of
# their ids. Returns what each run came to.
sub scan
{
	my ($self, $name, @order) = @_;
	my %place = map { $order[$_] => $_ } 0 .. $#order;
	my @ran;

	foreach my $strategy (sort { ($place{ $a->{id} } // 9**9) <=> ($place{ $b->{id} } // 9**9) || $a->{id} <=> $b->{id} } $self->active_strategies($name))
	{
		my ($retried, $run, $open) = ([], ['once'], []);

		($retried, $run, $open) = $self->due_firings($strategy) if $strategy->{type} eq 'periodic';
		foreach my $firing (@$retried, @$run)
		{
			last if $self->is_stopped($strategy);
			push @ran, [ $strategy, $firing, $self->run($strategy, $firing) ];
		}
		$strategy->{closed} = max($strategy->{closed}, @$open) if @$open && !$self->is_stopped($strategy);
	}
	return @ran;
}

sub run
{
	my ($self, $strategy, $firing) = @_;
	my $found = $self->evaluate($strategy, $firing);
	my $gateway = $self->{models}{ $strategy->{model} };
	my $doubtful = $firing eq 'once' && $self->is_doubtful($strategy);
	my $order = ++$self->{order};
	my $granted = @{ $found->{granted} };

	foreach my $grant (@{ $found->{granted} })
	{
		$self->add_grant(
			strategy => $strategy->{id}, user => $grant->[0], firing => $firing, revision => 0,
			status => $doubtful ? 'in_doubt' : 'pending', amount => $grant->[1], gateway => $gateway, model => $strategy->{model},
			version => $strategy->{version}, elsewhere => $doubtful);
	}
	if ($granted)
	{
		foreach my $ceiling (grep { $_->{period} ne 'run' && (!defined $_->{strategy} || $_->{strategy} == $strategy->{id}) } values %{ $self->{ceilings} })
		{
			my $used = $ceiling->{usage}{ $self->period_of($ceiling) } //= { grants => 0, amount => 0 };

			$used->{grants} += $granted;
			$used->{amount} = round($used->{amount} + sum0 map { abs $_->[1] } @{ $found->{granted} });
		}
	}
	my ($same) = grep { $firing ne 'once' && $_->{firing} eq $firing } @{ $strategy->{scans} };
	if ($same)
	{
		$same->{granted} += $granted;
		$same->{state} = $found->{state};
	}
	else
	{
		push @{ $strategy->{scans} },
		  { firing => $firing, granted => $granted, magnitude => sum0(map { abs $_->[1] } @{ $found->{granted} }), state => $found->{state}, unknown => $found->{unknown}, order => $order };
	}
	if ($firing ne 'once')
	{
		@{ $strategy->{runs} } = grep { $_->{firing} ne $firing } @{ $strategy->{runs} };
		push @{ $strategy->{runs} }, { firing => $firing, state => $found->{state} };
	}
	$strategy->{settled} = 1 if $firing eq 'once' && $found->{state} eq 'done' && !$found->{over};
	$strategy->{breaker} = { would_grant => $found->{would_grant}, condition => $strategy->{condition}, order => $order } if $found->{stopped} eq 'breaker';
	return $found;
}

# After resume('may_have_run'): until a single strategy was scanned to the end.
sub is_doubtful
{
	my ($self, $strategy) = @_;

	return $strategy->{created} < $self->{doubtful} && !$strategy->{settled};
}

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
