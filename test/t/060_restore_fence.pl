# A dump of midnight that is restored at noon, beside what the original has done
# meanwhile: nothing is granted or sent before resume(), and nobody is paid twice.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway deliver statuses begin_call end_call);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until);
use QuotaTest::Workers;
use Test::More;

my $mock = QuotaTest::Mock->start(dialect => 'higress');
my $quiet_mock = QuotaTest::Mock->start(dialect => 'higress');
my $original = delivery_node('original');
my $day = '2025-07-01';

# What the strategies grant tells them apart at the gateway.
my %amount = (once => 1000, other => 500, hourly => 1);

add_gateway($original, 'gateway', $mock, is_default => 'true', request_timeout => '2 s');
$original->safe_psql('postgres', <<"SQL");
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-06-30 23:30:00+00';
CREATE ROLE quota_worker LOGIN;
SELECT grant_access('quota_worker', 'worker');
INSERT INTO quota_gateway (name, dialect, base_url) VALUES ('unreachable', 'higress', 'http://127.0.0.1:9');
INSERT INTO quota_model VALUES ('other', 'unreachable');
INSERT INTO user_info (id) SELECT 'u' || to_char(n, 'FM00') FROM generate_series(1, 10) n;
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES
	('once', 'single', $amount{once}, 'm', 'true()'), ('other', 'single', $amount{other}, 'other', 'true()');
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES
	('hourly', 'periodic', $amount{hourly}, 'm', '0 * * * *', 'true()');
SQL

# Midnight: of 20 grants, three users' are in flight; the ten of the other gateway wait.
scan_at($original, 'postgres', "$day 00:00:00");
$mock->fault(kind => 'apply_hang', match => 'delta', count => 3);
my $delivery = begin_call($original, 'CALL quota_manager.deliver()');
wait_until($original, q{SELECT count(*) FILTER (WHERE status = 'completed') = 14 AND count(*) FILTER (WHERE status = 'processing') = 6
	FROM quota_manager.quota_execute WHERE gateway = 'gateway'});
my $folder = $original->backup_dir;
mkdir $folder;
command_ok([ 'pg_dump', '--format=custom', '--file', "$folder/midnight", $original->connstr('postgres') ], 'a dump while grants are in flight');
$mock->clear_faults;
end_call($delivery);

my $by_original;
subtest 'the original goes on until noon: it pays everything, a new user included' => sub {
	$original->safe_psql('postgres', qq{
		UPDATE quota_manager.quota_gateway SET base_url = '@{[ $mock->url ]}' WHERE name = 'unreachable';
		INSERT INTO quota_manager.user_info (id) VALUES ('u11')});
	foreach my $hour (1 .. 12)
	{
		scan_at($original, 'postgres', sprintf('%s %02d:00:00', $day, $hour));
		deliver($original);
	}
	is_deeply(paid($mock), { once => [ (1) x 11 ], other => [ (1) x 11 ], hourly => [ (13) x 10, 12 ] }, 'the original has paid everybody');
	is(statuses($original, 'unreachable'), 'completed 11', 'what waited at midnight, too');
	$by_original = $mock->applied;
};

my ($restored, %worker);
subtest 'noon, on another server.  Its workers find the database by themselves' => sub {
	$restored = QuotaTest::Workers::cluster('restored',
		preload => 1,
		settings => "quota_manager.schedule_clock = '$day 12:30:00+00'\ntimezone = 'UTC'");
	foreach my $database ('noon', 'quiet')
	{
		$restored->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0");
		command_ok([ 'pg_restore', '--exit-on-error', '--jobs=4', '--dbname', $restored->connstr($database), "$folder/midnight" ], "restored as $database");
	}
	$restored->safe_psql('postgres', 'SELECT pg_reload_conf()');
	foreach my $kind ('scheduler', 'courier')
	{
		QuotaTest::Workers::await($restored, 'noon',
			"SELECT activity = 'waiting for resume(): this database is a copy' AND state = 'idle' FROM quota_manager.worker_status WHERE kind = '$kind'");
		$worker{$kind} = QuotaTest::Workers::worker($restored, 'noon', $kind);
	}
	pass('the workers show what they wait for');
};

subtest 'the users of noon, and a gateway that can be reached: nothing is sent all the same' => sub {
	$restored->safe_psql('noon', qq{
		UPDATE quota_manager.quota_gateway SET base_url = '@{[ $mock->url ]}' WHERE name = 'unreachable';
		INSERT INTO quota_manager.user_info (id) VALUES ('u11'), ('u12')});
	foreach my $call ('SELECT * FROM quota_manager.scan()', 'CALL quota_manager.tick()', 'CALL quota_manager.deliver()',
		q{SELECT quota_internal.run_strategy(id, NULL) FROM quota_manager.quota_strategy WHERE name = 'once'})
	{
		my ($code, $out, $error) = $restored->psql('noon', $call);

		like($error, qr/ERROR:  this database is a copy: .*DETAIL:  It granted and delivered as: system \d+, database \d+, timeline 1\. Now it is: .*HINT: .*unchanged_since_dump.*may_have_run/s,
			"refused: $call");
	}
	await_looks($restored, $worker{$_}, 3) foreach 'scheduler', 'courier';
	is(QuotaTest::Workers::log_count($restored, qr/database "noon" is a copy/), 1, 'the log tells it once');
	is(scalar($mock->applied), $by_original, 'nothing was sent');
	is($restored->safe_psql('noon', 'SELECT count(*) FROM quota_manager.quota_execute'),
		30, 'and nothing was granted');
};

