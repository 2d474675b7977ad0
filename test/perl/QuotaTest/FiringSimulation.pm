
=pod

=head1 NAME

QuotaTest::FiringSimulation - what becomes of the firings of strategies, by the book

=head1 SYNOPSIS

  my $simulation = QuotaTest::FiringSimulation->new(
  	firings => sub { my ($expr, $zone) = @_; return [ ... ] },
  	users => sub { my ($condition, $known) = @_; return ([@matching], [@undecided]) });
  $simulation->create($now, name => 'daily', periodic_expr => '0 8 * * *', ...);
  $simulation->scan($later);
  $simulation->edit($later, 'daily', enabled => 0);
  my @rows = $simulation->rows('daily');

=head1 DESCRIPTION

Written from what the documentation promises, without a look at the extension.
Times are whole microseconds since 1970.  A row is what quota_run is to show of a
periodic strategy: first and last firing, how many, state and reason.

The firings of a schedule are given: an array in ascending order that covers all
that is simulated.  So is who meets a condition, where the balances are known that
a hash has: of gateways, each a hash of users.  A grant goes to C<pays_at>, if that
is given, and the balance of its user there is not known any more.

=cut

package QuotaTest::FiringSimulation;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use List::Util qw(max);

our @EXPORT_OK = qw(position_after);

my $second = 1_000_000;
my $scan_interval = 3600 * $second;
my $day = 86_400 * $second;
my $late = 120 * $second;

my %defaults = (
	type => 'periodic',
	time_zone => 'UTC',
	enabled => 1,
	archived => 0,
	valid_from => -9**18,
	valid_until => 9**18,
	catch_up => 'latest',
	catch_up_window => undef,
	catch_up_max => 100);

sub new
{
	my ($class, %option) = @_;

	return bless {
		firings_of => $option{firings},
		users_of => $option{users},
		pays_at => $option{pays_at},
		strategies => {},
		broken => {},
		known => {} }, $class;
}

# Whether a gateway serves a model.
sub set_broken
{
	my ($self, $model, $broken) = @_;

	$self->{broken}{$model} = $broken;
	return;
}

# Of whom the balance at a gateway is known from now on, until something is granted there.
sub set_balances_known
{
	my ($self, $gateway, @users) = @_;

	$self->{known}{$gateway} = { map { $_ => 1 } @users };
	return;
}

sub names { my @names = sort keys %{ $_[0]{strategies} }; return @names }
sub columns { return $_[0]{strategies}{ $_[1] }{columns} }

# Columns with truth written in one way, so that they can be compared.
sub _plain
{
	my %columns = @_;

	$columns{$_} = $columns{$_} ? 1 : 0 foreach 'enabled', 'archived';
	return %columns;
}

sub create
{
	my ($self, $now, %columns) = @_;

	%columns = _plain(%defaults, %columns);
	$columns{state} = $columns{archived} ? 'archived' : $columns{enabled} ? 'active' : 'draft';
	$self->{strategies}{ $columns{name} } = {
		columns => \%columns,
		since => $now,
		rows => [],
		unfinished => {},
		grants => {},
		once => {},
		ledger => [ [ $now, undef, $self->_schedule(\%columns) ] ] };
	return;
}

# The firings of a row of quota_strategy; a single strategy has none.
sub _schedule
{
	my ($self, $columns) = @_;

	return $columns->{type} eq 'periodic' ? $self->{firings_of}->(@{$columns}{qw(periodic_expr time_zone)}) : [];
}

# Position of the first of some firings after an instant.
sub position_after
{
	my ($firings, $instant) = @_;
	my ($low, $high) = (0, scalar @$firings);

	while ($low < $high)
	{
		my $middle = int(($low + $high) / 2);

		if ($firings->[$middle] > $instant) { $high = $middle }
		else { $low = $middle + 1 }
	}
	return $low;
}

# The firings of a strategy that no row accounts for yet.
sub open_firings
{
	my ($self, $strategy, $now) = @_;
	my $firings = $self->_schedule($strategy->{columns});
	my $rows = $strategy->{rows};
	my $from = position_after($firings, @$rows ? max($strategy->{since}, $rows->[-1]{last}) : $strategy->{since});
	my @open;

	while ($from < @$firings && $firings->[$from] <= $now)
	{
		push @open, $firings->[ $from++ ];
	}
	return @open;
}

# Why a strategy runs nothing at all; undefined: it does.
sub _out_of_use
{
	my ($columns) = @_;

	return $columns->{state} eq 'active' ? undef : $columns->{state};
}

# Why a firing of a strategy in use is not run, as far as its validity tells.
sub _not_valid
{
	my ($columns, $firing, $now) = @_;

	return 'before valid_from' if $firing < $columns->{valid_from};
	return 'after valid_until' if $firing >= $columns->{valid_until};
	return 'not run before valid_until' if $now >= $columns->{valid_until};
	return undef;
}

