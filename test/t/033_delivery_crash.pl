
# Senders that die, are cancelled, or meet each other: nothing is sent twice,
# and every grant is in a state that says what is known of it.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery
  qw(delivery_node add_gateway grant deliver statuses begin_call end_call kill_call);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until wait_for);
use Test::More;
use Time::HiRes qw(time);

my $node = delivery_node('crash', "restart_after_crash = on\n");
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'key');
add_gateway($node, 'g', $mock);

# Grants by status, and how often the gateway applied them.
sub audit
{
	my ($name) = @_;
	my %applied;

	$applied{$_}++ foreach map { $_->{idempotency_key} =~ /-(\d+)$/ } $mock->applied;
	my %bad;
	foreach (split /\n/, $node->safe_psql('postgres', 'SELECT id, status FROM quota_manager.quota_execute'))
	{
		my ($id, $status) = split /\|/;
		my $count = delete $applied{$id} // 0;

		$bad{"$status applied $count times"}++
		  unless ($status eq 'completed' && $count == 1)
		  || ($status eq 'in_doubt' && $count <= 1)
		  || ($status eq 'pending' && $count == 0);
	}
	is_deeply(\%bad, {}, "$name: completed is applied once, in doubt once or not, pending never");
	is(scalar(keys %applied), 0, "$name: nothing unknown was applied");
	return;
}

sub start_over
{
	$mock->reset;
	$mock->clear_faults;
	$node->safe_psql('postgres', q{
		TRUNCATE quota_manager.quota_execute;
		DELETE FROM quota_manager.quota_run;
		UPDATE quota_manager.quota_gateway SET state = 'open'});
	return;
}

# Waits until some requests are stuck in the gateway and the rest was settled.
sub wait_for_stuck
{
	my ($stuck) = @_;

	wait_for("$stuck requests at the gateway", sub { ($_ = $mock->stats->{faults}) >= $stuck });
	return;
}

subtest 'kill -9 in the middle of a batch, some answered, some applied and not, some not sent' => sub {
	foreach my $kind ('hang', 'apply_hang')
	{
		start_over();
		$mock->fault(kind => 'slow', match => 'delta', count => 40, delay_ms => 2);
		$mock->fault(kind => $kind, match => 'delta', count => 5);
		$mock->fault(kind => 'slow', match => 'delta', count => 1000, delay_ms => 5);
		grant($node, 'g', 1, map { "user$_" } 1 .. 1000);
		my $call = begin_call($node, "SET application_name = 'victim'", 'CALL quota_manager.deliver()');
		wait_for_stuck(100);
		kill_call($node, $call, 'victim');

		my $before = scalar $mock->applied;
		$mock->clear_faults;
		my ($completed, $failed, $in_doubt, $deferred) = split /\|/, deliver($node);
		cmp_ok($in_doubt, '>=', 5, "killed, $kind: what was in flight is in doubt ($in_doubt)");
		cmp_ok($in_doubt, '<=', 512, "killed, $kind: no more than was claimed");
		unlike(statuses($node, 'g'), qr/processing|pending|failed/, "killed, $kind: everything has a state");
		audit("killed, $kind");
		is( $node->safe_psql('postgres', q{
				SELECT DISTINCT last_error FROM quota_manager.quota_execute WHERE status = 'in_doubt'}),
			'the sender ended before the answer was recorded', "killed, $kind: it says why");

		# What the operator can tell from the gateway's list.
		my $applied = join ',', map { $_->{idempotency_key} =~ /-(\d+)$/ } $mock->applied;
		$node->safe_psql('postgres', qq{
			SELECT quota_manager.resolve(id, id = ANY ('{$applied}'), 'compared with the gateway')
			FROM quota_manager.quota_execute WHERE status = 'in_doubt'});
		deliver($node);
		is(statuses($node, 'g'), 'completed 1000', "killed, $kind: resolved, all arrives");
		is(scalar($mock->applied), 1000, "killed, $kind: each once");
	}
};

my $call;
subtest 'the whole server dies' => sub {
	start_over();
	$mock->fault(kind => 'apply_hang', match => 'delta', count => 5);
	grant($node, 'g', 1, map { "user$_" } 1 .. 300);
	$call = begin_call($node, 'CALL quota_manager.deliver()');
	wait_for_stuck(5);
	$node->stop('immediate');
	end_call($call);
	$mock->clear_faults;
	$node->start;
	deliver($node);
	unlike(statuses($node, 'g'), qr/processing|pending|failed/, 'server crash: everything has a state');
	audit('server crash');
};

