# Bulk calls by hand: each row is sent at most once under its key, whatever fails, dies or is called twice; what was applied is
# written, and what nobody knows is said to be in doubt.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::CrashPoints qw(crash_cluster arm await_hit release);
use QuotaTest::Delivery qw(add_gateway begin_call end_call begin_session ask_session end_session log_part);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until);
use QuotaTest::Workers;
use Test::More;

my $slots = 8;
my $node = crash_cluster('bulk', "quota_manager.linger = 200ms\nquota_manager.workers = off\nwal_level = replica\nmax_wal_senders = 5\n");
my $mock = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key');

$node->safe_psql('postgres', q{
	CREATE EXTENSION quota_manager;
	CREATE ROLE operator LOGIN;
	CREATE ROLE viewer LOGIN;
	SELECT quota_manager.grant_access('operator', 'operator'), quota_manager.grant_access('viewer', 'viewer');
	CREATE SCHEMA site;
	CREATE TABLE site.victim (id text, lost numeric);
	GRANT USAGE ON SCHEMA site TO operator;
	GRANT SELECT ON site.victim TO operator});
add_gateway($node, 'g', $mock, is_default => 'true', max_connections => $slots, request_timeout => '3 s');

sub sql { return $node->safe_psql('postgres', "SET search_path = quota_manager; $_[0]") }

