# A reversal that is half done: without workers, on a standby, by roles that may only read, and in a dump that is restored
# beside its original or in its place.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver deliver_all);
use QuotaTest::Mock;
use Test::More;

my $node = delivery_node('reversal_lives', "quota_manager.retry_base = 10ms\nquota_manager.retry_max = 10ms\n");
my $mock = QuotaTest::Mock->start(dialect => 'zgsm');
my $resending = QuotaTest::Mock->start(dialect => 'higress');

$resending->honour_idempotency(1);
add_gateway($node, 'holds', $mock, request_timeout => '1 s');
add_gateway($node, 'resends', $resending, request_timeout => '1 s', doubt_policy => 'resend');

# What a gateway has applied in total, by user.
sub totals
{
	my ($gateway) = @_;
	my %total;

	$total{ $_->{user} } += $_->{amount} foreach $gateway->applied;
	return { map { $_ => $total{$_} } grep { $total{$_} != 0 } keys %total };
}

sub outcomes
{
	my ($database, $call) = @_;

	return $node->safe_psql($database, "SELECT outcome, grants FROM quota_manager.$call");
}

subtest 'without workers, tick() goes on with what deliver() has settled' => sub {
	$resending->fault(kind => 'apply_close', match => 'grant', count => 2);
	grant($node, 'resends', 5, map { "t$_" } 1 .. 5);
	# However slow the others are: this call does not send them again.
	deliver($node, q{SET quota_manager.retry_base = '10min'; SET quota_manager.retry_max = '10min';});
	my $run = $node->safe_psql('postgres', 'SELECT max(id) FROM quota_manager.quota_run');
	is(outcomes('postgres', "reverse_run($run, 'a test')") =~ /^waits: in doubt\|\d/m ? 'waits' : 'does not', 'waits', 'what is in doubt waits');
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_execute SET next_attempt_time = '-infinity' WHERE gateway = 'resends' AND status = 'in_doubt'});
	ok(deliver_all($node, 'resends'), 'it is settled');
	my $waiting = $node->safe_psql('postgres', 'SELECT sum(waits) FROM quota_manager.reversal_status');
	cmp_ok($waiting, '>', 0, 'and still waits');
	$node->safe_psql('postgres', 'CALL quota_manager.tick()');
	is($node->safe_psql('postgres', 'SELECT sum(waits), sum(taken_back) FROM quota_manager.reversal_status'), '0|5', 'tick() goes on');
	ok(deliver_all($node, 'resends'), 'what takes back is delivered');
	is_deeply(totals($resending), {}, 'and the gateway has what it had before');
	is($node->safe_psql('postgres', 'CALL quota_manager.tick(); SELECT count(*) FROM quota_manager.quota_run WHERE strategy_id IS NULL'), "0|0\n2",
		'another tick() finds nothing to do: the first part and the second each have a run');
};

subtest 'audit_balances() counts what was taken back' => sub {
	grant($node, 'holds', 5, 'a1', 'a2');
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_gateway SET sole_writer = true WHERE name = 'holds'});
	deliver($node);
	my $run = $node->safe_psql('postgres', 'SELECT max(id) FROM quota_manager.quota_run');
	is(outcomes('postgres', "reverse_run($run, 'a test')"), 'taken back|2', 'taken back');
	is($node->safe_psql('postgres', q{SELECT user_id, finding FROM quota_manager.audit_balances('holds')}), '', 'nothing is wrong while it is pending');
	deliver($node);
	is($node->safe_psql('postgres', q{SELECT user_id, finding FROM quota_manager.audit_balances('holds')}), '', 'nor afterwards');
	is_deeply(totals($mock), {}, 'the gateway has what it had before');
};

subtest 'what takes back is held by a pause of its gateway, not of its strategy' => sub {
	# Not a number of those that only the grants of this test know.
	$node->safe_psql('postgres', q{SELECT setval(pg_get_serial_sequence('quota_manager.quota_strategy', 'id'), 1000);
		INSERT INTO quota_manager.user_info (id) VALUES ('p1'), ('p2');
		INSERT INTO quota_manager.quota_model VALUES ('held', 'holds');
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, state) VALUES ('held', 'single', 4, 'held', 'true()', 'active')});
	$node->safe_psql('postgres', q{SELECT FROM quota_manager.scan('held')});
	deliver($node);
	is_deeply(totals($mock), { p1 => 4, p2 => 4 }, 'granted');
	$node->safe_psql('postgres', q{SELECT quota_manager.pause_gateway('holds', 'a test')});
	is(outcomes('postgres', q{reverse_strategy('held', 'a test')}), 'taken back|2', 'reversed while the gateway is paused');
	deliver($node);
	is_deeply(totals($mock), { p1 => 4, p2 => 4 }, 'nothing is sent');
	$node->safe_psql('postgres', q{SELECT quota_manager.pause_strategy('held', 'a test'), quota_manager.unpause_gateway('holds', 'a test')});
	deliver($node);
	is_deeply(totals($mock), {}, 'but then, although its strategy is paused: who takes back has paused it');
	$node->safe_psql('postgres', q{SELECT quota_manager.unpause_strategy('held', 'a test')});
	is($node->safe_psql('postgres', q{SELECT granted, already_granted FROM quota_manager.scan('held')}), '0|2', 'and it is still granted');
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_strategy SET state = 'archived'});
};