# Firings at or before this time are too late to be run, and what is said of them.
sub _limit
{
	my ($columns, $now) = @_;
	my $window = $columns->{catch_up_window};

	return ($now - $late, 'more than 2 minutes late') if $columns->{catch_up} eq 'none';
	$window //= $day if $columns->{catch_up} eq 'all';
	return (defined $window ? $now - $window : -9**18, 'older than catch_up_window');
}

# What a scan does to a strategy, in this order: [ retry | skip | run, firing, reason ].
sub actions
{
	my ($self, $strategy, $now) = @_;
	my $columns = $strategy->{columns};
	my ($limit, $limit_reason) = _limit($columns, $now);
	my $out_of_use = _out_of_use($columns);
	my $rest = $columns->{catch_up} eq 'all' ? 'more than catch_up_max' : 'a later firing was run instead';
	my $most = $columns->{catch_up} eq 'all' ? $columns->{catch_up_max} : 1;
	my (@actions, @due);

	return () if $columns->{type} ne 'periodic';
	foreach my $firing ($self->open_firings($strategy, $now))
	{
		my $reason = $out_of_use // _not_valid($columns, $firing, $now);

		$reason //= $limit_reason if $firing <= $limit;
		if (defined $reason) { push @actions, [ 'skip', $firing, $reason ] }
		else { push @due, $firing }
	}
	while (@due > $most)
	{
		push @actions, [ 'skip', shift @due, $rest ];
	}
	@actions = sort { $a->[1] <=> $b->[1] } @actions, map { [ 'run', $_ ] } @due;

	return @actions if $out_of_use || $now < $columns->{valid_from} || $now >= $columns->{valid_until};
	my @unfinished = sort { $a <=> $b } keys %{ $strategy->{unfinished} };
	@unfinished = grep { !@due && $_ == $strategy->{rows}[-1]{last} } @unfinished if $columns->{catch_up} ne 'all';
	return (
		map({ [ 'retry', $_ ] }
			grep { $_ > $limit && $_ > $strategy->{since} && !defined _not_valid($columns, $_, $now) } @unfinished),
		@actions);
}

# Whether a scan does anything to a periodic strategy.
sub is_due
{
	my ($self, $name, $now) = @_;

	return scalar(() = $self->actions($self->{strategies}{$name}, $now));
}

# Whether a run of a strategy failed or is incomplete, be it due to be tried again or not.
sub is_unfinished
{
	my ($self, $name) = @_;

	return scalar %{ $self->{strategies}{$name}{unfinished} };
}