# Calls as a role; what it returns and what it says.
sub bulk
{
	my ($call, %how) = @_;
	my ($out, $err);
	my $file = PostgreSQL::Test::Utils::tempdir . '/bulk.sql';

	append_to_file($file, ($how{before} // '') . "SET search_path = site;\nCALL quota_manager.bulk_delta($call);\n");
	(undef, $out, $err) = $node->psql('postgres', "\\i $file", connstr => $node->connstr('postgres') . ' user=' . ($how{role} // 'operator'),
		on_error_stop => 0, extra_params => [ '-q', '-v', 'VERBOSITY=verbose' ]);
	return ($out, $err);
}

# A query of n users, each with its number.
sub users
{
	my ($prefix, $n) = @_;

	return qq{\$\$SELECT '$prefix' || n, n, 'refund' FROM generate_series(1, $n) n\$\$};
}

# The rows of a key by state.
sub states
{
	my ($key) = @_;

	return sql(qq{SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM bulk_call WHERE key = '$key' GROUP BY state) x});
}

# Compares what the gateway applied for users of a prefix with the rows of a key: applied ones once, others not at all,
# those in doubt at most once.
sub once
{
	my ($key, $prefix, $name) = @_;
	my (%applied, @wrong);

	push @{ $applied{ $_->{user} } }, $_->{amount} + 0 foreach grep { $_->{user} =~ /^$prefix\d/ } $mock->applied;
	foreach (split /\n/, sql(qq{SELECT user_id, value, state FROM bulk_call WHERE key = '$key'}))
	{
		my ($user, $value, $state) = split /\|/;
		my @got = @{ delete $applied{$user} // [] };

		push @wrong, "$user $state: @got"
		  if @got > 1 || @got == 1 && ($got[0] != $value || $state !~ /^(?:applied|in_doubt)$/) || @got == 0 && $state eq 'applied';
	}
	is_deeply([ @wrong, sort keys %applied ], [], "$name: what is applied was applied once, and nothing else was");
	return;
}

subtest 'a query, whose rows are kept' => sub {
	sql(q{INSERT INTO site.victim SELECT 'v' || n, n / 2.0 FROM generate_series(1, 20) n; INSERT INTO user_balance (user_id, gateway, balance, read_time) VALUES ('v1', 'g', 5, now())});
	my ($out, $err) = bulk(q{$$SELECT id, lost, 'outage of July' FROM victim WHERE lost < 9$$, 'outage'});

	is("$out$err", '17|0|0|0|0', 'the query runs with the rights and the search_path of the session');
	is(sql(q{SELECT key, gateway, users, total, applied, applied_total, waiting, called_by FROM bulk_calls}), 'outage|g|17|76.5|17|76.5|0|operator', 'and is told of in one row');
	is(sql(q{SELECT count(*) FROM gateway_call WHERE action = 'delta' AND outcome = 'applied' AND reason = 'outage of July' AND role = 'operator'}), 17, 'each is a gateway_call, too');
	is(sql(q{SELECT balance IS NULL FROM user_balance WHERE user_id = 'v1'}), 't', 'balances that were known do not count');
	once('outage', 'v', 'a query');
	is(() = log_part($node) =~ /delta of user "v\d+" by role "operator" \(session of "operator"\): (?:sent|applied)/g, 34, 'the log has each twice');
	($out, $err) = bulk(q{$$SELECT id, lost, 'outage of July' FROM victim$$, 'outage'});
	is("$out$err", '20|0|0|0|0', 'the same key with more users sends the new ones');
	($out, $err) = bulk(q{NULL, 'outage'});
	is("$out$err", '20|0|0|0|0', 'and without a query nothing');
	once('outage', 'v', 'a key that is called again');
};

subtest 'what is refused sends nothing' => sub {
	my @refused = (
		[ q{$$SELECT 'v1', 7, 'x'$$, 'outage'}, '22023', 'bulk call "outage" has 0.5 for user "v1", not 7' ],
		[ q{$$SELECT 'v1', 0.5, 'x'$$, 'outage', 'other'}, '22023', 'bulk call "outage" is for gateway "g", not "other"' ],
		[ q{$$SELECT 'r1', 1, 'x' UNION ALL SELECT 'r1', 1, 'x'$$, 'r'}, '21000', 'user "r1" comes more than once in the query' ],
		[ q{$$SELECT 'r1', 1, NULL$$, 'r'}, '22004', 'row 1 of the query has no reason' ],
		[ q{$$SELECT 'r' || n, 1.0 / n, 'x' FROM generate_series(1, 3) n$$, 'r'}, '22003', 'amount 0.33333333333333333333 cannot be sent to gateway "g"' ],
		[ q{$$SELECT 'r1', 'x', 'x'$$, 'r'}, '22P02', 'invalid input syntax for type numeric: "x"' ],
		[ q{$$SELECT 'r1', 1$$, 'r'}, '22023', 'the query of bulk_delta() has 2 columns' ],
		[ q{$$INSERT INTO victim VALUES ('x', 1)$$, 'r'}, '22023', 'the query of bulk_delta() is no query' ],
		[ q{$$SELECT usename, 1, passwd FROM pg_shadow$$, 'r'}, '42501', 'permission denied for view pg_shadow' ],
		[ q{NULL, 'r'}, '42704', 'there is no bulk call "r" to go on with' ],
		[ q{$$SELECT 'r1', 1, 'x'$$, repeat('k', 65)}, '22001', 'the key has 65 bytes' ],
		[ q{$$SELECT 'r1', 1, 'x'$$, ''}, '22023', 'the key must be given' ],
		[ q{$$SELECT 'r1', 1, 'x'$$, 'r', 'nosuch'}, '42704', 'gateway "nosuch" does not exist' ]);
	my $before = () = $mock->applied;

	foreach my $case (@refused)
	{
		my ($call, $code, $message) = @{$case};
		my ($out, $err) = bulk($call);

		like($err, qr/ERROR:  \Q$code: $message\E/, $message);
	}
	my ($out, $err) = bulk(q{$$SELECT 'r1', 1, 'x'$$, 'r'}, role => 'viewer');
	like($err, qr/ERROR:  42501: permission denied for procedure bulk_delta/, 'viewers may not call it');
	is(sql(q{SELECT key FROM bulk_calls}), 'outage', 'and nothing is written');
	is(scalar(my @after = $mock->applied), $before, 'nor sent');
	sql(q{UPDATE quota_gateway SET doubt_policy = 'reconcile', sole_writer = true, max_usage_rate = 1 WHERE name = 'g'});
	($out, $err) = bulk(users('r', 3) . q{, 'r'});
	like($err, qr/quotas at gateway "g" cannot be changed by hand/, 'not where changes are taken for grants');
	sql(q{UPDATE quota_gateway SET doubt_policy = 'hold' WHERE name = 'g'});
};

subtest 'failures in the middle' => sub {
	$mock->fault(kind => 'refuse', match => 'grant', user => 'f3', count => 0);
	$mock->fault(kind => 'apply_close', match => 'grant', user => 'f5');
	$mock->fault(kind => 'status', match => 'grant', user => 'f7', status => 429, retry_after => 1, body => 'later', content_type => 'text/plain');
	my ($out, $err) = bulk(users('f', 40) . q{, 'failures'});

	is("$out$err", '38|1|0|1|0', 'others are applied all the same, and what comes later is waited for');
	is(sql(q{SELECT user_id, state FROM bulk_call WHERE key = 'failures' AND state <> 'applied' ORDER BY id}), "f3|refused\nf5|in_doubt", 'each has its state');
	($out, $err) = bulk(users('f', 40) . q{, 'failures'});
	is("$out$err", '38|1|0|1|0', 'the same again changes nothing');
	once('failures', 'f', 'failures');
	$mock->clear_faults;
	$mock->fault(kind => 'status', match => 'grant', status => 403, body => 'who are you', content_type => 'text/plain', count => 0);
	($out, $err) = bulk(users('s', 40) . q{, 'stops'});
	is($out, "0|0|$slots|0|" . (40 - $slots), 'where nothing is settled it stops');
	like($err, qr/WARNING:  01000: bulk call "stops" has stopped: gateway "g" settled nothing of what was sent last\nDETAIL:.*\nHINT:  Call it again with the same key/, 'and says how to go on');
	$mock->clear_faults;
	($out, $err) = bulk(q{NULL, 'stops'});
	is("$out$err", '40|0|0|0|0', 'which it does');
	once('stops', 's', 'a call that stopped');
	$mock->fault(kind => 'hang', match => 'grant', count => 0);
	($out, $err) = bulk(users('h', 40) . q{, 'hangs'});
	$mock->clear_faults;
	is($out, "0|0|0|$slots|" . (40 - $slots), 'where nobody answers, no more than one batch is in doubt');
	($out, $err) = bulk(q{NULL, 'hangs'});
	is("$out$err", (40 - $slots) . "|0|0|$slots|0", 'which is never sent again');
	once('hangs', 'h', 'a gateway that hangs');
};

subtest 'a rate_limit is kept' => sub {
	sql(q{UPDATE quota_gateway SET rate_limit = 20 WHERE name = 'g'});
	my ($out, $err) = bulk(users('p', 41) . q{, 'paced'});

	is("$out$err", '41|0|0|0|0', 'all are sent');
	cmp_ok(sql(q{SELECT extract(epoch FROM max(finish_time) - min(send_time)) FROM bulk_call WHERE key = 'paced'}), '>', 1.5, 'no faster than it says');
	sql(q{UPDATE quota_gateway SET rate_limit = NULL WHERE name = 'g'});
};

subtest 'two sessions, one key; a cancel; a policy' => sub {
	$mock->fault(kind => 'slow', match => 'grant', delay_ms => 1000, count => 0);
	my $call = begin_call($node, "SET application_name = 'first'", 'CALL quota_manager.bulk_delta(' . users('t', 40) . q{, 'twice')});

	wait_until($node, q{SELECT count(*) > 0 FROM quota_manager.bulk_call WHERE key = 'twice' AND state = 'sent'});
	my ($out, $err) = bulk(users('t', 40) . q{, 'twice'});
	like($err, qr/ERROR:  55P03: bulk call "twice" is under way in another session/, 'another session is refused');
	is(sql(q{SELECT count(*) FROM quota_internal.open_users(ARRAY['g'])}), sql(q{SELECT count(*) FROM bulk_call WHERE state = 'sent'}), 'balances of those to whom something is under way do not count');
	(undef, $out, $err) = $node->psql('postgres', q{UPDATE quota_manager.quota_gateway SET doubt_policy = 'reconcile' WHERE name = 'g'});
	like($err, qr/ERROR:  a bulk call to gateway "g" is under way/, 'the gateway cannot be reconciled meanwhile');
	sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'first'});
	($out, $err) = end_call($call);
	like($err, qr/canceling statement due to user request/, 'a cancel ends it');
	$mock->clear_faults;
	unlike(states('twice'), qr/sent|doubt/, 'once what is under way was answered');
	like(states('twice'), qr/^applied \d+, waiting \d+$/, 'and written');
	($out, $err) = bulk(users('t', 40) . q{, 'twice'});
	is("$out$err", '40|0|0|0|0', 'then the other one goes on');
	once('twice', 't', 'two sessions');
};

