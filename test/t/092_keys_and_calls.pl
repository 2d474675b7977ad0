
# Keys that are stored leave no trace, those that a gateway tells are not shown,
# and nothing is sent where nothing may be changed.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver log_part begin_call end_call begin_session ask_session end_session);
use QuotaTest::Mock;
use QuotaTest::Wait qw(becomes_true);
use Test::More;

my $node = delivery_node('keys', "quota_manager.worker_role = 'quota_worker'\n");
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'first/k3y-0');
my ($status, $out, $err, $logged);

add_gateway($node, 'g', $mock, is_default => 'true');
$node->safe_psql('postgres', q{
	CREATE ROLE admin LOGIN;
	CREATE ROLE operator LOGIN;
	CREATE ROLE quota_worker LOGIN;
	SELECT quota_manager.grant_access('admin', 'admin'), quota_manager.grant_access('operator', 'operator')});

# Runs a script as a role, in verbose form.
sub as
{
	my ($role, $sql, %more) = @_;

	return $node->psql('postgres', $sql, connstr => $node->connstr('postgres') . " user=$role",
		extra_params => [ '-v', 'VERBOSITY=verbose' ], on_error_stop => 0, %more);
}

sub stored
{
	my ($name) = @_;

	return $node->safe_psql('postgres', "SELECT secret FROM quota_manager.quota_credential WHERE name = '$name'");
}

my $log;
subtest 'stored, and changed' => sub {
	$log = -s $node->logfile;
	($status, $out, $err) = as('admin', q{SELECT quota_manager.set_credential('new', 'k3y-1')});
	is(stored('new'), 'k3y-1', 'a key is stored');
	($status, $out, $err) = as('admin', q{SELECT quota_manager.set_credential('new', 'k3y-2')});
	is(stored('new'), 'k3y-2', 'and changed');
	($status, $out, $err) = as('operator', 'SELECT quota_manager.set_credential(name, name) FROM quota_manager.quota_model m(name)');
	like($err, qr/ERROR:  42501/, 'not by an operator');
	($status, $out, $err) = as('admin', 'SELECT secret FROM quota_manager.quota_credential');
	like($err, qr/ERROR:  42501/, 'who may store keys cannot read them');
	unlike(log_part($node, $log), qr/k3y/, 'no key in the log');
};

my $holder;
subtest 'what fails does not show the key: neither its statement nor what it was called from' => sub {
	$holder = begin_session($node);
	ask_session($holder, q{BEGIN; SELECT FROM quota_manager.quota_credential WHERE name = 'new' FOR UPDATE});
	my %failures = (
		'a key that cannot be sent' => [ q{SELECT quota_manager.set_credential('new', E'k3y-bad\n')}, '22023' ],
		'an empty name' => [ q{SELECT quota_manager.set_credential('', 'k3y-bad')}, '22023' ],
		'no name' => [ q{SELECT quota_manager.set_credential(NULL, 'k3y-bad')}, '22023' ],
		'no key' => [ q{SELECT quota_manager.set_credential('k3y-bad', NULL)}, '22023' ],
		'a lock' => [ q{SET lock_timeout = '50ms'; SELECT quota_manager.set_credential('new', 'k3y-bad')}, '55P03' ],
		'a time-out' => [ q{SET statement_timeout = '50ms'; SELECT quota_manager.set_credential('new', 'k3y-bad')}, '57014' ],
		'a read-only transaction' => [ q{BEGIN READ ONLY; SELECT quota_manager.set_credential('new', 'k3y-bad'); ROLLBACK}, '25006' ],
		'an INSERT of what is there' => [ q{INSERT INTO quota_manager.quota_credential VALUES ('new', 'k3y-bad')}, '23505' ],
		'an INSERT that cannot be sent' => [ q{INSERT INTO quota_manager.quota_credential VALUES ('other', E'k3y-bad\n')}, '22023' ],
		'an INSERT of two' => [ q{INSERT INTO quota_manager.quota_credential VALUES ('other', 'k3y-bad'), ('new', 'k3y-bad')}, '23505' ],
		'an UPDATE that cannot be sent' => [ q{UPDATE quota_manager.quota_credential SET secret = E'k3y-bad\t' WHERE name = 'g'}, '22023' ],
		'an UPDATE and a lock' => [ q{SET lock_timeout = '50ms'; UPDATE quota_manager.quota_credential SET secret = 'k3y-bad' WHERE name = 'new'}, '55P03' ],
		'a key in place of a reference' => [ q{UPDATE quota_manager.quota_gateway SET credential = 'k3y-bad' WHERE name = 'g'}, '22023' ],
		'a key in a new gateway' => [ q{INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, credential) VALUES ('n', 'zgsm', 'http://a.example', 'k3y-bad')}, '22023' ],
		'a key in a URL' => [ q{UPDATE quota_manager.quota_gateway SET base_url = 'http://user:k3y-bad@gateway.example' WHERE name = 'g'}, '22023' ],
		'an INSERT, and another statement with it' => [ q{INSERT INTO quota_manager.quota_credential VALUES ('other', 'k3y-bad') \; SELECT 1 / 0}, '22012' ],
		'a DO block' => [ q{DO $$ BEGIN PERFORM quota_manager.set_credential('two words', 'k3y-bad'); END $$}, '22023' ]);
	foreach my $name (sort keys %failures)
	{
		my ($sql, $sqlstate) = @{ $failures{$name} };

		$log = -s $node->logfile;
		($status, $out, $err) = as('admin', $sql);
		like($err, qr/ERROR:  $sqlstate: /, "$name: refused");
		$logged = log_part($node, $log);
		like($logged, qr/ERROR:  /, "$name: the log tells");
		unlike($logged =~ s/credential "k3y-bad"//gr, qr/k3y-bad/, "$name: without the key");
	}
};

