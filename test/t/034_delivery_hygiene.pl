
# A sender holds nothing in the database while it waits, tells nobody its keys,
# goes nowhere it must not go, and what is done by hand is logged.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery
  qw(delivery_node add_gateway grant deliver statuses begin_call end_call log_part);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until becomes_true);
use Test::More;

my $row_key = 'k3y-in-a-row';
my $env_key = 'k3y-in-the-environment';
my $file_key = 'k3y-in-a-file';

my $keys = PostgreSQL::Test::Utils::tempdir;
$ENV{QUOTA_MANAGER_TEST_KEY} = $env_key;
$ENV{OTHER_KEY} = $env_key;

# Everything that can be logged is.
my $node = delivery_node('hygiene', <<"CONF");
log_statement = all
log_min_messages = debug3
log_min_error_statement = debug3
log_min_duration_statement = 0
log_parameter_max_length_on_error = -1
debug_print_plan = on
track_activity_query_size = 16384
quota_manager.credential_directory = '$keys'
CONF
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => $row_key);
add_gateway($node, 'g', $mock, is_default => 'true');
my $log = -s $node->logfile;
my ($status, $out, $err);

my ($call, $sender);
subtest q{while a gateway hangs: no snapshot, no transaction id, no lock but the sender's} => sub {
	$mock->fault(kind => 'hang', match => 'delta', count => 100);
	grant($node, 'g', 1, map { "user$_" } 1 .. 50);
	$call = begin_call($node, "SET application_name = 'sender'", 'CALL quota_manager.deliver()');
	$sender = q{FROM pg_stat_activity WHERE application_name = 'sender' AND wait_event_type = 'Extension'};
	ok(becomes_true($node, "SELECT count(*) = 1 $sender"), 'the sender waits for its gateway');
	is($node->safe_psql('postgres', "SELECT backend_xmin IS NULL, backend_xid IS NULL $sender"), 't|t',
		'it holds no snapshot and no transaction id');
	is( $node->safe_psql('postgres', qq{
			SELECT string_agg(DISTINCT locktype || coalesce(' ' || relation::regclass, ''), ', ') FROM pg_locks
			WHERE pid = (SELECT pid $sender) AND locktype <> 'virtualxid'}),
		'advisory', 'and no lock but the sender\'s');
	is( $node->safe_psql('postgres', q{
			SELECT classid = x'716d6777'::int, objid = (SELECT id FROM quota_manager.quota_gateway WHERE name = 'g'), objsubid
			FROM pg_locks WHERE locktype = 'advisory'}),
		't|t|3', 'which others can see');
	is( $node->safe_psql('postgres', q{
			SET lock_timeout = '5s';
			SELECT count(*) FROM (SELECT FROM quota_manager.quota_execute FOR UPDATE) x}),
		50, 'all rows can be locked');
	($status, $out, $err) = $node->psql('postgres', q{
		CREATE TABLE quota_test.t AS SELECT FROM generate_series(1, 100);
		DELETE FROM quota_test.t;
		VACUUM VERBOSE quota_test.t});
	like($err, qr/100 removed, 0 remain, 0 are dead but not yet removable/, 'and VACUUM removes what died since');
	is($node->safe_psql('postgres', "SELECT count(*) $sender"), 1, 'it still waited');
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'sender'");
	end_call($call);
	is(statuses($node, 'g'), 'in_doubt 16, pending 34', 'cancelled, what was in flight is in doubt');
	$mock->clear_faults;
	$node->safe_psql('postgres', q{SELECT quota_manager.resolve(id, false) FROM quota_manager.quota_execute WHERE status = 'in_doubt'});
};

# Keys from all places, and what they must look like.
my $number = 0;

sub use_credential
{
	my ($reference, $key) = @_;
	my $name = 'user' . ++$number;

	$mock->set_key($key);
	$node->safe_psql('postgres', "UPDATE quota_manager.quota_gateway SET credential = '$reference' WHERE name = 'g'");
	grant($node, 'g', 1, "credential$number");
	deliver($node);
	return $node->safe_psql('postgres', qq{
		SELECT e.status, coalesce(g.state_reason, '')
		FROM quota_manager.quota_execute e JOIN quota_manager.quota_gateway g ON e.gateway = g.name
		WHERE e.user_id = 'credential$number'});
}