subtest 'without the synchronous standby a mark is not known to be there after a failover: nothing is sent' => sub {
	$mock->fault(kind => 'status', match => 'grant', status => 403, body => 'no', content_type => 'text/plain', count => 0);
	bulk(users('y', 20) . q{, 'standby'});
	$mock->clear_faults;
	sql(q{UPDATE bulk_call SET state = 'waiting' WHERE key = 'standby'});
	$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nowhere'");
	$node->reload;
	wait_until($node, 'SHOW synchronous_standby_names', result => 'nowhere');
	foreach my $how ('pg_cancel_backend', 'pg_terminate_backend')
	{
		my $log = -s $node->logfile;
		my $call = begin_call($node, "SET application_name = 'cut'", q{CALL quota_manager.bulk_delta(NULL, 'standby')});

		# The first commit has locked the gateway's row, the second one has the mark.
		foreach my $cut ('pg_cancel_backend', $how)
		{
			wait_until($node, q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'cut' AND wait_event = 'SyncRep')});
			$node->safe_psql('postgres', "SELECT $cut(pid) FROM pg_stat_activity WHERE application_name = 'cut'");
			$node->wait_for_log(qr/the transaction has already committed locally|canceling the wait for synchronous replication|canceling wait for synchronous replication/i, $log);
			$log = -s $node->logfile;
		}
		end_call($call);
		is(states('standby'), 'waiting 20', "$how: all go back");
	}
	$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$node->reload;
	wait_until($node, 'SHOW synchronous_standby_names', result => '');
	my ($out, $err) = bulk(q{NULL, 'standby'});
	is("$out$err", '20|0|0|0|0', 'then they are sent');
	once('standby', 'y', 'no standby');
};

