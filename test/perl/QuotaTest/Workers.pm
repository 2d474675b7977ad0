
=pod

=head1 NAME

QuotaTest::Workers - clusters with background workers, and a gateway to deliver to

=head1 DESCRIPTION

  my $gateway = QuotaTest::Workers::gateway();          # the mock, on a free port
  my $node = QuotaTest::Workers::cluster('name', preload => 1);
  QuotaTest::Workers::database($node, 'postgres', $gateway);
  QuotaTest::Workers::users($node, 'postgres', 10);

The role of the workers is quota_worker.  Scans start no parallel workers, which would take most of the time that it
takes to find the few users of a test: tables are planned for as if they were large.

=cut

package QuotaTest::Workers;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until wait_for);
use Test::More;
use Time::HiRes qw(time);

# Starts the mock gateway; an object that knows its url.
sub gateway
{
	my $gateway = QuotaTest::Workers::Gateway->start(dialect => 'higress', @_);

	$gateway->{url} = $gateway->url;
	return $gateway;
}

# A cluster, started.  preload: whether the library is; settings: lines of
# configuration; role: 0 leaves the role of the workers out; streaming: whether
# standbys may follow.
sub cluster
{
	my ($name, %option) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => [ '-E', 'UTF8', '--locale=C' ], allows_streaming => $option{streaming} // 0);
	$node->append_conf('postgresql.conf', <<"EOC");
max_worker_processes = 16
max_parallel_workers_per_gather = 0
quota_manager.poll_interval = 100ms
quota_manager.worker_role = 'quota_worker'
quota_manager.default_strategy_state = active
quota_manager.delete_proof = on
EOC
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'quota_manager'")
	  if $option{preload};
	$node->append_conf('postgresql.conf', $option{settings}) if $option{settings};
	$node->start;
	$node->safe_psql('postgres', 'CREATE ROLE quota_worker LOGIN')
	  unless defined $option{role} && !$option{role};
	return $node;
}

# Creates the extension in a database, with a default gateway.  version: not the newest one.
sub database
{
	my ($node, $database, $gateway, %option) = @_;
	my $version = $option{version} ? "VERSION '$option{version}'" : '';

	$node->safe_psql(
		$database, <<"EOS");
CREATE EXTENSION quota_manager $version;
INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default)
	VALUES ('gateway', 'higress', '$gateway->{url}', true);
SELECT quota_manager.grant_access('quota_worker', 'worker');
EOS
	return;
}

# Users user1 to userN, of vip level 1.
sub users
{
	my ($node, $database, $count) = @_;

	$node->safe_psql($database,
		"INSERT INTO quota_manager.user_info (id, vip) SELECT 'user' || n, 1 FROM generate_series(1, $count) n");
	return;
}

# Writes a strategy: name => ..., other columns as SQL literals or numbers.
sub strategy
{
	my ($node, $database, %column) = @_;

	%column = (
		type => 'single',
		amount => 5,
		model => 'm',
		condition => 'true()',
		%column);
	my @names = sort keys %column;
	$node->safe_psql(
		$database,
		sprintf 'INSERT INTO quota_manager.quota_strategy (%s) VALUES (%s)',
		join(', ', @names),
		join(', ', map { "\$\$$column{$_}\$\$" } @names));
	return;
}

# Waits until a condition in SQL holds; dies if it does not in time.
sub await
{
	my ($node, $database, $condition) = @_;

	wait_until($node, "SELECT coalesce(($condition), false)", database => $database);
	return;
}

# Waits until a strategy has that many completed grants.
sub await_grants
{
	my ($node, $database, $strategy, $count) = @_;

	await($node, $database, <<"EOS");
SELECT count(*) = $count FROM quota_manager.quota_execute e
JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
WHERE s.name = '$strategy' AND e.status = 'completed'
EOS
	return;
}

# Pid of a worker of the database; 0: it does not run.
sub worker
{
	my ($node, $database, $kind) = @_;

	return $node->safe_psql($database,
		"SELECT coalesce(max(pid), 0) FROM quota_manager.worker_status WHERE kind = '$kind'");
}

