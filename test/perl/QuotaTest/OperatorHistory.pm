
=pod

=head1 NAME

QuotaTest::OperatorHistory - a random history of what operators do, compared with a model after each step

=head1 SYNOPSIS

  my $history = QuotaTest::OperatorHistory->new(node => $node, mocks => \%mocks, seed => 1, steps => 60);
  my $problem = $history->play;        # undef: everything was as the model says
  print $history->script;              # the statements, as SQL

=head1 DESCRIPTION

Each step draws from a random sequence of its own, so that a history can be played again with some of its steps left out.

=cut

package QuotaTest::OperatorHistory;

use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use List::Util qw(max min shuffle sum0);
use POSIX qw(strftime);
use PostgreSQL::Test::Utils;
use QuotaTest::OperatorModel;
use QuotaTest::OperatorSession;
use QuotaTest::Wait qw(wait_until wait_for);
use Time::HiRes qw(usleep);

my $HOUR = 3600;
my $DAY = 24 * $HOUR;
# A Monday, ten o'clock.
my $START = 1772445600;

# How long a gateway may take to answer.
my $TIMEOUT = '150 ms';

my @USERS = map { sprintf 'u%02d', $_ } 1 .. 16;
my @ORGS = qw(red green blue);
my @STARS = ('vscode', 'zgsm', 'zgsm, vscode', '');
my %DIALECT = (hold => 'zgsm', resend => 'higress', reconcile => 'zgsm');
my @GATEWAYS = sort keys %DIALECT;

sub pick { return $_[ rand @_ ]; }
sub between { return $_[0] + int rand($_[1] - $_[0] + 1); }

sub quoted
{
	my ($text) = @_;

	return 'NULL' if !defined $text;
	return "'" . $text =~ s/'/''/gr . "'";
}

# Amounts have at most six decimals.
sub differ { return abs($_[0] - $_[1]) > 1e-8; }

sub time_text { return strftime('%Y-%m-%d %H:%M:%S+00', gmtime $_[0]); }

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

sub note_line
{
	my ($self, $line) = @_;

	push @{ $self->{log} }, $line;
	return;
}

sub problem
{
	my ($self, $what) = @_;

	die { problem => $what };
}

# --- the database

sub ask
{
	my ($self, $query) = @_;
	my ($rows, $code, $message) = $self->{session}->run($query);

	$self->problem("$code: $query\n$message") if $code ne '';
	return $rows;
}

# A statement of the history; error: the SQLSTATE that it is expected to end with, or a pattern of several. In a list, the
# SQLSTATE comes after the rows.
sub act
{
	my ($self, $statement, $error) = @_;
	my ($rows, $code, $message) = $self->{session}->run($statement);

	$error //= '';
	$self->note_line("$statement;" . ($code ne '' ? " -- $code" : ''));
	$self->problem("expected SQLSTATE '$error', got '$code': $message") if $code !~ /^(?:$error)$/;
	return wantarray ? ($rows, $code) : $rows;
}

sub connect
{
	my ($self) = @_;

	$self->{session}->end if $self->{session};
	$self->{session} = QuotaTest::OperatorSession->new($self->{node}, $self->{database});
	$self->ask("SET search_path = quota_manager");
	$self->set_clock;
	return;
}

sub set_clock
{
	my ($self) = @_;
	my $clock = time_text($self->{model}{clock});

	$self->ask("SET quota_manager.schedule_clock = '$clock'");
	return if !$self->{workers};
	# PostgreSQL drops a SIGHUP that comes while a background worker begins.
	wait_for('the scheduler', sub { $self->ask(q(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'quota_manager scheduler'))->[0][0] > 0 }) if $self->{workers_started};
	$self->ask("ALTER SYSTEM SET quota_manager.schedule_clock = '$clock'");
	$self->ask('SELECT pg_reload_conf()');
	return;
}