subtest 'nor does what waits: in the log, to others, and when it is ended' => sub {
	foreach my $sql (q{SELECT quota_manager.set_credential('new', 'k3y-bad')}, q{UPDATE quota_manager.quota_credential SET secret = 'k3y-bad' WHERE name = 'new'})
	{
		my $storer = q{FROM pg_stat_activity WHERE application_name = 'storer' AND wait_event_type = 'Lock'};

		$log = -s $node->logfile;
		my $call = begin_call($node, q{SET application_name = 'storer'; SET log_lock_waits = on; SET deadlock_timeout = '10ms'}, $sql);
		ok(becomes_true($node, "SELECT count(*) = 1 $storer"), "it waits: $sql");
		is($node->safe_psql('postgres', "SELECT query $storer"), '(not shown, since it may hold a key)', 'nobody sees the statement');
		$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 10000) $storer");
		end_call($call);
		$logged = log_part($node, $log);
		like($logged, qr/LOG:  process \d+ still waiting.*\n(?:.*\n)*?.*STATEMENT:  \(not shown/, 'nor does the log of waits');
		like($logged, qr/FATAL:  terminating connection/, 'ended, the log tells');
		unlike($logged, qr/k3y/, 'without the key');
	}
	end_session($holder);
	$node->safe_psql('postgres', q{ALTER TABLE quota_manager.quota_credential ADD CONSTRAINT own CHECK (secret <> 'k3y-bad')});
	$log = -s $node->logfile;
	($status, $out, $err) = as('admin', q{SELECT quota_manager.set_credential('new', 'k3y-bad')});
	like($err, qr/ERROR:  23514: /, 'a constraint of the site: refused');
	unlike(log_part($node, $log) . $err =~ s/^.*LINE.*$//gmr, qr/k3y-bad/, 'a constraint of the site: without the row');
	is(stored('new'), 'k3y-2', 'nothing was changed');
};

# The way that delivery.md describes, where everything is logged.
$node->append_conf('postgresql.conf', <<'CONF');
log_statement = all
log_min_duration_statement = 0
log_min_messages = debug2
log_min_error_statement = debug5
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
debug_print_parse = on
debug_print_plan = on
CONF
$node->reload;
my $file = PostgreSQL::Test::Utils::tempdir . '/key';
append_to_file($file, "first/k3y \"3\\4'\n");
$log = -s $node->logfile;
($status, $out, $err) = as('admin', qq{
BEGIN;
CREATE TEMPORARY TABLE new_key (secret text) ON COMMIT DROP;
\\copy new_key FROM '$file' WITH (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02')
SELECT quota_manager.set_credential('g', secret) FROM new_key;
COMMIT;
SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid();});
is(stored('g'), q{first/k3y "3\\4'}, 'from a file by \copy: as it is') or diag $err;
$logged = log_part($node, $log);
like($logged, qr/statement: SELECT quota_manager\.set_credential\('g', secret\)/, 'from a file by \copy: everything is logged');
unlike($logged, qr/k3y/, 'from a file by \copy: but no key, not even where everything is');
$node->append_conf('postgresql.conf', <<'CONF');
log_statement = none
log_min_duration_statement = -1
log_min_messages = info
log_min_error_statement = error
log_parameter_max_length_on_error = 0
debug_print_parse = off
debug_print_plan = off
CONF
$node->reload;

# A parameter, as programs give it: in no statement, and where parameters are logged as well only if they are not cut to nothing.
sub by_parameter
{
	my ($name, $secret, $settings) = @_;
	my $script = PostgreSQL::Test::Utils::tempdir . '/script';

	append_to_file($script, "SELECT quota_manager.set_credential(:name, :secret);\n");
	$log = -s $node->logfile;
	local $ENV{PGOPTIONS} = $settings;
	system_log('pgbench', '-n', '-t', '1', '-M', 'extended', '-D', "name=$name", '-D', "secret=$secret", '-f', $script, $node->connstr('postgres'));
	return log_part($node, $log);
}
$logged = by_parameter('p', 'k3y-4', '');
is(stored('p'), 'k3y-4', 'a parameter: stored');
unlike($logged, qr/k3y/, 'a parameter: nothing is logged');
$logged = by_parameter('two words', 'k3y-4', '-c log_parameter_max_length_on_error=-1');
like($logged, qr/ERROR:  invalid name of a credential/, 'a parameter, an error');
unlike($logged, qr/k3y/, 'a parameter, an error: the key is not logged, though parameters of failed statements are');
$logged = by_parameter('p', 'k3y-5', '-c log_statement=all -c log_min_duration_statement=0 -c log_parameter_max_length=0');
like($logged, qr/execute .*set_credential\(\$1, \$2\)/, 'a parameter, where statements are logged');
unlike($logged, qr/k3y/, 'a parameter, where statements are logged: not with the key');
is(stored('p'), 'k3y-5', 'a parameter: changed');

my $key;
subtest 'a gateway that tells its key, in all the ways that a reply may write it' => sub {
	$key = q{first/k3y "3\\4'};
	my %told = (
		'as it is' => $key,
		'by JSON' => q{first\/k3y \"3\\\\4'},
		'by JSON in capitals' => join('', map { sprintf '\\u%04X', ord } split //, $key),
		'by a URL' => q{first%2fk3y+%223%5C4%27},
		'by a URL twice' => q{first%252Fk3y%2520%25223%255c4%2527},
		'by markup' => q{first&#47;k3y &quot;3&#x5c;4&#39;},
		'by JSON in a URL' => q{first%5C%2Fk3y%20%5C%223%5c%5c4%27});
	$mock->set_key($key);
	foreach my $dialect ('own', 'stranger')
	{
		foreach my $how (sort keys %told)
		{
			my $text = ($dialect eq 'own' ? 'Request denied by ai quota check. ' : '') . "k $told{$how} e";

			$mock->clear_faults;
			$mock->fault(kind => 'status', match => 'delta', status => 403, body => $text, count => 1);
			$log = -s $node->logfile;
			$node->safe_psql('postgres', q{DELETE FROM quota_manager.quota_execute;
				UPDATE quota_manager.quota_gateway SET state = 'open', state_reason = NULL, next_probe_time = NULL});
			grant($node, 'g', 1, 'told');
			deliver($node);
			my $seen = $node->safe_psql('postgres', q{
				SELECT last_error FROM quota_manager.quota_execute WHERE user_id = 'told'
				UNION ALL SELECT state_reason FROM quota_manager.quota_gateway
				UNION ALL SELECT last_error FROM quota_manager.worker_status});
			like($seen, $dialect eq 'own' ? qr/HTTP 403: Request denied by ai quota check\. k \*\*\* e/ : qr{^HTTP 403 \([a-z/]+\)$}m, "$dialect, told $how: the error");
			unlike("$seen\n" . log_part($node, $log), qr/k3y|\\u0033/, "$dialect, told $how: no key");
			$mock->clear_faults;
			$mock->fault(kind => 'status', match => 'query', status => 403, body => $text, count => 1);
			($status, $out, $err) = $node->psql('postgres', q{SELECT quota_manager.gateway_query('told')});
			unlike("$out$err" . log_part($node, $log), qr/k3y|\\u0033/, "$dialect, told $how: nor by hand");
		}
	}
};
$mock->clear_faults;

my $folder;
subtest 'each database can have a directory of keys for itself' => sub {
	$folder = PostgreSQL::Test::Utils::tempdir;
	append_to_file("$folder/own", "$key\n");
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_gateway SET credential = 'file:own'});
	($status, $out, $err) = as('operator', q{SELECT quota_manager.gateway_query('user')});
	like($err, qr/ERROR:  55000: gateway "g" cannot be used: quota_manager\.credential_directory is not set/, 'no directory');
	$node->safe_psql('postgres', "ALTER DATABASE postgres SET quota_manager.credential_directory = '$folder'");
	($status, $out, $err) = as('operator', q{SELECT quota_manager.gateway_query('user')});
	is($out, 0, 'the directory of the database');
	$node->safe_psql('postgres', q{
		ALTER DATABASE postgres RESET quota_manager.credential_directory;
		UPDATE quota_manager.quota_gateway SET credential = 'row:g'});
};

subtest 'a metadata service: neither a row that is written now, nor one that was restored' => sub {
	foreach my $row (q{'m', 'higress', 'http://169.254.169.254', 'x-aws-ec2-metadata-token'}, q{'m', 'higress', 'http://gateway.example', 'Metadata-Flavor'})
	{
		($status, $out, $err) = as('admin', "INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, key_header) VALUES ($row)");
		like($err, qr/ERROR:  22023: invalid (?:URL|key header) of gateway "m"/, "not written: $row");
		$node->safe_psql('postgres', "INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, key_header, create_time) VALUES ($row, '2020-01-01')");
		($status, $out, $err) = as('admin', q{SELECT quota_manager.gateway_query('user', 'm')});
		like($err, qr/ERROR:  55000: gateway "m" cannot be used: (?:its host is a link-local|the key header is neither)/, "not used: $row");
		$node->safe_psql('postgres', q{DELETE FROM quota_manager.quota_gateway WHERE name = 'm'});
	}
};

my $standby;
subtest 'nothing is sent, or logged as sent, where nothing may be changed' => sub {
	$mock->reset;
	my @changes = ("gateway_delta('reader', 5, 'reason')", "gateway_refresh('reader', 5)");
	$node->backup('backup');
	$standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($node, 'backup', has_streaming => 1);
	$standby->start;
	$log = -s $node->logfile;
	foreach my $change (@changes)
	{
		foreach my $how ('BEGIN READ ONLY', 'SET default_transaction_read_only = on', 'BEGIN; SET TRANSACTION READ ONLY',
			q{BEGIN; SAVEPOINT s; SELECT set_config('transaction_read_only', 'on', true)})
		{
			($status, $out, $err) = as('operator', "$how; SELECT quota_manager.$change;");
			like($err, qr/ERROR:  25006: cannot execute gateway_/, "$how: $change");
		}
		($status, $out, $err) = $standby->psql('postgres', "SELECT quota_manager.$change", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
		like($err, qr/ERROR:  25006: cannot execute gateway_\w+\(\) during recovery/, "a standby: $change");
	}
	foreach my $call ('deliver', 'tick')
	{
		grant($node, 'g', 3, "by $call");
		($status, $out, $err) = as('operator', "SET default_transaction_read_only = on; CALL quota_manager.$call();");
		like($err, qr/ERROR:  25006: /, "read-only: $call()");
	}
	foreach my $call ("scan()", "start_workers()", "stop_workers()", "set_credential('g', 'k3y')", "release_balances('g', 'note')", "resume('may_have_run')",
		"resolve(id, true) FROM quota_manager.quota_execute", "retry(id) FROM quota_manager.quota_execute", "cancel(id) FROM quota_manager.quota_execute",
		"import_grants('SELECT NULL::text, NULL::text, NULL::timestamptz')", 'create_access_time_index()', "set_user_source('quota_manager.user_info')",
		"grant_access('operator', 'admin')")
	{
		($status, $out, $err) = $node->psql('postgres', "BEGIN READ ONLY; SELECT quota_manager.$call;", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
		like($err, qr/ERROR:  25006: /, "read-only: $call");
	}
	is_deeply([ $mock->applied ], [], 'the gateway was sent nothing');
	unlike(log_part($node, $log), qr{LOG:  (?:gateway "g"|.*(?:restarted|resumed|released))}, 'and nothing was logged as done');
	is($standby->safe_psql('postgres', q{SELECT quota_manager.gateway_query('reader')}), 0, 'a query changes nothing: on a standby');
};
$standby->stop;

subtest 'what is long does not get into the log, or to the gateway' => sub {
	$log = -s $node->logfile;
	foreach my $call ("gateway_query(repeat('x', 10000000))", "gateway_delta(repeat('x', 10000000), 1, 'r')", "gateway_delta('u', 1, repeat('x', 10000000))",
		"gateway_refresh(repeat('x', 10000000), 1)", "gateway_refresh('u', 1, repeat('x', 10000000))", "gateway_delta('u', ('1' || repeat('0', 100000))::numeric, 'r')",
		"release_balances('g', repeat('x', 10000000))", "resolve(1, true, repeat('x', 10000000))")
	{
		($status, $out, $err) = $node->psql('postgres', "SELECT quota_manager.$call", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
		like($err, qr/ERROR:  (?:22001|22003): /, "refused: $call");
	}
	cmp_ok(length log_part($node, $log), '<', 10_000, 'the log is short');
	is_deeply([ $mock->applied ], [], 'and the gateway was sent nothing');
};

done_testing();