# Where the session dies, and how many rows may be in doubt afterwards.
my %deaths = (
	bulk_written => [ 0, 0, 0 ],
	bulk_marked => [ 1, $slots, $slots ],
	bulk_sent => [ $slots + 3, $slots, $slots ],
	bulk_answered => [ $slots + 2, $slots, $slots ],
	bulk_recorded => [ 1, 0, 0 ]);
subtest 'kill -9 in the middle' => sub {
	foreach my $point (sort keys %deaths)
	{
		my ($skip, $least, $most) = @{ $deaths{$point} };
		my ($key, $prefix) = ($point, "k$point");

		my $log = -s $node->logfile;

		arm($node, $point, skip => $skip);
		bulk(users($prefix, 40) . qq{, '$key'}, before => "SELECT 1;\n");
		ok(await_hit($node, $point), "$point: it died");
		# The postmaster notices it a moment later.
		$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
		wait_until($node, 'SELECT true');
		my ($out, $err) = bulk(users($prefix, 40) . qq{, '$key'});
		my ($applied, $refused, $not_sent, $doubt, $waiting) = split /\|/, $out;

		is("$applied+$doubt $refused $not_sent $waiting", (40 - $doubt) . "+$doubt 0 0 0", "$point: all else is sent by the next call");
		ok($doubt >= $least && $doubt <= $most, "$point: $doubt in doubt of $least to $most");
		like(sql(qq{SELECT DISTINCT message FROM bulk_call WHERE key = '$key' AND state = 'in_doubt'}), qr/^the session that sent it ended before the answer was written$/, "$point: and why") if $doubt;
		once($key, $prefix, $point);
	}
};

subtest 'a copy of the database sends nothing that the original may have sent' => sub {
	$mock->fault(kind => 'status', match => 'grant', status => 403, body => 'no', content_type => 'text/plain', count => 0);
	bulk(users('c', 20) . q{, 'copied'});
	$mock->clear_faults;
	my $file = PostgreSQL::Test::Utils::tempdir . '/dump.sql';

	$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $file ], 'dumped');
	$node->safe_psql('postgres', 'CREATE DATABASE copy');
	$node->psql('copy', "\\i $file");
	$node->safe_psql('copy', q{INSERT INTO quota_manager.quota_credential VALUES ('g', 'key')});
	my (undef, $out, $err) = $node->psql('copy', q{CALL quota_manager.bulk_delta(NULL, 'copied')});
	like($err, qr/ERROR:.*(?:copy|another)/, 'not before resume()');
	$node->safe_psql('copy', q{SELECT quota_manager.resume('may_have_run')});
	is($node->safe_psql('copy', q{CALL quota_manager.bulk_delta(NULL, 'copied')}), '0|0|0|20|0', 'afterwards it is in doubt');
	($out, $err) = bulk(q{NULL, 'copied'});
	is("$out$err", '20|0|0|0|0', 'the original goes on');
	once('copied', 'c', 'a copy');
};

$mock->stop;
$node->stop;
done_testing();
