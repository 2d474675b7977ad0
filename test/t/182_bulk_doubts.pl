# Changes of bulk calls that are in doubt are decided by operators: what was applied is never sent again, what was not is sent
# once more under the same key, and each decision leaves a trace that says who, when and why, and can be corrected.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::CrashPoints qw(crash_cluster arm await_hit);
use QuotaTest::Delivery qw(add_gateway begin_call end_call begin_session ask_session end_session);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until wait_for);
use QuotaTest::Workers;
use Test::More;

my $slots = 8;
my $node = crash_cluster('bulk_doubts', "quota_manager.linger = 200ms\nquota_manager.workers = off\n");
my $mock = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key');

$node->safe_psql('postgres', q{
	CREATE EXTENSION quota_manager;
	CREATE ROLE operator LOGIN;
	CREATE ROLE viewer LOGIN;
	CREATE ROLE stranger LOGIN;
	SELECT quota_manager.grant_access('operator', 'operator'), quota_manager.grant_access('viewer', 'viewer')});
add_gateway($node, 'g', $mock, is_default => 'true', max_connections => $slots, request_timeout => '3 s');

sub sql { return $node->safe_psql('postgres', "SET search_path = quota_manager; $_[0]") }

# What a statement of a role returns, and what it says.
sub as
{
	my ($role, $statement) = @_;
	my (undef, $out, $err) = $node->psql('postgres', $statement, connstr => $node->connstr('postgres') . " user=$role",
		on_error_stop => 0, extra_params => [ '-q', '-v', 'VERBOSITY=verbose' ]);

	return ($out, $err);
}

sub bulk { return as('operator', 'CALL quota_manager.bulk_delta(' . $_[0] . ')') }

# A query of n users, each with its number.
sub users
{
	my ($prefix, $n) = @_;

	return qq{\$\$SELECT '$prefix' || n, n, 'refund' FROM generate_series(1, $n) n\$\$};
}

# A key with some users whose answers are lost: those of odd numbers were applied.
sub doubtful
{
	my ($key, $prefix, @numbers) = @_;

	$mock->fault(kind => $_ % 2 ? 'apply_close' : 'close', match => 'grant', user => "$prefix$_") foreach @numbers;
	my ($out, $err) = bulk(users($prefix, 9) . qq{, '$key'});
	is("$out$err", (9 - @numbers) . '|0|0|' . @numbers . '|0', "$key: so many are in doubt");
	return;
}

