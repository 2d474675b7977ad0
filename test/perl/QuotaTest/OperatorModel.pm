
=pod

=head1 NAME

QuotaTest::OperatorModel - what users, strategies, ceilings, brakes, decisions and reversals come to, by the documentation

=head1 DESCRIPTION

Written from the documentation, in Perl, and asks the database nothing. What deliveries do depends on the gateways, and is
observed; everything else is predicted to the last grant.

A grant is { id, strategy, user, firing, revision, status, amount, gateway, model, version, acts }, where acts is true while
a doubt policy is about to do something. Grants are known by their keys before their ids are: "strategy user firing".

Decisions and reversals are in L<QuotaTest::OperatorDecisionModel>.

=cut

package QuotaTest::OperatorModel;

use strict;
use warnings FATAL => 'all';

use parent 'QuotaTest::OperatorDecisionModel';

use List::Util qw(max sum0);
use QuotaTest::OperatorBasics;

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

# Failed, unless another revision has taken its place, or in doubt, and nothing is done about it by itself.
sub awaits_people
{
	my ($self, $grant) = @_;

	return $self->chain(@{$grant}{qw(strategy user firing)})->[-1] == $grant if $grant->{status} eq 'failed';
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
	# Those who are left out may have lacked more, or have had more to be taken away.
	if ($count{over} && !grep { defined $_->{max_grants} && $granted >= $_->{max_grants} - $_->{grants} } @cutting)
	{
		my ($least) = sort { $a <=> $b } map { $_->{max_amount} - $_->{amount} } grep { defined $_->{max_amount} } @cutting;

		$lasting ||= grep { $_->{period} ne 'run' && defined $_->{max_amount} && $_->{max_amount} - $_->{amount} < $least + 1e-9 } @cutting;
	}
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

1;
