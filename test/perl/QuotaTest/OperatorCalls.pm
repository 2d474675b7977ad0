
=pod

=head1 NAME

QuotaTest::OperatorCalls - calls by hand, copies and what is old in a history of operators

=head1 DESCRIPTION

A part of L<QuotaTest::OperatorHistory>. Each action returns whether it did anything.

=cut

package QuotaTest::OperatorCalls;

use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use QuotaTest::OperatorBasics;

# --- calls by hand

# Each amount is another one, so that changes can be told from each other.
sub next_value
{
	my ($self) = @_;

	return 1000 + ++$self->{values};
}

# Changes by hand that were applied, of an amount.
sub applied_by_hand
{
	my ($self, $gateway, $user, $value) = @_;

	return scalar grep { $_->{gateway} eq $gateway && $_->{user} eq $user && $_->{amount} == $value } @{ $self->{by_hand} };
}

sub change_by_hand
{
	my ($self) = @_;
	my ($gateway, $user, $value) = (pick(@GATEWAYS), pick(@USERS), $self->next_value);
	my $reconciles = $self->{model}{gateways}{$gateway}{policy} eq 'reconcile';
	# As its answer says; 55000: the store behind the gateway refused it.
	my (undef, $code) = $self->act(sprintf(q(SELECT gateway_delta(%s, %d, 'by hand', %s)), quoted($user), $value, quoted($gateway)), $reconciles ? '55000' : '|08001|08004|08007|53000|22023|55000');

	$self->read_gateways;
	my $applied = $self->applied_by_hand($gateway, $user, $value);
	my $most = $code =~ /^(?:|08007)$/ ? 1 : 0;
	my $least = $code eq '' ? 1 : 0;
	$self->problem("gateway_delta() of $value to $user at $gateway was applied $applied times ('$code')") if $applied < $least || $applied > $most;
	return 1;
}