subtest 'it may have run, and so it has' => sub {
	is($restored->safe_psql('noon', 'SELECT pending, processing, in_doubt, skipped_firings, doubtful_strategies FROM quota_manager.resume()'),
		'10|6|0|12|2', 'resume() shows what it is about');
	is(scalar($mock->applied), $by_original, 'and does nothing');
	my (undef, $counts, $notice) = $restored->psql('noon', q{SELECT pending, processing, in_doubt, skipped_firings, doubtful_strategies FROM quota_manager.resume('may_have_run')});
	is($counts, '10|6|0|12|2', 'resume(may_have_run) returns the same');
	like($notice, qr/NOTICE:  resuming as one that may have run: 10 pending and 6 processing grants .*\(0 are already\), 12 firings .*, and 2 single strategies /, 'and tells it');
	QuotaTest::Workers::await($restored, 'noon', <<'SQL');
SELECT count(*) = 4 FROM quota_manager.quota_execute WHERE user_id IN ('u11', 'u12') AND status = 'in_doubt' AND next_attempt_time = 'infinity'
SQL
	is(QuotaTest::Workers::worker($restored, 'noon', $_), $worker{$_}, "the $_ is the same process") foreach 'scheduler', 'courier';
	is($restored->safe_psql('noon', 'SELECT status, count(*) FROM quota_manager.quota_execute GROUP BY 1 ORDER BY 1'),
		"completed|14\nin_doubt|20", 'who may have been paid, and who came since the dump, is in doubt');
	is($restored->safe_psql('noon', q{SELECT r.state, r.scheduled_time, r.last_scheduled_time, r.occurrences FROM quota_manager.quota_run r
			JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name = 'hourly' ORDER BY r.scheduled_time}),
		"done|$day 00:00:00+00||1\nskipped|$day 01:00:00+00|$day 12:00:00+00|12", 'the firings of the morning are recorded as not run');
};

subtest 'what falls due from now on is paid as ever' => sub {
	QuotaTest::Workers::set($restored, 'quota_manager.schedule_clock', "$day 13:00:00+00");
	QuotaTest::Workers::await_grants($restored, 'noon', 'hourly', 7 + 12);
	is_deeply(paid($mock), { once => [ (1) x 11 ], other => [ (1) x 11 ], hourly => [ (14) x 10, 13, 1 ] },
		'the next firing is paid, and nobody was paid twice');
	my $ids = q{SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM quota_manager.quota_execute e WHERE e.status = 'completed' AND e.create_time > };
	my %of_original = map { $_ => 1 } split /,/, $original->safe_psql('postgres', "$ids '-infinity'");
	ok(scalar(grep { $of_original{$_} } split /,/,
			$restored->safe_psql('noon', "$ids (SELECT i.doubtful_until FROM quota_manager.quota_installation i)")) > 0,
		'numbers of grants are used a second time');
	my %keys;
	$keys{ $_->{idempotency_key} }++ foreach $mock->applied;
	is(scalar(grep { $_ > 1 } values %keys), 0, 'but no key');
};

my $applied;
subtest 'a grant from before keeps its key: a gateway that honours it does not apply it again.  Who was not paid is' => sub {
	$applied = $mock->applied;
	$mock->_post('/mock/honour-idempotency', on => 1);
	$restored->safe_psql('noon', q{SELECT quota_manager.resolve(e.id, false) FROM quota_manager.quota_execute e
		JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name = 'other' AND e.user_id IN ('u01', 'u12')});
	QuotaTest::Workers::await_grants($restored, 'noon', 'other', 2);
	is(scalar($mock->applied), $applied + 1, 'a grant of the original is not applied again, a new one is');
	is(paid($mock)->{other}->[11], 1, 'to the user who was not paid');
};