subtest 'a role without synchronous commit: what was claimed is on disk before anything is sent' => sub {
	start_over();
	$node->safe_psql('postgres', q{
		ALTER SYSTEM SET wal_writer_delay = '10s';
		ALTER SYSTEM SET wal_writer_flush_after = '1GB';
		SELECT pg_reload_conf()});
	foreach my $level ('off', 'local', 'remote_write')
	{
		$mock->clear_faults;
		$mock->fault(kind => 'apply_hang', match => 'delta', count => 5);
		grant($node, 'g', 1, map { "lazy$_" } 1 .. 5);
		my $applied = scalar $mock->applied;
		my $lazy = begin_call($node, "SET synchronous_commit = '$level'", 'CALL quota_manager.deliver()');
		wait_for_stuck($mock->stats->{faults} - ($mock->applied - $applied) + 5);
		$node->stop('immediate');
		end_call($lazy);
		$node->start;
		$mock->clear_faults;
		deliver($node, "SET synchronous_commit = '$level';");
		is(scalar($mock->applied), $applied + 5, "synchronous_commit = $level: nothing is sent twice after a crash");
	}
	audit('synchronous_commit');
	is( $node->safe_psql('postgres', "SET synchronous_commit = off; CALL quota_manager.deliver(); SHOW synchronous_commit"),
		"0|0|0|0\noff", 'the session keeps its own setting');
};

my @calls;
subtest 'two at once: one sends, the other finds nothing to do' => sub {
	start_over();
	$mock->fault(kind => 'slow', match => 'delta', count => 10000, delay_ms => 2);
	grant($node, 'g', 1, map { "user$_" } 1 .. 1000);
	@calls = map { begin_call($node, 'CALL quota_manager.deliver()') } 1 .. 4;
	my @counts = sort map { (end_call($_))[0] } @calls;
	is(join('', @counts), "0|0|0|0\n0|0|0|0\n0|0|0|0\n1000|0|0|0\n", 'four calls at once: one delivers');
	is(statuses($node, 'g'), 'completed 1000', 'four calls at once: all is delivered');
	audit('four calls at once');
};

# Cancelled, by the user or by a time-out of the client: what was sent and not answered is in doubt at
# once, what was not sent is pending, and the lock is free.
foreach my $way ('pg_cancel_backend', 'pg_terminate_backend')
{
	start_over();
	$mock->fault(kind => 'slow', match => 'delta', count => 30, delay_ms => 1);
	$mock->fault(kind => 'apply_hang', match => 'delta', count => 5);
	$mock->fault(kind => 'slow', match => 'delta', count => 1000, delay_ms => 20);
	grant($node, 'g', 1, map { "user$_" } 1 .. 300);
	my $victim = begin_call($node, "SET application_name = 'victim'", 'CALL quota_manager.deliver()');
	wait_for_stuck(60);
	my $start = time;
	# not in the middle of a transaction, where a session that is terminated cannot settle any more
	wait_until($node, qq{SELECT count(*) FILTER (WHERE $way(pid)) = 1 FROM pg_stat_activity
		WHERE application_name = 'victim' AND wait_event_type = 'Extension'});
	my ($out, $err) = end_call($victim);
	my $elapsed = time - $start;
	like($err,
		$way =~ /cancel/ ? qr/canceling statement due to user request/ : qr/terminating connection/,
		"$way: it ends as it should");
	cmp_ok($elapsed, '<', 5, "$way: soon");
	is( $node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}),
		0, "$way: the lock is free");
	like(statuses($node, 'g'), qr/^completed \d+, in_doubt 5, pending \d+$/,
		"$way: only what was in flight is in doubt");
	audit($way);
	$mock->clear_faults;
	deliver($node);
	like(statuses($node, 'g'), qr/^completed 295, in_doubt 5$/, "$way: the rest is delivered afterwards");
	audit("$way, afterwards");
}

my ($status, $out, $err);
subtest 'an error of the database in the middle of it: likewise' => sub {
	start_over();
	$mock->fault(kind => 'slow', match => 'delta', count => 1000, delay_ms => 2);
	$node->safe_psql('postgres', q{
		CREATE FUNCTION quota_test.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF OLD.user_id = 'user200' AND OLD.status = 'pending' THEN
				RAISE EXCEPTION 'no more';
			END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER refuse BEFORE UPDATE ON quota_manager.quota_execute
			FOR EACH ROW EXECUTE FUNCTION quota_test.refuse()});
	grant($node, 'g', 1, map { "user$_" } 1 .. 300);
	($status, $out, $err) = $node->psql('postgres', 'SET quota_manager.claim_batch = 32; CALL quota_manager.deliver()');
	like($err, qr/ERROR:  no more/, 'an error of the database is raised');
	like(statuses($node, 'g'), qr/^completed \d+, pending \d+$/, 'what was in flight was settled before');
	audit('error of the database');
	$node->safe_psql('postgres', 'DROP TRIGGER refuse ON quota_manager.quota_execute');
	deliver($node);
	is(statuses($node, 'g'), 'completed 300', 'and the rest is delivered when it is mended');
	audit('error of the database, mended');
};

# Somebody changes a grant while it is in flight: it is told.
start_over();
$mock->fault(kind => 'slow', match => 'delta', delay_ms => 400);
grant($node, 'g', 1, 'touched');
my $touched = begin_call($node, 'CALL quota_manager.deliver()');
wait_for_stuck(1);
$node->safe_psql('postgres', q{UPDATE quota_manager.quota_execute SET status = 'cancelled'});
($out, $err) = end_call($touched);
like($err, qr/WARNING:  grant \d+ was changed by somebody else during its delivery/,
	'a grant that was changed in flight is told');

$node->stop;
done_testing();