# Whether every change that is said to be applied was applied once, and nothing else was.
sub as_said
{
	my ($key, $prefix, $name) = @_;
	my %times;

	$times{ $_->{user} }++ foreach grep { $_->{user} =~ /^$prefix\d/ } $mock->applied;
	my $wrong = join ' ', grep { my ($user, $state) = split /\|/; ($times{$user} // 0) != ($state eq 'applied') }
	  split /\n/, sql(qq{SELECT user_id, state FROM bulk_call WHERE key = '$key'});
	is($wrong, '', "$name: what is applied was applied once, the rest was not");
	return;
}

subtest 'what was applied is not sent, what was not is sent by the same key' => sub {
	doubtful('outage', 'a', 3, 4, 5);
	is(sql(q{SELECT string_agg(user_id, ',' ORDER BY user_id) FROM bulk_doubts WHERE key = 'outage'}), 'a3,a4,a5', 'a view lists them');
	like(sql(q{SELECT what_to_do FROM bulk_doubts WHERE user_id = 'a4'}), qr/resolve_bulk\('outage', ARRAY\['a4'\], true or false, 'why'\)/, 'with what to do');
	is(sql(q{SELECT bulk_changes_in_doubt FROM metrics WHERE gateway = 'g'}), 3, 'and the metrics count them');
	my ($out, $err) = as('operator', q{SELECT quota_manager.resolve_bulk('outage', ARRAY['a3', 'a5'], true, 'in their log')});
	is("$out$err", '2', 'resolved as applied');
	($out, $err) = as('operator', q{SET request.jwt.claims = '{"sub": "alice"}'; SELECT quota_manager.resolve_bulk('outage', NULL, false, 'not in their log')});
	is("$out$err", '1', 'all others as not applied');
	is(sql(q{SELECT applied, not_sent, in_doubt FROM bulk_calls WHERE key = 'outage'}), '8|1|0', 'bulk_calls knows');
	is(sql(q{SELECT count(*) FROM bulk_doubts}), 0, 'nothing is in doubt any more');
	($out, $err) = bulk(q{NULL, 'outage'});
	is("$out$err", '9|0|0|0|0', 'the key sends what was not applied');
	as_said('outage', 'a', 'resolved');
	is(sql(q{SELECT user_id, action, state_before, state_after, role, session_role, said_by, note FROM bulk_decision ORDER BY id}), join("\n",
		'a3|resolve_applied|in_doubt|applied|operator|operator||in their log', 'a5|resolve_applied|in_doubt|applied|operator|operator||in their log',
		'a4|resolve_not_applied|in_doubt|not_sent|operator|operator|alice|not in their log'), 'who decided what, and why');
	is(sql(q{SELECT message FROM bulk_call WHERE user_id = 'a3'}), 'resolved as applied by operator: in their log', 'the row says so');
	is(sql(q{SELECT count(*), sum(amount) FROM gateway_call WHERE outcome = 'applied' AND user_id ~ '^a\d'}), '9|45', 'each applied change is a gateway_call');
};

subtest 'what cannot be decided is said, and nothing changes' => sub {
	my ($out, $err) = as('operator', q{SELECT quota_manager.resolve_bulk('outage', ARRAY['a1', 'a2', 'nobody'], false)});
	like("$out$err", qr/^0.*WARNING:  55000: 3 of 3 changes were left as they are\nDETAIL:  They are: 2 applied; 1 not found\.\nHINT:  Only what is in doubt/s, 'neither applied nor unknown ones');
	my @refused = (
		[ q{resolve_bulk('nosuch', NULL, true)}, '42704', 'there is no bulk call "nosuch"' ],
		[ q{resolve_bulk(NULL, NULL, true)}, '22004', 'the key must be given' ],
		[ q{resolve_bulk('outage', NULL, NULL)}, '22004', 'whether the changes were applied must be given' ],
		[ q{correct_bulk('outage', NULL, true)}, '22004', 'the users must be given' ],
		[ q{resolve_bulk('outage', NULL, true, repeat('n', 2601))}, '22001', 'the note has 2601 bytes' ]);
	foreach my $case (@refused)
	{
		my ($call, $code, $message) = @{$case};

		($out, $err) = as('operator', "SELECT quota_manager.$call");
		like($err, qr/ERROR:  \Q$code: $message\E/, $message);
	}
	foreach my $role ('viewer', 'stranger')
	{
		($out, $err) = as($role, q{SELECT quota_manager.resolve_bulk('outage', NULL, true)});
		like($err, qr/ERROR:  42501: permission denied for/, "$role: may not decide");
	}
	($out, $err) = as('viewer', q{SELECT count(*) FROM quota_manager.bulk_doubts; SELECT count(*) > 0 FROM quota_manager.bulk_decision});
	is("$out$err", "0\nt", 'viewers see what is in doubt and what was decided');
	($out, $err) = as('viewer', q{SELECT quota_internal.decide_bulk('resolve_applied', 'outage', ARRAY['a1'], '')});
	like($err, qr/ERROR:  42501: permission denied for function decide_bulk/, 'nor by the functions behind it');
	as_said('outage', 'a', 'refused');
};

subtest 'a wrong decision is corrected' => sub {
	doubtful('wrong', 'w', 3, 4, 5, 6);
	sql(q{SELECT resolve_bulk('wrong', ARRAY['w3', 'w5'], false), resolve_bulk('wrong', ARRAY['w4', 'w6'], true)});
	my ($out, $err) = as('operator', q{SELECT quota_manager.correct_bulk('wrong', ARRAY['w3', 'w4', 'w1', 'w6'], true, 'looked again')});
	like("$out$err", qr/^1.*3 of 4 changes were left as they are\nDETAIL:  They are: 2 applied, and was resolved as just that; 1 applied, and no operator has resolved it\./s, 'applied after all');
	($out, $err) = as('operator', q{SELECT quota_manager.correct_bulk('wrong', ARRAY['w4', 'w6'], false, 'looked again')});
	is("$out$err", 2, 'not applied after all');
	is(sql(q{SELECT outcome, message FROM gateway_call WHERE user_id = 'w4'}), 'not applied|corrected as not applied by operator: looked again', 'its gateway_call is withdrawn');
	($out, $err) = bulk(q{NULL, 'wrong'});
	is("$out$err", '9|0|0|0|0', 'the key goes on');
	is(scalar(grep { $_->{user} eq 'w3' } $mock->applied), 1, 'the corrected one is not sent');
	is(scalar(grep { $_->{user} eq 'w5' } $mock->applied), 2, 'one that was not corrected in time is sent again');
	($out, $err) = as('operator', q{SELECT quota_manager.correct_bulk('wrong', ARRAY['w5'], true)});
	like($err, qr/applied, since it was sent again: then it was applied twice\.\nHINT:  Take one back: SELECT quota_manager\.gateway_delta\('w5', -5, 'applied twice: bulk call wrong', 'g'\)\./, 'which is said, with the way out');
	is(sql(q{SELECT count(*) FROM bulk_decision WHERE key = 'wrong'}), 7, 'all decisions are kept');
};

subtest 'kill -9: what a dead session had sent is decided without a call' => sub {
	foreach my $point ('bulk_marked', 'bulk_answered')
	{
		my $prefix = "k$point";
		my $log = -s $node->logfile;

		arm($node, $point, skip => $point eq 'bulk_answered' ? $slots + 2 : 1);
		bulk(users($prefix, 30) . qq{, '$point'});
		ok(await_hit($node, $point), "$point: it died");
		# The postmaster notices it a moment later.
		$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
		wait_until($node, 'SELECT true');
		is(sql(qq{SELECT count(*) FROM bulk_call WHERE key = '$point' AND state = 'sent'}), $slots, "$point: a batch is marked");
		my %applied = map { $_->{user} => 1 } $mock->applied;
		my @applied = grep { $applied{$_} } split /\n/, sql(qq{SELECT user_id FROM bulk_call WHERE key = '$point' AND state = 'sent'});
		my ($out, $err) = as('operator', qq{BEGIN; SELECT quota_manager.resolve_bulk('$point', ARRAY['} . join(q{', '}, @applied, 'x') . q{'], true, 'asked'); COMMIT});
		like($out, qr/^@{[ scalar @applied ]}$/, "$point: what was applied");
		($out, $err) = as('operator', qq{SELECT quota_manager.resolve_bulk('$point', NULL, false, 'asked')});
		is("$out$err", $slots - @applied, "$point: what was not");
		($out, $err) = bulk(qq{NULL, '$point'});
		is("$out$err", '30|0|0|0|0', "$point: the key goes on");
		as_said($point, $prefix, $point);
	}
};

subtest 'a decision about a key that a call works on' => sub {
	$mock->fault(kind => 'apply_close', match => 'grant', user => 'c1');
	$mock->fault(kind => 'close', match => 'grant', user => 'c2');
	$mock->fault(kind => 'slow', match => 'grant', delay_ms => 700, count => 0);
	my $call = begin_call($node, 'CALL quota_manager.bulk_delta(' . users('c', 40) . q{, 'under way')});

	wait_until($node, q{SELECT count(*) = 2 FROM quota_manager.bulk_call WHERE key = 'under way' AND state = 'in_doubt'});
	my ($out, $err);
	wait_for('a change that is under way', sub {
		($out, $err) = as('operator', q{SELECT quota_manager.resolve_bulk('under way', ARRAY(SELECT user_id FROM quota_manager.bulk_call WHERE key = 'under way' AND state = 'sent'), false, 'a guess')});
		$_ = $err;
		return $err =~ /\d being sent/;
	});
	is($out, '0', 'what is under way cannot be decided');
	($out, $err) = as('operator', q{SELECT quota_manager.resolve_bulk('under way', ARRAY['c1'], true), quota_manager.resolve_bulk('under way', ARRAY['c2'], false)});
	is("$out$err", '1|1', 'what is in doubt can');
	$mock->clear_faults;
	($out, $err) = end_call($call);
	is("$out$err", "39|0|1|0|0\n", 'the call ends without sending it');
	($out, $err) = bulk(q{NULL, 'under way'});
	is("$out$err", '40|0|0|0|0', 'the next one sends it');
	as_said('under way', 'c', 'under way');
};

subtest 'a decision that is not committed, another one, and a repeated call wait for each other' => sub {
	doubtful('races', 'r', 3, 4);
	my $first = begin_session($node);

	ask_session($first, q{BEGIN});
	is(ask_session($first, q{SELECT quota_manager.resolve_bulk('races', ARRAY['r4'], false, 'first')}), 1, 'one decides');
	my $second = begin_call($node, "SET application_name = 'second'", q{SELECT quota_manager.resolve_bulk('races', ARRAY['r3', 'r4'], true, 'second')});
	my $call = begin_call($node, "SET application_name = 'third'", q{CALL quota_manager.bulk_delta(NULL, 'races')});
	wait_until($node, q{SELECT count(*) = 2 FROM pg_stat_activity WHERE application_name IN ('second', 'third') AND wait_event_type = 'Lock'});
	ask_session($first, 'COMMIT');
	end_session($first);
	my ($out, $err) = end_call($second);
	like("$out$err", qr/^1\n.*1 of 2 changes were left as they are\nDETAIL:  They are: 1 (?:not sent|applied|waiting|being sent)\./s, 'the second one finds what the first has left');
	($out, $err) = end_call($call);
	# It may count what the second one decides before that has committed.
	like("$out$err", qr/^(?:9\|0\|0\|0|8\|0\|0\|1)\|0\n$/, 'and the call sends what it has released');
	as_said('races', 'r', 'races');
};

subtest 'hostile keys and users are texts' => sub {
	my $key = q{x'); DROP TABLE quota_manager.bulk_call; -- %s "\\};
	my $quoted = $key =~ s/'/''/gr;

	$mock->fault(kind => 'close', match => 'grant', count => 1);
	my ($out, $err) = bulk(qq{\$q\$SELECT 'it''s %L; {x}', 1, 'why'\$q\$, '$quoted'});
	is("$out$err", '0|0|0|1|0', 'in doubt');
	my $todo = sql(qq{SELECT what_to_do FROM bulk_doubts WHERE key = '$quoted'});
	$todo =~ s/^.*then (SELECT .*)true or false, 'why'\)$/${1}false, 'no')/ or die $todo;
	($out, $err) = as('operator', $todo);
	is("$out$err", '1', 'what to do can be pasted');
	($out, $err) = bulk(qq{NULL, '$quoted'});
	is("$out$err", '1|0|0|0|0', 'and the key goes on');
};