subtest 'nothing has happened since the dump: all that waited is sent, once' => sub {
	is($restored->safe_psql('quiet', 'SELECT string_agg(DISTINCT status, $$,$$ ORDER BY status) FROM quota_manager.quota_execute'),
		'completed,pending,processing', 'the other copy still stands still');
	$restored->safe_psql('quiet', qq{
		UPDATE quota_manager.quota_gateway SET base_url = '@{[ $quiet_mock->url ]}';
		SELECT quota_manager.resume('unchanged_since_dump')});
	QuotaTest::Workers::await_grants($restored, 'quiet', 'other', 10);
	QuotaTest::Workers::await_grants($restored, 'quiet', 'hourly', 7 + 10);
	is_deeply(paid($quiet_mock), { other => [ (1) x 10 ], hourly => [ (1) x 10 ] }, 'what waited is sent once, and so is the firing that is due');
	is($restored->safe_psql('quiet', q{SELECT status, count(*), min(last_error) FROM quota_manager.quota_execute WHERE status <> 'completed' GROUP BY 1}),
		'in_doubt|6|the sender ended before the answer was recorded', 'what was in flight is in doubt as after any crash');
};
$restored->stop;

subtest 'a copy beside the original' => sub {
	$original->safe_psql('postgres', q{INSERT INTO quota_manager.user_info (id) VALUES ('u13')});
	scan_at($original, 'postgres', "$day 12:30:00");
	$original->safe_psql('template1', 'CREATE DATABASE twin TEMPLATE postgres');
	$applied = $mock->applied;
	foreach my $call ('SELECT * FROM quota_manager.scan()', 'CALL quota_manager.deliver()')
	{
		my ($code, $out, $error) = $original->psql('twin', $call);

		like($error, qr/ERROR:  this database is a copy/, "a copied database: refused: $call");
	}
	is(scalar($mock->applied), $applied, 'a copied database sends nothing');
	deliver($original);
	is(scalar($mock->applied), $applied + 2, 'its original does');
	my (undef, undef, $nothing) = $original->psql('postgres', q{SELECT quota_manager.resume('may_have_run')});
	like($nothing, qr/ERROR:  there is nothing to resume/, 'and has nothing to resume');
	$original->safe_psql('postgres', 'ALTER DATABASE twin RENAME TO pair');
	$original->safe_psql('pair', q{SELECT quota_manager.resume('may_have_run')});
	is($original->safe_psql('pair', 'CALL quota_manager.deliver()'), '0|0|0|0', 'resumed it has nothing to send, which the original has sent');
};

my ($first, $sender);
subtest 'who sends waits for a first scan that is not committed yet: its keys begin with what that one writes' => sub {
	$original->safe_psql('postgres', 'CREATE DATABASE fresh TEMPLATE template0');
	$original->safe_psql('fresh', qq{
		CREATE EXTENSION quota_manager;
		INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('gateway', 'higress', '@{[ $quiet_mock->url ]}', true);
		INSERT INTO quota_manager.user_info (id) VALUES ('fresh');
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('first', 'single', 1, 'm', 'true()'), ('second', 'single', 1, 'm', 'true()')});
	$first = $original->background_psql('fresh');
	$sender = $original->background_psql('fresh');
	$first->query_safe(q{BEGIN; SELECT quota_manager.scan('first')});
	$original->safe_psql('fresh', q{SELECT quota_manager.scan('second')});
	$sender->query_until(qr/started/, "\\echo started\nCALL quota_manager.deliver();\n");
	$original->wait_for_log(qr/deliveries wait for another session: a scan is noting that this is the database that grants/);
	is(scalar(grep { $_->{user} eq 'fresh' } $quiet_mock->applied), 0, 'nothing is sent while a scan notes the identity');
	$first->query_safe('COMMIT');
	$sender->quit;
	$first->quit;
	my $id = $original->safe_psql('fresh', 'SELECT id FROM quota_manager.quota_installation');
	is_deeply([ map { $_->{idempotency_key} =~ /^\Q$id\E-/ ? $_->{user} : 'unknown key' } grep { $_->{user} eq 'fresh' } $quiet_mock->applied ],
		[ 'fresh', 'fresh' ], 'afterwards all is');
};

$original->stop;
done_testing();

sub scan_at
{
	my ($node, $database, $clock) = @_;

	$node->safe_psql($database, "SET quota_manager.schedule_clock = '$clock+00'; SELECT count(*) FROM quota_manager.scan()");
	return;
}

# How often each user was paid, in the order of users, by strategy.
sub paid
{
	my ($gateway) = @_;
	my %name = reverse %amount;
	my (%count, %paid);

	$count{ $name{ $_->{amount} } // 'unknown' }{ $_->{user} }++ foreach $gateway->applied;
	foreach my $strategy (keys %count)
	{
		$paid{$strategy} = [ map { $count{$strategy}{$_} } sort keys %{ $count{$strategy} } ];
	}
	return \%paid;
}

# Waits until a worker has checked so many times whether it may go on.
sub await_looks
{
	my ($node, $pid, $times) = @_;

	foreach (1 .. $times)
	{
		my $seen = $node->safe_psql('postgres', "SELECT state_change FROM pg_stat_activity WHERE pid = $pid");

		QuotaTest::Workers::await($node, 'postgres', "SELECT state_change > '$seen' FROM pg_stat_activity WHERE pid = $pid");
	}
	return;
}