# Waits until a worker runs that is not the one with this pid, and returns its pid.
sub await_worker
{
	my ($node, $database, $kind, $other) = @_;

	$other //= 0;
	await($node, $database,
		"SELECT pid <> $other FROM quota_manager.worker_status WHERE kind = '$kind' LIMIT 1");
	return worker($node, $database, $kind);
}

# Seconds until a process has ended; dies after 30.
sub seconds_to_end
{
	my ($pid, $since) = @_;

	wait_for("process $pid ends", sub { !kill 0, $pid }, 30);
	return time() - $since;
}

# Whether a process runs; one that has ended and waits for init to notice does not.
sub _runs
{
	my ($pid) = @_;

	open my $stat, '<', "/proc/$pid/stat" or return 0;
	my $line = readline($stat) // '';
	close $stat;
	return $line =~ /\) [^Z]/;
}

# Kills the postmaster by kill -9 and waits until the last of the processes has noticed; returns how many seconds that
# one took, and dies if it takes a minute.
sub end_postmaster
{
	my ($node) = @_;
	my @processes = split /\n/, $node->safe_psql('postgres',
		'SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()');
	my $before = time();

	$node->kill9;
	foreach my $pid (@processes)
	{
		wait_for("process $pid ends with its postmaster", sub { !_runs($pid) }, 60);
	}
	return time() - $before;
}

# The same, and starts another postmaster.
sub kill_postmaster
{
	my ($node) = @_;
	my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	my $took = end_postmaster($node);

	# to the next postmaster the last one lives until init has noticed
	seconds_to_end($postmaster, time());
	$node->start;
	return $took;
}

my $reloads = 0;

# Seconds from SIGHUP until a process has read the settings: of a value that
# cannot be read, every process says so at debug3.
sub seconds_to_reload
{
	my ($node, $pid) = @_;
	my $value = 'unreadable' . $reloads++;
	my $seen = qr/\[$pid\] [^\n]*"quota_manager.scan_interval": "$value"/;

	$node->append_conf('postgresql.conf', "quota_manager.scan_interval = '$value'");
	my $since = time;
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	wait_for('settings are reloaded', sub { slurp_file($node->logfile) =~ $seen }, 30);
	return time - $since;
}

# Checks how many seconds something takes.  The machine may be busy: the best of
# a few tries counts.
sub within_a_second
{
	my ($name, $try) = @_;
	my $best;

	foreach (1 .. 3)
	{
		my $seconds = $try->();

		$best = $seconds if !defined $best || $seconds < $best;
		last if $best < 1;
	}
	cmp_ok($best, '<', 1, sprintf '%s (%.3f s)', $name, $best);
	return;
}

# Sets a setting of the cluster and lets every process read it.
sub set
{
	my ($node, $name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$value'");
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	return;
}

# How often a pattern occurs in the server's log.
sub log_count
{
	my ($node, $pattern) = @_;
	my @found = slurp_file($node->logfile) =~ /$pattern/g;

	return scalar @found;
}

# QuotaTest::Mock, with what is asked of it in fewer words.
package QuotaTest::Workers::Gateway;

use parent -norequire, 'QuotaTest::Mock';

# Asks for a path of the mock; parameters are posted as a form.
sub ask
{
	my ($self, $path, $form) = @_;
	my $url = "$self->{url}/mock/$path";
	my $reply = $form ? $self->{http}->post_form($url, $form) : $self->{http}->get($url);

	$reply->{success} or die "$url: $reply->{status} $reply->{content}";
	return $reply->{content};
}

# Lets requests meet a fault.
sub fault
{
	my ($self, $kind, %form) = @_;

	$self->ask('fault', { kind => $kind, match => 'any', count => 1000000, %form });
	return;
}

# Removes all faults.
sub mend
{
	my ($self) = @_;

	$self->ask('fault/clear', {});
	return;
}

# What was applied, in order: hashes with user, amount and key.  Deltas of 0, by which a courier sees whether a
# gateway takes writes, are left out.
sub applied
{
	my ($self) = @_;
	my ($head, @lines) = split /\n/, $self->ask('applied.tsv');
	my @names = split /\t/, $head;

	return grep { $_->{amount} ne '0' } map { my %row; @row{@names} = split /\t/, $_, -1; \%row } @lines;
}

1;