sub begin
{
	my ($self) = @_;
	my $node = $self->{node};
	my $model;

	$self->{database} = 'history_' . ++$self->{number}{databases};
	$node->safe_psql('postgres', "CREATE DATABASE $self->{database} TEMPLATE history");
	$self->{model} = $model = QuotaTest::OperatorModel->new(clock => $START, surge_factor => 3, surge_minimum => 8);
	foreach my $gateway (@GATEWAYS)
	{
		$self->{mocks}{$gateway}->reset;
		$self->{mocks}{$gateway}->honour_idempotency($gateway eq 'resend' ? 1 : 0);
		$model->{gateways}{$gateway} = { policy => $gateway, paused => 0 };
		$model->{models}{"m-$gateway"} = $gateway;
	}
	$self->{applied} = {};
	$self->{seen} = { map { $_ => 0 } @GATEWAYS };
	$self->{total} = { map { $_ => {} } @GATEWAYS };
	$self->{before} = { map { $_ => {} } @GATEWAYS };
	foreach my $gateway (@GATEWAYS)
	{
		foreach my $user (grep { rand() < 0.3 } @USERS)
		{
			my $quota = between(1, 25);

			$self->{mocks}{$gateway}->set_balance($user, quota => $quota);
			$self->{before}{$gateway}{$user} = $quota;
		}
	}
	$self->{bulk} = {};
	$self->{by_hand} = [];
	$self->connect;
	$self->note_line(sprintf q(SET search_path = quota_manager; SET quota_manager.schedule_clock = '%s';), time_text($model->{clock}));
	foreach my $gateway (@GATEWAYS)
	{
		$self->act(sprintf qq(INSERT INTO quota_gateway (name, dialect, base_url, request_timeout, doubt_policy, sole_writer, guard_balances, max_connections) VALUES ('%s', '%s', '%s', '$TIMEOUT', '%s', %s, false, %d)),
			$gateway, $DIALECT{$gateway}, $self->{mocks}{$gateway}->url, $gateway, $gateway eq 'reconcile' ? 'true' : 'false', 4);
		$self->act("INSERT INTO quota_model (model, gateway) VALUES ('m-$gateway', '$gateway')");
	}
	$self->add_user foreach 1 .. 10;
	$self->add_strategy foreach 1 .. 3;
	return if !$self->{workers};
	$self->act('SELECT start_workers()');
	$self->{workers_started} = 1;
	return;
}

# --- workers

# Waits until the workers have run and delivered all that there is, everything that waits for a retry too.
sub await_workers
{
	my ($self) = @_;
	my $done = <<'SQL';
WITH p AS (SELECT bool_or(scope = 'everything') AS everything, coalesce(array_agg(gateway) FILTER (WHERE scope = 'gateway'), '{}') AS gateways FROM quota_pause WHERE end_time IS NULL)
SELECT concat_ws('; ', (SELECT 'due: ' || string_agg(d.name, ', ') FROM strategy_due d WHERE d.state = 'due'),
	(SELECT 'not settled: ' || string_agg(concat_ws(' ', e.id, e.status), ', ') FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id JOIN quota_gateway g ON g.name = e.gateway, p
		WHERE p.everything IS NOT TRUE AND e.gateway <> ALL (p.gateways) AND CASE WHEN e.status IN ('pending', 'processing') THEN e.revision > 0 OR s.state <> 'paused'
			ELSE e.status = 'in_doubt' AND e.next_attempt_time < 'infinity' AND g.doubt_policy <> 'hold' AND (e.revision > 0 OR s.state <> 'paused' OR g.doubt_policy <> 'resend') END),
	(SELECT 'reversals wait for ' || string_agg(i.grant_id::text, ', ') FROM quota_reversal_item i JOIN quota_execute e ON e.id = i.grant_id
		WHERE i.outcome = 'waits' AND e.status NOT IN ('processing', 'in_doubt')))
SQL

	$self->ask('SELECT quota_internal.end_back_offs(), wake_workers()');
	wait_for('the workers', sub { $_ = $self->ask($done)->[0][0]; return $_ eq ''; });
	return;
}

# After an action: what the workers make of it.
sub let_workers_work
{
	my ($self) = @_;

	return if !$self->{workers};
	$self->await_workers;
	$self->{sends} = 1;
	$self->{model}->scan;
	return;
}

# --- what was granted and sent

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

# --- actions: users

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

# --- actions: strategies

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

# --- actions: brakes

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

# --- actions: ceilings

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

# --- actions: scans

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

# --- actions: deliveries

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

# --- actions: calls by hand

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

# --- actions: copies

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

# --- actions: what is old

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

# --- actions: while grants are being sent

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

		# What has ended since was being sent: otherwise it would have been taken back, as what waited already or was not
		# taken back after all.
		if (defined $outcome) { $grant->{status} = $was{$outcome}; }
		elsif ($now eq 'completed' && $model->is_awaited($grant->{id}) || $now eq 'failed' && $grant->{revision} % 2 && !$taken{"$grant->{user} $grant->{firing}"}) { $grant->{status} = 'processing'; }
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

# --- actions: decisions

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

# --- actions: reversals

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

# --- checks of everything

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
		$row->{await}++ if $grant->{status} eq 'failed' || $model->awaits_people($grant);
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

# --- a history

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

# The last rows of the tables that tell what went on, for whoever looks for the reason.
sub note_runs
{
	my ($self) = @_;

	foreach my $table ('quota_gateway ORDER BY name', 'quota_run ORDER BY id DESC LIMIT 12', "quota_execute ORDER BY status IN ('pending', 'processing', 'in_doubt') DESC, id DESC LIMIT 60",
		'grant_decision ORDER BY id DESC LIMIT 20', 'user_balance ORDER BY gateway, user_id LIMIT 60', 'worker_status')
	{
		my ($rows) = eval { $self->{session}->run("SELECT * FROM $table") };

		$self->note_line('-- ' . join ' ', $table =~ /^(\w+)/, @$_) foreach @{ $rows // [] };
	}
	return;
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
		my @doubtful = grep { $model->awaits_people($_) } $model->all_grants;
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
