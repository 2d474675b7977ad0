
=pod

=head1 NAME

QuotaTest::OperatorDatabase - the database, the gateways and the workers of a history of operators

=head1 DESCRIPTION

A part of L<QuotaTest::OperatorHistory>. Sessions are L<QuotaTest::OperatorSession>; what was done is kept as a script.

=cut

package QuotaTest::OperatorDatabase;

use strict;
use warnings FATAL => 'all';

use QuotaTest::OperatorBasics;
use QuotaTest::OperatorModel;
use QuotaTest::OperatorSession;
use QuotaTest::Wait qw(wait_for);

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
	# They may be as fast as the first step.
	$self->remember_held;
	$self->let_workers_work;
	$self->check_step;
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
	wait_for('the workers',
		sub {
			# One that has failed again and again rests for minutes, unless its row is edited.
			$self->ask(q(UPDATE quota_gateway SET request_timeout = request_timeout WHERE state = 'closed' AND next_probe_time > clock_timestamp() + interval '2 s'));
			$_ = $self->ask($done)->[0][0];
			return $_ eq '';
		});
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

# --- for whoever looks for the reason

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

1;