# What a reversal in the middle of its work looks like: of six grants one is taken back and delivered, two wait to be
# delivered, one is cancelled, and two wait since they are in doubt (one was applied).
subtest 'a dump in the middle' => sub {
	grant($node, 'holds', 7, map { "d$_" } 1 .. 5);
	$mock->fault(kind => 'apply_close', match => 'grant', user => 'd4', count => 1);
	$mock->fault(kind => 'close', match => 'grant', user => 'd5', count => 1);
	deliver_all($node, 'holds');
	grant($node, 'holds', 7, 'd6');
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_run SET undelivered = true WHERE id = (SELECT max(id) FROM quota_manager.quota_run)});
	is($node->safe_psql('postgres', q{SELECT string_agg(user_id || ' ' || status, ', ' ORDER BY user_id) FROM quota_manager.quota_execute WHERE user_id LIKE 'd%'}),
		'd1 completed, d2 completed, d3 completed, d4 in_doubt, d5 in_doubt, d6 pending', 'grants in all states');
	is(outcomes('postgres', q{reverse_grants(ARRAY(SELECT id FROM quota_manager.quota_execute WHERE user_id LIKE 'd%'), 'a test')}),
		"cancelled|1\ntaken back|3\nwaits: in doubt|2", 'reversed');
	# One of them is sent.
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_execute SET next_attempt_time = now() + interval '1 hour' WHERE revision = 1 AND user_id IN ('d2', 'd3')});
	deliver($node);
	is_deeply(totals($mock), { d2 => 7, d3 => 7, d4 => 7 }, 'one is taken back');
	my $dump = $node->backup_dir . '/middle';
	mkdir $node->backup_dir;
	command_ok([ 'pg_dump', '--format=custom', '--file', $dump, $node->connstr('postgres') ], 'it is dumped');
	foreach my $database ('beside', 'instead')
	{
		$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0");
		command_ok([ 'pg_restore', '--exit-on-error', '--jobs=2', '--dbname', $node->connstr($database), $dump ], "restored: $database");
		is($node->safe_psql($database, 'SELECT what, note, cancelled, taken_back, delivered, waits FROM quota_manager.reversal_status ORDER BY id DESC LIMIT 1'),
			$node->safe_psql('postgres', 'SELECT what, note, cancelled, taken_back, delivered, waits FROM quota_manager.reversal_status ORDER BY id DESC LIMIT 1'), 'with its reversal');
		like(($node->psql($database, 'CALL quota_manager.tick()'))[2], qr/this database is a copy/, 'a copy does not go on by itself');
	}

	# In its place: nothing was done meanwhile.
	$node->safe_psql('instead', q{SET client_min_messages = warning; SELECT FROM quota_manager.resume('unchanged_since_dump');
		UPDATE quota_manager.quota_execute SET next_attempt_time = '-infinity' WHERE status = 'pending';
		SELECT quota_manager.resolve(id, user_id = 'd4', 'by what the gateway has') FROM quota_manager.quota_execute WHERE user_id IN ('d4', 'd5') AND revision = 0});
	$node->safe_psql('instead', 'CALL quota_manager.deliver()');
	is_deeply(totals($mock), {}, 'the copy goes on where the original had stopped: everything is as it was before');
	is($node->safe_psql('instead', q{SELECT string_agg(user_id || ' ' || status, ', ' ORDER BY user_id, revision) FROM quota_manager.quota_execute WHERE user_id LIKE 'd%'}),
		'd1 completed, d1 completed, d2 completed, d2 completed, d3 completed, d3 completed, d4 completed, d4 completed, d5 cancelled, d6 cancelled', 'in its books, too');
	is($node->safe_psql('instead', 'SELECT * FROM quota_internal.check_counts()'), '', 'its counts are right');

	# Beside it: as if the one above were the original, which has gone on.
	$node->safe_psql('beside', q{SET client_min_messages = warning; SELECT FROM quota_manager.resume('may_have_run')});
	is($node->safe_psql('beside', q{SELECT string_agg(user_id || ' ' || status, ', ' ORDER BY user_id, revision) FROM quota_manager.quota_execute WHERE user_id LIKE 'd%'}),
		'd1 completed, d1 completed, d2 completed, d2 in_doubt, d3 completed, d3 in_doubt, d4 in_doubt, d5 in_doubt, d6 cancelled', 'what was open is in doubt');
	$node->safe_psql('beside', q{SELECT quota_manager.resolve(id, true, 'it was') FROM quota_manager.quota_execute WHERE user_id = 'd4'});
	is($node->safe_psql('beside', q{SELECT revision, status, amount, maybe_granted_before FROM quota_manager.quota_execute WHERE user_id = 'd4' ORDER BY revision}),
		"0|completed|7|f\n1|in_doubt|-7|t", 'what it goes on with is in doubt as well');
	$node->safe_psql('beside', 'CALL quota_manager.tick()');
	$node->safe_psql('beside', 'CALL quota_manager.deliver()');
	is_deeply(totals($mock), {}, 'nobody is taken from twice');
	is($node->safe_psql('beside', 'SELECT * FROM quota_internal.check_counts()'), '', 'its counts are right');
	is(outcomes('beside', q{preview_reversal(ids => ARRAY(SELECT id FROM quota_manager.quota_execute WHERE user_id LIKE 'd%' AND revision = 0))}),
		"is being taken back|3\nnothing to do: cancelled|1\ntaken back before|1\nwaits already|1", 'and it knows how far it is');
};