sub write_file
{
	my ($name, $content) = @_;

	open my $file, '>', "$keys/$name" or die "$keys/$name: $!";
	print $file $content;
	close $file;
	return;
}

write_file('key', "$file_key\n");
write_file('long', 'x' x 5000);
write_file('empty', '');
write_file('lines', "$file_key\nanother: line\n");
symlink "$keys/key", "$keys/link";
mkdir "$keys/folder";
is(use_credential('row:g', $row_key), 'completed|', 'a key in a row');
is(use_credential('env:QUOTA_MANAGER_TEST_KEY', $env_key), 'completed|', 'a key in the environment');
is(use_credential('file:key', $file_key), 'completed|', 'a key in a file, without its newline');
is(use_credential('row:none', $row_key), 'pending|the row of the key does not exist in quota_credential', 'no such row');
is(use_credential('env:QUOTA_MANAGER_NONE', $env_key), 'pending|the environment variable of the key is not set', 'no such variable');
is(use_credential('file:none', $file_key), 'pending|the file of the key does not exist', 'no such file');
is(use_credential('file:link', $file_key), 'pending|the file of the key is a link', 'links are not followed');
is(use_credential('file:folder', $file_key), 'pending|the file of the key is not a regular file', 'folders are not read');
is(use_credential('file:long', 'x' x 5000), 'pending|the file of the key is too long', 'nor long files');
is(use_credential('file:empty', ''), 'pending|the key is empty', 'nor empty ones');
is(use_credential('file:lines', $file_key), 'pending|the key contains a control character', 'a key is one line');
foreach my $reference ('env:OTHER_KEY', 'env:PATH', 'env:QUOTA_MANAGER_A=B', 'file:../key', 'file:/etc/passwd', 'file:.key',
	'file:', 'row:', $row_key, "x:$row_key", '')
{
	($status, $out, $err) = $node->psql('postgres', "UPDATE quota_manager.quota_gateway SET credential = '$reference' WHERE name = 'g'",
		extra_params => [ '-v', 'VERBOSITY=terse' ]);
	like($err, qr/invalid credential of gateway "g"/, "no reference: '$reference'");
	unlike($err, qr/k3y/, 'the message does not repeat it');
}
is(use_credential('file:key', $file_key), 'completed|', 'mended, all is delivered');
is(statuses($node, 'g'), 'completed ' . (50 + $number), 'everything was');