subtest 'policies of the site hide changes from who decides' => sub {
	doubtful('hidden', 'h', 3, 4);
	sql(q{ALTER TABLE bulk_call ENABLE ROW LEVEL SECURITY; CREATE POLICY most ON bulk_call TO operator USING (user_id <> 'h4')});
	my ($out, $err) = as('operator', q{SELECT quota_manager.resolve_bulk('hidden', ARRAY['h3', 'h4'], true)});
	like("$out$err", qr/^1.*1 of 2 changes were left as they are\nDETAIL:  They are: 1 not found\./s, 'what they hide is not there');
	($out, $err) = as('operator', q{SELECT quota_manager.resolve_bulk('hidden', NULL, true)});
	is("$out$err", '0', 'nor among all');
	sql(q{DROP POLICY most ON bulk_call; ALTER TABLE bulk_call DISABLE ROW LEVEL SECURITY});
	is(sql(q{SELECT resolve_bulk('hidden', NULL, false)}), 1, 'the owner decides');
	($out, $err) = bulk(q{NULL, 'hidden'});
	as_said('hidden', 'h', 'hidden');
};

subtest 'the API' => sub {
	doubtful('api', 'p', 3, 4);
	my ($out, $err) = as('operator', q{SELECT user_id, value FROM quota_api.bulk_doubts WHERE key = 'api' ORDER BY 1});
	is("$out$err", "p3|3\np4|4", 'lists them');
	($out, $err) = as('operator', q{SELECT * FROM quota_api.resolve_bulk('api', ARRAY['p3', 'p9'], true, 'n')});
	is("$out$err", "p3|t|applied|\np9|f|applied|applied", 'a row per user');
	($out, $err) = as('operator', q{SELECT * FROM quota_api.correct_bulk('api', ARRAY['p3'], false, 'n'); SELECT * FROM quota_api.correct_bulk('api', ARRAY['p3'], true, 'n')});
	is("$out$err", "p3|t|not_sent|\np3|t|applied|", 'corrected, twice');
	($out, $err) = as('operator', q{SELECT * FROM quota_api.resolve_bulk('api', NULL, false)});
	is("$out$err", 'p4|t|not_sent|', 'or all');
	($out, $err) = as('operator', q{SELECT * FROM quota_api.resolve_bulk('nosuch', NULL, false)});
	like($err, qr/PGRST.*42704.*there is no bulk call/, 'an unknown key is 404');
	($out, $err) = as('viewer', q{SELECT count(*) FROM quota_api.bulk_decisions WHERE key = 'api'});
	is("$out$err", '4', 'decisions are listed');
	bulk(q{NULL, 'api'});
	as_said('api', 'p', 'API');
};