subtest 'a standby, and a role that may only read' => sub {
	my $backup = 'standby';
	$node->backup($backup);
	my $standby = PostgreSQL::Test::Cluster->new('reversal_standby');
	$standby->init_from_backup($node, $backup, has_streaming => 1);
	$standby->start;
	my $run = $node->safe_psql('postgres', 'SELECT min(id) FROM quota_manager.quota_run WHERE first_grant_id IS NOT NULL');
	$node->wait_for_catchup($standby);
	my $said = $node->safe_psql('postgres', "SELECT * FROM quota_manager.preview_reversal(run_id => $run)");
	is($standby->safe_psql('postgres', "SELECT * FROM quota_manager.preview_reversal(run_id => $run)"), $said, 'a standby previews');
	foreach my $call ("reverse_run($run, 'n')", "reverse_grants('{1}', 'n')", "reverse_strategy('s', 'n')", "undo_reversal(1, 'n')")
	{
		my ($code, $out, $err) = $standby->psql('postgres', "SELECT * FROM quota_manager.$call", extra_params => [ '-v', 'VERBOSITY=verbose' ]);

		like($err, qr/ERROR:  25006: .*\nDETAIL:  This server is a standby/, "a standby refuses $call");
	}
	$standby->stop;
	$node->safe_psql('postgres', q{CREATE ROLE reader LOGIN; SELECT quota_manager.grant_access('reader', 'viewer')});
	is($node->safe_psql('postgres', "SELECT * FROM quota_manager.preview_reversal(run_id => $run)", extra_params => [ '-U', 'reader' ]), $said, 'a viewer previews');
	like(($node->psql('postgres', "SELECT * FROM quota_manager.reverse_run($run, 'n')", extra_params => [ '-U', 'reader' ]))[2], qr/permission denied/, 'and reverses nothing');
};

subtest 'a reversal of 10,000 takes about a second' => sub {
	$node->safe_psql('postgres', q{SELECT quota_test.make_grants('holds', 1, array_agg('m' || n)) FROM generate_series(1, 10000) n;
		UPDATE quota_manager.quota_execute SET status = 'completed' WHERE run_id = (SELECT max(id) FROM quota_manager.quota_run);
		SELECT quota_internal.recount_grants()});
	my $took = $node->safe_psql('postgres', q{SELECT clock_timestamp() AS begin \gset
SELECT count(*) FROM quota_manager.reverse_run((SELECT max(id) FROM quota_manager.quota_run), 'a test');
SELECT extract(epoch FROM clock_timestamp() - :'begin')});
	my ($rows, $seconds) = split /\n/, $took;
	note "$seconds s";
	cmp_ok($seconds, '<', 10, 'and never ten');
};

$node->stop;
done_testing();
