
=pod

=head1 NAME

QuotaTest::Delivery - a server with grants to deliver

=cut

package QuotaTest::Delivery;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use IPC::Open2 ();
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until);
use Test::More;

our @EXPORT_OK = qw(delivery_node start_workers add_gateway grant deliver deliver_all statuses delivered_once
  begin_call end_call begin_session ask_session end_session kill_call log_part);

# A running server with the extension, whose scans start no parallel workers. The schema quota_test has make_grants(),
# which writes grants as a scan does.
sub delivery_node
{
	my ($name, $conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$ENV{PGCLIENTENCODING} = 'UTF8';
	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ], allows_streaming => 1);
	$node->append_conf('postgresql.conf', "log_min_messages = info\nlog_statement = none\nmax_parallel_workers_per_gather = 0\nquota_manager.default_strategy_state = active\nquota_manager.delete_proof = on\n" . ($conf // ''));
	$node->start;
	$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION quota_manager;
CREATE SCHEMA quota_test;
CREATE SEQUENCE quota_test.strategy;
CREATE FUNCTION quota_test.make_grants(gateway text, amount numeric, users text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	run bigint;
	strategy integer := nextval('quota_test.strategy');
BEGIN
	INSERT INTO quota_manager.quota_run (strategy_id, state, start_time, finish_time)
		VALUES (strategy, 'done', now(), now()) RETURNING id INTO run;
	WITH granted AS (
		INSERT INTO quota_manager.quota_execute (strategy_id, user_id, scheduled_time, run_id,
			strategy_version, amount, model, gateway, batch_number)
		SELECT strategy, u, '2024-01-01 UTC'::timestamptz + n * interval '1 s', run, 1, amount, 'm', gateway, ''
			FROM unnest(users) WITH ORDINALITY AS x(u, n)
		RETURNING id)
	UPDATE quota_manager.quota_run
		SET first_grant_id = (SELECT min(id) FROM granted), last_grant_id = (SELECT max(id) FROM granted),
			granted = cardinality(users), undelivered = true
		WHERE id = run;
	PERFORM quota_internal.count_granted(r, make_grants.gateway, false) FROM quota_manager.quota_run r WHERE r.id = run;
END
$$;
SQL
	return $node;
}

# Lets the workers of such a server, which must preload the library, do their work.
sub start_workers
{
	my ($node) = @_;

	$node->safe_psql('postgres', q{
		CREATE ROLE quota_worker LOGIN;
		SELECT quota_manager.grant_access('quota_worker', 'worker')});
	foreach my $setting ("poll_interval = '100ms'", "worker_role = 'quota_worker'")
	{
		$node->safe_psql('postgres', "ALTER SYSTEM SET quota_manager.$setting");
	}
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	wait_until($node, q{SELECT count(*) = 1 FROM quota_manager.worker_status WHERE kind = 'courier' AND pid IS NOT NULL});
	return;
}

# Makes a mock known as a gateway, with its key in quota_credential.
sub add_gateway
{
	my ($node, $name, $mock, %column) = @_;
	my %row = (
		name => $name,
		dialect => $mock->{dialect},
		base_url => $mock->url,
		credential => defined $mock->{key} ? "row:$name" : undef,
		%column);
	my @names = sort grep { defined $row{$_} } keys %row;
	my $columns = join ', ', @names;
	my $values = join ', ', map { "'$row{$_}'" } @names;

	$node->safe_psql('postgres',
		"INSERT INTO quota_manager.quota_credential VALUES ('$name', '$mock->{key}')")
	  if defined $mock->{key};
	$node->safe_psql('postgres',
		"INSERT INTO quota_manager.quota_gateway ($columns) VALUES ($values)");
	return;
}

# Grants an amount to each user, in this order.
sub grant
{
	my ($node, $gateway, $amount, @users) = @_;
	my $list = join ', ', map { "'$_'" } @users;

	$node->safe_psql('postgres',
		"SELECT quota_test.make_grants('$gateway', $amount, ARRAY[$list])");
	return;
}

# CALL deliver(); its counts as "completed|failed|in_doubt|deferred".
sub deliver
{
	my ($node, $settings) = @_;

	return $node->safe_psql('postgres', ($settings // '') . ' CALL quota_manager.deliver()');
}

# Delivers again and again, as workers do, until a gateway has nothing left to do by itself; false if it does not end.
sub deliver_all
{
	my ($node, $gateway) = @_;

	foreach (1 .. 600)
	{
		deliver($node);
		return 1
		  if $node->safe_psql('postgres', qq{
			SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE gateway = '$gateway'
				AND (status IN ('pending', 'processing') OR status = 'in_doubt' AND next_attempt_time < 'infinity')}) eq 't';
	}
	return 0;
}

# The statuses of a gateway's grants, with how many have each.
sub statuses
{
	my ($node, $gateway) = @_;

	return $node->safe_psql('postgres', qq{
		SELECT coalesce(string_agg(status || ' ' || n, ', ' ORDER BY status), '')
		FROM (SELECT status, count(*) AS n FROM quota_manager.quota_execute
			WHERE gateway = '$gateway' GROUP BY status) x});
}

# Checks that the mock applied the completed grants, each once, and nothing
# else. Returns how many it applied.
sub delivered_once
{
	my ($node, $gateway, $mock, $name) = @_;
	my $installation =
	  $node->safe_psql('postgres', 'SELECT id FROM quota_manager.quota_installation');
	my @applied = $mock->applied;
	my @keys = sort map { $_->{idempotency_key} // 'none' } @applied;
	my @expected = split /\n/, $node->safe_psql('postgres', qq{
		SELECT '$installation-' || id FROM quota_manager.quota_execute
		WHERE gateway = '$gateway' AND status = 'completed'});

	is_deeply(\@keys, [ sort @expected ], "$name: what is completed was applied, once");
	return scalar @applied;
}

# Runs statements in a session of its own, in the background. Give the result to
# end_call(), which waits for its end and returns what it printed and its errors.
sub begin_call
{
	my ($node, @statements) = @_;
	my ($out, $err) = ('', '');
	my $handle = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), map { ('-c', $_) } @statements ],
		'<', '/dev/null', '>', \$out, '2>', \$err);

	return { handle => $handle, out => \$out, err => \$err };
}

sub end_call
{
	my ($call) = @_;

	IPC::Run::finish($call->{handle});
	return (${ $call->{out} }, ${ $call->{err} });
}

# A session that is asked again and again: ask_session() returns what a statement
# printed. An error ends it.
sub begin_session
{
	my ($node, $database) = @_;
	my $session = {};

	$session->{pid} = IPC::Open2::open2($session->{out}, $session->{in},
		'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database // 'postgres'));
	return $session;
}

sub ask_session
{
	my ($session, $statement) = @_;
	my $answer = '';

	print { $session->{in} } "$statement;\n\\echo end of answer\n";
	$session->{in}->flush;
	while (1)
	{
		my $line = readline $session->{out};

		defined $line or die "the session ended at: $statement";
		last if $line eq "end of answer\n";
		$answer .= $line;
	}
	chomp $answer;
	return $answer;
}

sub end_session
{
	my ($session) = @_;

	close $session->{in};
	waitpid $session->{pid}, 0;
	return;
}

# Kills the backend of a call of this application_name as it is, and waits until the server, which has to be set to
# restart_after_crash, is there again.
sub kill_call
{
	my ($node, $call, $application) = @_;
	my $log = -s $node->logfile;

	kill 'KILL', $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE application_name = '$application'");
	end_call($call);
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
	wait_until($node, 'SELECT true');
	return;
}

# What the server's log holds from a position on.
sub log_part
{
	my ($node, $from) = @_;

	return PostgreSQL::Test::Utils::slurp_file($node->logfile, $from // 0);
}

1;