# Does one of them.
sub apply
{
	my ($self, $strategy, $action) = @_;
	my ($kind, $firing, $reason) = @$action;

	return $self->_skip($strategy, $firing, $reason) if $kind eq 'skip';
	if ($kind eq 'run')
	{
		my %row = (first => $firing, last => $firing, count => 1);

		push @{ $strategy->{rows} }, \%row;
		$strategy->{unfinished}{$firing} = \%row;
	}
	my $row = $strategy->{unfinished}{$firing};
	@{$row}{qw(state reason)} = $self->_grant($strategy, $strategy->{grants}{$firing} //= {});
	delete $strategy->{unfinished}{$firing} if $row->{state} eq 'done';
	return;
}

# A firing that is not run joins those before it that were not run for the same reason.
sub _skip
{
	my ($self, $strategy, $firing, $reason) = @_;
	my $rows = $strategy->{rows};

	if (@$rows && $rows->[-1]{state} eq 'skipped' && $rows->[-1]{reason} eq $reason)
	{
		$rows->[-1]{last} = $firing;
		$rows->[-1]{count}++;
	}
	else
	{
		push @$rows, { first => $firing, last => $firing, count => 1, state => 'skipped', reason => $reason };
	}
	return;
}

# Grants to who meets the condition and has no grant yet; state and reason.  Whoever is granted something has no
# balance that is known where it goes.  Why a run is incomplete is text for people, and not told here.
sub _grant
{
	my ($self, $strategy, $granted) = @_;
	my ($name, $model, $condition) = @{ $strategy->{columns} }{qw(name model condition)};

	return ('failed', qq(no gateway serves model "$model" of strategy "$name")) if $self->{broken}{$model};
	my ($users, $undecided) = $self->{users_of}->($condition, $self->{known});
	foreach my $user (grep { !$granted->{$_} } @$users)
	{
		$granted->{$user} = 1;
		delete $self->{known}{ $self->{pays_at} }{$user} if defined $self->{pays_at};
	}
	return (grep({ !$granted->{$_} } @$undecided) ? 'incomplete' : 'done', undef);
}

# A scan of all strategies, or of some.
sub scan
{
	my ($self, $now, @names) = @_;

	foreach my $name (@names ? @names : $self->names)
	{
		my $strategy = $self->{strategies}{$name};

		$self->apply($strategy, $_) foreach $self->actions($strategy, $now);
		$self->_grant_once($strategy, $now);
	}
	return;
}

# A tick when all back-offs are over: that nothing is run may be told of later.
sub tick
{
	my ($self, $now) = @_;

	foreach my $name ($self->names)
	{
		my $strategy = $self->{strategies}{$name};
		my @actions = $self->actions($strategy, $now);

		$self->apply($strategy, $_)
		  foreach grep({ $_->[0] ne 'skip' } @actions) || @actions && $actions[0][1] + $scan_interval <= $now ? @actions : ();
		$self->_grant_once($strategy, $now);
	}
	return;
}

# What a strategy grants that is not periodic.
sub _grant_once
{
	my ($self, $strategy, $now) = @_;
	my $columns = $strategy->{columns};

	$self->_grant($strategy, $strategy->{once})
	  if $columns->{type} eq 'single' && !defined _out_of_use($columns) && $now >= $columns->{valid_from} && $now < $columns->{valid_until};
	return;
}

# A scan of a strategy that was broken off by a crash: goes as far as is found, told by how many firings are
# accounted for, a hash of the states of its rows and whether anything was granted once.
sub scan_broken_off
{
	my ($self, $now, $name, $occurrences, $states, $granted_once) = @_;
	my $strategy = $self->{strategies}{$name};
	my @actions = $self->actions($strategy, $now);

	$occurrences -= $_->{count} foreach @{ $strategy->{rows} };
	foreach my $action (grep { $_->[0] eq 'retry' } @actions)
	{
		my $firing = $action->[1];

		$self->apply($strategy, $action)
		  if ($states->{$firing} // '') ne $strategy->{unfinished}{$firing}{state};
	}
	foreach my $action (grep { $_->[0] ne 'retry' } @actions)
	{
		last if $occurrences-- <= 0;
		$self->apply($strategy, $action);
	}
	$self->scan($now, $name) if $granted_once && $strategy->{columns}{type} eq 'single';
	return;
}

# The state of a strategy once it is edited.  One that is taken out of the archive was never active if it granted nothing.
sub _state
{
	my ($strategy, $new) = @_;
	my $old = $strategy->{columns};

	return 'archived' if $new->{archived};
	return 'active' if $new->{enabled};
	return 'paused' if $old->{state} eq 'active';
	return $old->{state} if $old->{state} ne 'archived';
	return %{ $strategy->{grants} } || %{ $strategy->{once} } ? 'paused' : 'draft';
}

# Whether an edit is refused: what would be written could not work, and is to be used.
sub refused
{
	my ($self, $name, %change) = @_;
	my $old = $self->columns($name);
	my $new = { %$old, %change };
	$new->{state} = _state($self->{strategies}{$name}, $new);
	my @checked = grep { ($old->{$_} // '') ne ($new->{$_} // '') } qw(condition model amount type periodic_expr time_zone);

	return 0 if !$self->{broken}{ $new->{model} };
	return @checked || !defined _out_of_use($new);
}

sub edit
{
	my ($self, $now, $name, %change) = @_;
	my $strategy = $self->{strategies}{$name};
	my $old = $strategy->{columns};
	my $new = { _plain(%$old, %change) };

	$new->{state} = _state($strategy, $new);
	my $differs = sub {
		return scalar grep { ($old->{$_} // '') ne ($new->{$_} // '') } @_;
	};
	my $schedule_edited = $differs->(qw(type periodic_expr time_zone));

	if ($schedule_edited || $differs->(qw(enabled archived valid_from valid_until)))
	{
		foreach my $firing ($self->open_firings($strategy, $now))
		{
			my $reason =
			     _out_of_use($old)
			  // _not_valid($old, $firing, $now)
			  // _out_of_use($new)
			  // ($schedule_edited ? 'schedule edited' : undef);

			$self->_skip($strategy, $firing, $reason) if defined $reason;
		}
	}
	$strategy->{columns} = $new;
	if ($schedule_edited || $new->{enabled} && !$old->{enabled} || $old->{archived} && !$new->{archived})
	{
		$strategy->{since} = $now;
	}
	if ($schedule_edited)
	{
		$strategy->{ledger}[-1][1] = $now;
		push @{ $strategy->{ledger} }, [ $now, undef, $self->_schedule($new) ];
	}
	return;
}

sub rows { return @{ $_[0]{strategies}{ $_[1] }{rows} } }

# Users who have a grant: a hash of users for each firing that was run, and one for what is granted once.
sub grants { return $_[0]{strategies}{ $_[1] }{grants} }
sub granted_once { return $_[0]{strategies}{ $_[1] }{once} }

# Every firing of a strategy up to a time, whatever became of it: of each schedule that it had, those after it
# came and up to when it went.
sub all_firings
{
	my ($self, $name, $until) = @_;
	my @all;

	foreach my $period (@{ $self->{strategies}{$name}{ledger} })
	{
		my ($from, $to, $firings) = @$period;

		$to = $until if !defined $to || $to > $until;
		push @all, @{$firings}[ position_after($firings, $from) .. position_after($firings, $to) - 1 ];
	}
	return @all;
}

1;