subtest 'an audit knows of what is in doubt, and of what was decided' => sub {
	sql(q{UPDATE quota_gateway SET sole_writer = true WHERE name = 'g'});
	doubtful('audited', 'u', 3, 4);
	my $find = q{SELECT user_id FROM quota_manager.audit_balances('g') WHERE user_id ~ '^u\d'};

	is(sql($find), '', 'in doubt: either is right');
	sql(q{SELECT resolve_bulk('audited', ARRAY['u3'], true), resolve_bulk('audited', ARRAY['u4'], false)});
	is(sql($find), '', 'decided rightly: nothing differs');
	sql(q{SELECT correct_bulk('audited', ARRAY['u3'], false)});
	is(sql($find), 'u3', 'wrongly: it shows');
	sql(q{SELECT correct_bulk('audited', ARRAY['u3'], true)});
	is(sql($find), '', 'corrected: it is gone');
	sql(q{UPDATE quota_gateway SET sole_writer = false WHERE name = 'g'});
};

subtest 'in a copy, what an operator decided is sent; what the original may send is not' => sub {
	doubtful('copied', 'd', 3, 4, 6);
	sql(q{SELECT resolve_bulk('copied', ARRAY['d4'], false, 'before')});
	my $file = PostgreSQL::Test::Utils::tempdir . '/dump.sql';

	$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $file ], 'dumped');
	$node->safe_psql('postgres', 'CREATE DATABASE copy');
	$node->psql('copy', "\\i $file");
	is($node->safe_psql('copy', 'SELECT count(*) FROM quota_manager.bulk_decision'), sql('SELECT count(*) FROM bulk_decision'), 'decisions are in the dump');
	$node->safe_psql('copy', q{INSERT INTO quota_manager.quota_credential VALUES ('g', 'key'); SELECT quota_manager.resume('may_have_run')});
	is($node->safe_psql('copy', q{CALL quota_manager.bulk_delta(NULL, 'copied')}), '6|0|0|3|0', 'what was decided before the dump is in doubt: the original may have sent it');
	$node->safe_psql('copy', q{SELECT quota_manager.resolve_bulk('copied', ARRAY['d4', 'd6'], false, 'the original is gone'), quota_manager.resolve_bulk('copied', ARRAY['d3'], true)});
	is($node->safe_psql('copy', q{CALL quota_manager.bulk_delta(NULL, 'copied')}), '9|0|0|0|0', 'what was decided since is sent');
	is(join(' ', map { my $user = $_; scalar grep { $_->{user} eq $user } $mock->applied } 'd3', 'd4', 'd6'), '1 1 1', 'once');
};

$mock->stop;
$node->stop;
done_testing();