subtest 'hosts' => sub {
	$node->append_conf('postgresql.conf', "quota_manager.allowed_hosts = 'gateway.example, [::1]'");
	$node->reload;
	grant($node, 'g', 1, 'elsewhere');
	deliver($node);
	is( $node->safe_psql('postgres', q{SELECT state, state_reason FROM quota_manager.quota_gateway WHERE name = 'g'}),
		'misconfigured|its host is not in quota_manager.allowed_hosts', 'a gateway that was allowed before');
	foreach my $url ('http://127.0.0.1:1', 'http://evil.example', 'http://gateway.example.evil', 'http://gateway.example@evil.example')
	{
		($status, $out, $err) = $node->psql('postgres', "UPDATE quota_manager.quota_gateway SET base_url = '$url' WHERE name = 'g'");
		like($err, qr/invalid URL of gateway "g"/, "not allowed: $url");
	}
	foreach my $url ('http://gateway.example', 'https://GATEWAY.example:8443/base', 'http://[::1]:80')
	{
		is($node->safe_psql('postgres', "SELECT quota_internal.check_base_url('$url') IS NULL"), 't', "allowed: $url");
	}
	$node->append_conf('postgresql.conf', "quota_manager.allowed_hosts = '127.0.0.1'");
	$node->reload;
	is(deliver($node), '1|0|0|0', 'allowed again, all is delivered');
	$node->safe_psql('postgres', 'CREATE ROLE anyone');
	foreach my $setting ("quota_manager.allowed_hosts = ''", "quota_manager.credential_directory = '/etc'")
	{
		($status, $out, $err) = $node->psql('postgres', "LOAD 'quota_manager'; SET ROLE anyone; SET $setting");
		like($err, qr/permission denied to set parameter "quota_manager\./, "only superusers may SET $setting");
	}
	is( $node->safe_psql('postgres', q{
			SET ROLE anyone;
			SET quota_manager.allowed_hosts = '';
			RESET ROLE;
			SELECT quota_internal.check_base_url('http://evil.example') IS NULL}),
		'f', 'also before the library is loaded');
};

subtest 'by hand' => sub {
	$node->safe_psql('postgres', q{
		CREATE ROLE operator;
		SELECT quota_manager.grant_access('operator', 'operator')});
	$mock->reset;
	$mock->set_balance('hand', quota => 50);
	my $as_operator = 'SET ROLE operator;';
	is($node->safe_psql('postgres', "$as_operator SELECT quota_manager.gateway_query('hand')"), 50, 'gateway_query');
	is($node->safe_psql('postgres', q{SELECT gateway, balance, read_time > now() - interval '1 min' FROM quota_manager.user_balance WHERE user_id = 'hand'}),
		'g|50|t', 'it notes the answer');
	is($node->safe_psql('postgres', "$as_operator SELECT quota_manager.gateway_delta('hand', -8.0, 'given twice', 'g')"), 'applied', 'gateway_delta');
	is($mock->balance('hand'), 42, 'it adds');
	is($node->safe_psql('postgres', "$as_operator SELECT quota_manager.gateway_refresh('hand', 7)"), 'applied', 'gateway_refresh');
	is($mock->balance('hand'), 7, 'it sets');
	is($node->safe_psql('postgres', q{SELECT role, action, gateway, user_id, amount, reason, outcome, message IS NULL FROM quota_manager.gateway_call ORDER BY id}),
		"operator|query|g|hand|||answered|t\noperator|delta|g|hand|-8|given twice|applied|t\noperator|refresh|g|hand|7||applied|t",
		'all three are recorded');
	($status, $out, $err) = $node->psql('postgres', "$as_operator SELECT * FROM quota_manager.quota_credential");
	like($err, qr/permission denied/, 'who uses the key need not be allowed to see it');
	is($node->safe_psql('postgres', "SET default_transaction_read_only = on; SELECT quota_manager.gateway_query('hand')"), 7, 'gateway_query in a read-only transaction');

	my @failures = (
		[ 'close', 'delta', "gateway_delta('hand', 1, 'r')", qr/ERROR:  08007: nobody can tell whether gateway "g" applied the request/ ],
		[ 'close', 'query', "gateway_query('hand')", qr/ERROR:  08006: gateway "g" did not answer/ ],
		[ 'status 429', 'delta', "gateway_delta('hand', 1, 'r')", qr/ERROR:  53000: gateway "g" asks to come back later/ ],
		[ 'own', 'delta', "gateway_delta('hand', 1, 'r')", qr/ERROR:  22023: gateway "g" refuses the request/ ],
		[ 'status 422', 'delta', "gateway_delta('hand', 1, 'r')", qr/ERROR:  08004: gateway "g" refuses access: HTTP 422/ ],
		[ 'status 404', 'query', "gateway_query('hand')", qr/ERROR:  08004: gateway "g" refuses access/ ],
		[ undef, undef, "gateway_delta('hand', 1.5, 'r')", qr/ERROR:  22003: amount 1\.5 cannot be sent to gateway "g"/ ],
		[ undef, undef, "gateway_delta('hand', 1, '')", qr/ERROR:  22023: the reason must be given/ ],
		[ undef, undef, "gateway_delta('hand', NULL, 'r')", qr/ERROR:  22004: the amount must be given/ ],
		[ undef, undef, "gateway_query(NULL)", qr/ERROR:  22023: the user's id must be given/ ],
		[ undef, undef, "gateway_query('hand', 'none')", qr/ERROR:  42704: gateway "none" does not exist/ ]);
	foreach my $failure (@failures)
	{
		my ($fault, $match, $function, $expected) = @$failure;

		if ($fault)
		{
			my ($kind, $code) = split / /, $fault;
			$mock->fault($kind eq 'own' ? $mock->own_refusal('no') : (kind => $kind), match => $match, $code ? (status => $code) : ());
		}
		($status, $out, $err) = $node->psql('postgres', "SELECT quota_manager.$function",
			extra_params => [ '-v', 'VERBOSITY=verbose' ]);
		like($err, $expected, "$function" . ($fault ? " with $fault" : ''));
	}
	is($node->safe_psql('postgres', 'SELECT count(*) FROM quota_manager.gateway_call'), 3, 'what failed is not recorded');
	my $logged = log_part($node, $log);
	like($logged, qr/LOG:  gateway "g": delta of user "hand" by role "operator" \(session of "[^"]+"\): sent/, 'what is sent by hand is logged before,');
	like($logged, qr/LOG:  gateway "g": delta of user "hand" by role "operator" \(session of "[^"]+"\): applied/, 'what became of it afterwards,');
	like($logged, qr/DETAIL:  Amount -8, reason: given twice/, 'with amount and reason,');
	like($logged, qr/LOG:  gateway "g": delta of user "hand" by role "[^"]+" \(session of "[^"]+"\): in doubt/, 'also if it failed,');
	$node->safe_psql('postgres', q{BEGIN; SELECT quota_manager.gateway_delta('hand', 1, 'regretted'); ROLLBACK});
	like(log_part($node, $log), qr/reason: regretted/, 'or was rolled back');
	is($mock->balance('hand'), 8, 'which changes nothing at the gateway');
};

subtest 'where a change by hand would be taken for a grant it is refused, and the policy cannot become that while one is under way' => sub {
	my $reconcile = q{UPDATE quota_manager.quota_gateway SET sole_writer = true, doubt_policy = 'reconcile' WHERE name = 'g'};
	$mock->fault(kind => 'hang', match => 'delta');
	$call = begin_call($node, "SET application_name = 'by hand'", q{SELECT quota_manager.gateway_delta('hand', 1, 'slow')});
	my $by_hand = q{FROM pg_stat_activity WHERE application_name = 'by hand' AND wait_event_type = 'Extension'};
	ok(becomes_true($node, "SELECT count(*) = 1 $by_hand"), 'a change by hand is under way');
	($status, $out, $err) = $node->psql('postgres', "SET lock_timeout = '100ms'; $reconcile");
	like($err, qr/canceling statement due to lock timeout/, 'the doubt policy waits for it');
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) $by_hand");
	end_call($call);
	$node->safe_psql('postgres', $reconcile);
	foreach my $function ("gateway_delta('hand', 1, 'r')", "gateway_refresh('hand', 1)")
	{
		($status, $out, $err) = $node->psql('postgres', "SELECT quota_manager.$function", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
		like($err, qr/ERROR:  55000: quotas at gateway "g" cannot be changed by hand/, "$function where grants are reconciled");
	}
	is($node->safe_psql('postgres', q{SELECT quota_manager.gateway_query('hand')}), 8, 'a query is not refused');
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_gateway SET doubt_policy = 'hold' WHERE name = 'g'});
};
$mock->clear_faults;

# The gateway is down.
$mock->stop;
($status, $out, $err) = $node->psql('postgres', q{SELECT quota_manager.gateway_delta('hand', 1, 'r')}, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/ERROR:  08001: gateway "g" cannot be reached/, 'gateway_delta to a gateway that is down');
$mock->restart;
$mock->set_key($file_key);

# A call by hand can be cancelled.
$mock->fault(kind => 'hang', match => 'query');
$call = begin_call($node, "SET statement_timeout = '300ms'", "SELECT quota_manager.gateway_query('hand')");
($out, $err) = end_call($call);
like($err, qr/canceling statement due to statement timeout(?!.*may have applied)/s, 'gateway_query obeys statement_timeout');
$mock->fault(kind => 'hang', match => 'delta');
$call = begin_call($node, "SET statement_timeout = '300ms'", "SELECT quota_manager.gateway_delta('hand', 1, 'r')");
($out, $err) = end_call($call);
like($err, qr/canceling statement due to statement timeout\nDETAIL:  Gateway "g" may have applied the request\.\nHINT:  Compare the user's balance before you try again\./,
	'gateway_delta does too, and says what it may have left');

# Nor is it repeated by whoever could not record it.
subtest 'a change that cannot be recorded' => sub {
	my $balance = sub { return $node->safe_psql('postgres', q{SELECT quota_manager.gateway_query('hand')}) };
	my $before = $balance->();
	my $delta = q{SELECT quota_manager.gateway_delta('hand', 1, 'r')};

	$mock->clear_faults;
	my $session = QuotaTest::Delivery::begin_session($node);
	QuotaTest::Delivery::ask_session($session, 'BEGIN');
	QuotaTest::Delivery::ask_session($session, 'LOCK TABLE quota_manager.gateway_call IN SHARE MODE');
	foreach my $setting (q{SET lock_timeout = '200ms'}, q{SET statement_timeout = '200ms'})
	{
		($status, $out, $err) = $node->psql('postgres', "$setting; $delta");
		like($err, qr/canceling statement due to (?:lock|statement) timeout$/m, "$setting: it waits");
	}
	QuotaTest::Delivery::ask_session($session, 'ROLLBACK');
	QuotaTest::Delivery::end_session($session);
	is($balance->(), $before, 'before anything is sent');

	$node->safe_psql('postgres', q{
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'soon'; RAISE 'no room'; END $$;
		CREATE TRIGGER refuse BEFORE INSERT ON quota_manager.gateway_call FOR EACH ROW EXECUTE FUNCTION refuse()});
	($status, $out, $err) = $node->psql('postgres', $delta);
	like($err, qr/NOTICE:  soon\n(?!DETAIL).*ERROR:  no room\nDETAIL:  Gateway "g" has applied the request, and keeps it so\.\nHINT:  Do not repeat it\./s, 'an error after the answer says so');
	$node->safe_psql('postgres', q{DROP TRIGGER refuse ON quota_manager.gateway_call; DROP FUNCTION refuse()});
	is($balance->(), $before + 1, 'as it is');
};

subtest 'no key was told: not in the log, not in any table but its own, not in what others see' => sub {
	$mock->set_key($row_key);
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_gateway SET credential = 'row:g' WHERE name = 'g'});
	$node->safe_psql('postgres', 'SELECT quota_manager.gateway_query($$hand$$)');
	$mock->fault(kind => 'slow', match => 'delta', count => 100, delay_ms => 2000);
	grant($node, 'g', 1, 'watched');
	$call = begin_call($node, "SET application_name = 'sender'", 'CALL quota_manager.deliver()');
	wait_until($node, "SELECT count(*) = 1 $sender");
	unlike($node->safe_psql('postgres', 'SELECT string_agg(a::text, chr(10)) FROM pg_stat_activity a'), qr/k3y/, 'no key in pg_stat_activity');
	end_call($call);
	unlike(log_part($node, $log), qr/k3y-in-(?!a-row')/, 'no key in the log');
	unlike(log_part($node, $log) =~ s/^.*(?:credential = '|quota_credential|invalid credential).*$//gmr, qr/k3y-in-a-row/, 'nor the one that was written there by hand');
	$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', "$keys/dump" ], 'pg_dump');
	my $dump = PostgreSQL::Test::Utils::slurp_file("$keys/dump");
	like($dump, qr/COPY quota_manager\.gateway_call/, 'the calls by hand are dumped');
	unlike($dump, qr/k3y/, 'the keys are not');
};

$node->stop;
done_testing();