# A bulk call under a new key or an old one, with some users who were in it before and some who were not.
sub bulk_call
{
	my ($self) = @_;
	my $calls = $self->{bulk};
	my $key = rand() < 0.5 && %$calls ? pick(sort keys %$calls) : 'key' . (1 + keys %$calls);
	my $call = $calls->{$key} //= { gateway => pick(qw(hold resend)), rows => {} };
	my $gateway = $call->{gateway};
	my $rows = $call->{rows};
	my $error = '';

	my $reconciles = $self->{model}{gateways}{$gateway}{policy} eq 'reconcile';
	if (%$rows && rand() < 0.4)
	{
		$self->act(sprintf('CALL bulk_delta(NULL, %s)', quoted($key)), $reconciles ? '55000' : '');
	}
	else
	{
		my %asked = map { $_ => $rows->{$_} // $self->next_value } (shuffle(@USERS))[ 0 .. between(0, 5) ];
		# Another value for a user is a mistake.
		my ($mistaken) = rand() < 0.15 ? grep { $rows->{$_} } sort keys %asked : ();
		$asked{$mistaken}++ if defined $mistaken;
		$error = $reconciles ? '55000' : '22023' if defined $mistaken || $reconciles;
		my $query = 'VALUES ' . join ', ', map { sprintf '(%s, %d, %s)', quoted($_), $asked{$_}, quoted($key) } sort keys %asked;
		$self->act(sprintf('CALL bulk_delta($$%s$$, %s, %s)', $query, quoted($key), quoted($gateway)), $error);
		%$rows = (%asked, %$rows) if $error eq '';
	}
	return 1;
}

# No row of a bulk call was applied twice, and each as its state says.
sub compare_bulk_calls
{
	my ($self) = @_;
	my %wanted;

	return if !%{ $self->{bulk} };
	foreach my $key (keys %{ $self->{bulk} })
	{
		my $call = $self->{bulk}{$key};

		$wanted{"$key $_"} = [ $call->{gateway}, $call->{rows}{$_}, $_ ] foreach keys %{ $call->{rows} };
	}
	foreach my $row (@{ $self->ask('SELECT key, user_id, gateway, trim_scale(value), state FROM bulk_call') })
	{
		my ($key, $user, $gateway, $value, $state) = @$row;
		my $row = delete $wanted{"$key $user"} // $self->problem("bulk_call has a row for $user under $key that nobody asked for");
		my $applied = $self->applied_by_hand($gateway, $user, $value);

		$self->problem("bulk_call has $value at $gateway for $user under $key, and should have $row->[1] at $row->[0]") if $value != $row->[1] || $gateway ne $row->[0];
		$self->problem("$value for $user under $key is $state and was applied $applied times")
		  if $applied > 1 || $applied != 1 && $state eq 'applied' || $applied && $state =~ /^(?:waiting|refused|not_sent)$/;
	}
	$self->problem('bulk_call lacks ' . join ', ', sort keys %wanted) if %wanted;
	return;
}

# --- copies

# The database is dumped and restored, and the copy is resumed in its place.
sub copy
{
	my ($self) = @_;
	my $node = $self->{node};
	my $model = $self->{model};
	my $former = $self->{database};
	my $dump = "$PostgreSQL::Test::Utils::tmp_check/$former.dump";
	my $policy = pick(qw(unchanged_since_dump may_have_run));

	return 0 if $self->{workers};

	$self->{database} = 'history_' . ++$self->{number}{databases};
	foreach my $command ([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr($former) ], [ 'createdb', '-h', $node->host, '-p', $node->port, '-T', 'template0', $self->{database} ],
		[ 'pg_restore', '--exit-on-error', '-d', $node->connstr($self->{database}), $dump ])
	{
		my $output = '';
		IPC::Run::run($command, '>', \$output, '2>&1') or $self->problem("@$command: $output");
	}
	unlink $dump;
	$self->note_line("-- it is dumped and restored as $self->{database}, which takes its place");
	$self->connect;
	$self->ask('SELECT stop_workers()');
	$node->safe_psql('postgres', "DROP DATABASE $former WITH (FORCE)");
	$self->{copied} = 1;
	# Where nothing was ever run or sent it does not know that it is a copy.
	my $is_copy = $self->ask('SELECT quota_internal.is_copy()')->[0][0] eq 't';
	if ($is_copy)
	{
		$self->act('SELECT count(*) FROM scan()', '55000');
		$self->act('CALL deliver()', '55000');
	}
	$self->act("SELECT count(*) FROM resume('$policy')", $is_copy ? '' : '55000');
	return 1 if !$is_copy || $policy ne 'may_have_run';

	$model->{doubtful} = ++$model->{order};
	@{$_}{qw(status acts)} = ('in_doubt', 0) foreach grep { $_->{status} =~ /^(?:pending|processing|in_doubt)$/ } $model->all_grants;
	foreach my $strategy (values %{ $model->{strategies} })
	{
		$strategy->{settled} = 0;
		next if $strategy->{type} ne 'periodic' || $strategy->{state} ne 'active';
		my ($retried) = $model->due_firings($strategy);
		my %skipped = map { $_ => 1 } @$retried;

		$_->{state} = 'skipped' foreach grep { $skipped{ $_->{firing} } } @{ $strategy->{runs} };
		$model->close_firings($strategy);
	}
	return 1;
}

# --- what is old

my @OLD = (
	'quota_execute SET create_time = create_time - $1, update_time = update_time - $1', 'quota_run SET start_time = start_time - $1, finish_time = finish_time - $1',
	'quota_installation SET doubtful_until = doubtful_until - $1', 'quota_strategy SET create_time = create_time - $1, update_time = update_time - $1',
	'quota_reversal SET reversal_time = reversal_time - $1', 'quota_reversal_item SET outcome_time = outcome_time - $1', 'grant_decision SET decision_time = decision_time - $1',
	'quota_strategy_version SET change_time = change_time - $1', 'quota_pause SET since = since - $1, end_time = end_time - $1');

# Ten days go by, in which nothing happens, and what is older than a day is deleted.
sub retain
{
	my ($self) = @_;
	my $model = $self->{model};
	my $day = $model->{clock} - $DAY;

	$self->act('SET session_replication_role = replica');
	$self->act($_) foreach map { s/\$1/interval '10 days'/gr } map { "UPDATE $_" } @OLD;
	$self->act('RESET session_replication_role');
	$_->{old} = 1 foreach $model->all_grants, map { @{ $_->{scans} } } values %{ $model->{strategies} };

	my $pruned = 0;
	foreach my $strategy (grep { $_->{type} eq 'periodic' && !defined $_->{cap} } values %{ $model->{strategies} })
	{
		my ($retried) = $strategy->{state} eq 'active' ? $model->due_firings($strategy) : ([]);
		my %kept = map { $_ => 1 } @$retried;

		foreach my $chain (map { $model->chain(@{$_}{qw(strategy user firing)}) } $model->first_grants_of($strategy->{id}))
		{
			next if $chain->[0]{firing} >= $day || $kept{ $chain->[0]{firing} };
			next if grep { $_->{status} !~ /^(?:completed|failed|cancelled)$/ || $model->is_awaited($_->{id}) } @$chain;
			$_->{pruned} = 1 foreach @$chain;
			$pruned += @$chain;
			$strategy->{pruned} = 1;
		}
		foreach my $run (grep { $_->{firing} < $day && !$kept{ $_->{firing} } && $_->{state} =~ /^(?:failed|incomplete)$/ } @{ $strategy->{runs} })
		{
			my ($scan) = grep { $_->{firing} eq $run->{firing} } @{ $strategy->{scans} };
			$run->{state} = $scan->{state} = 'done' if $scan->{granted};
		}
	}
	my $deleted = $self->act(q(CALL retain('1 day')))->[0][0];
	$self->problem("retain() deleted $deleted grants, and should have deleted $pruned") if $deleted != $pruned;
	return 1;
}

# Much is done, and all of it is rolled back.
sub roll_back
{
	my ($self) = @_;
	my $name = quoted(($self->random_strategy // return 0)->{name});
	my @statements = (
		"SELECT count(*) FROM scan()", "SELECT count(*) FROM reverse_strategy($name, 'a mistake')", 'SELECT pause_all()', "SELECT unpause_strategy($name)",
		"UPDATE user_info SET vip = 3, org = 'red'", "UPDATE quota_strategy SET condition = 'true()' WHERE state = 'active'", 'DELETE FROM quota_ceiling',
		q(SELECT cancel(ARRAY(SELECT id FROM quota_execute WHERE status = 'pending'), 'a mistake')), q(SELECT resolve(ARRAY(SELECT id FROM quota_execute WHERE status = 'in_doubt'), false)));

	$self->act(join '; ', 'BEGIN', (shuffle(@statements))[ 0 .. between(1, 4) ], 'ROLLBACK');
	return 1;
}

1;
