
# What pg_dump and pg_restore keep: every row and sequence of every table, as it
# was, into another database, in plain and in parallel; but no key.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node add_gateway contents sequences tables);
use Test::More;

my $node = scan_node('dump');

my ($before, $numbers);
subtest 'a database with something in every table, odd values included' => sub {
	add_gateway($node, 'postgres');
	$node->safe_psql('postgres', <<'SQL');
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';
CREATE ROLE operator_role;
CREATE ROLE worker_role;
SELECT grant_access('operator_role', 'operator'), grant_access('worker_role', 'worker');
INSERT INTO quota_gateway (id, name, dialect, base_url, credential, admin_path, state, state_reason, rate_limit)
	VALUES (77, 'second 技术', 'higress', 'https://gateway.example:8443/base', 'row:key', '/quota', 'misconfigured', E'odd\n"reason"\\', 2.5);
INSERT INTO quota_model (model, gateway) VALUES ('whole', 'second 技术'), (E'tab\t and ''quote''', 'gateway');
INSERT INTO quota_credential VALUES ('key', 'top-secret-key');
INSERT INTO quota_worker VALUES ('courier', 'went wrong here', now());
INSERT INTO user_info (id, name, github_star, vip, org, register_time, access_time)
	SELECT 'u' || i, CASE i % 3 WHEN 0 THEN E'line\nbreak' WHEN 1 THEN '张三' END, CASE WHEN i % 2 = 0 THEN 'zgsm, x' END, i % 4, 'org' || i % 5,
		timestamptz '2020-01-01' + i * interval '1 day', now() - i * interval '1 minute' FROM generate_series(1, 200) i;
INSERT INTO user_info (id) VALUES (''''), ('%s'), (E'\\.'), (E'\t'), (repeat('x', 1000));
INSERT INTO user_balance (user_id, gateway, balance, read_time) VALUES ('u1', 'gateway', 3.000001, now()), ('u2', 'gateway', 'NaN', '-infinity');
INSERT INTO balance_suspension VALUES ('gateway', now(), 'all read 0');
INSERT INTO quota_strategy (name, type, amount, model, condition, title) VALUES
	('star', 'single', 20, 'm', 'github-star("zgsm")', E'title\twith tab'),
	('take', 'single', -3, 'whole', 'is-vip(3) and not belong-to("org1", "a ""quoted"" one")', ''),
	('low', 'single', 0.000001, 'm', 'quota-le("m", 10)', ''),
	('nobody', 'single', 1, 'm', 'false()', '');
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, time_zone, max_exec_per_user, catch_up, valid_until) VALUES
	('daily', 'periodic', 5, 'm', 'CRON_TZ=Asia/Shanghai 30 16 * * MON-SUN', 'true()', 'America/New_York', 3, 'all', '2030-01-01');
INSERT INTO quota_ceiling (strategy_id, period, max_grants, max_amount, on_excess, time_zone, note) VALUES (NULL, 'day', 100000, NULL, 'cut', 'Asia/Shanghai', E'odd\n"note"\\'),
	((SELECT id FROM quota_strategy WHERE name = 'take'), 'total', NULL, 4000.5, 'refuse', 'UTC', ''), (NULL, 'run', 5000, 99999, 'refuse', 'UTC', '');
SELECT count(*) FROM scan();
SET quota_manager.schedule_clock = '2025-07-01 08:30:00+00';
SELECT count(*) FROM scan();
SELECT count(*) FROM scan();
SELECT count(*) FROM import_grants($$VALUES ('nobody', 'imported', timestamptz '2020-01-01')$$);
-- What a restored row must not get from a trigger: new times, a new version.
UPDATE quota_strategy SET title = title || ' edited' WHERE name IN ('star', 'low');
UPDATE quota_strategy SET enabled = false WHERE name = 'low';
UPDATE quota_strategy SET archived = true WHERE name = 'take';
UPDATE quota_execute SET status = (ARRAY['pending', 'processing', 'completed', 'failed', 'in_doubt', 'cancelled'])[id % 6 + 1], claim_number = id % 3,
	last_error = CASE WHEN id % 7 = 0 THEN E'said "no"\n\\' END, last_status = 503, next_attempt_time = CASE WHEN id % 2 = 0 THEN now() ELSE '-infinity' END;
SELECT quota_internal.recount_grants();
SELECT resolve(array_agg(id), true, E'why\nnot \\ "so"') FROM quota_execute WHERE status = 'in_doubt' AND user_id < 'u15';
SELECT count(*) FROM reverse_grants((SELECT array_agg(e.id) FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id WHERE s.name = 'star' AND e.user_id < 'u12'), E'back\nagain');
INSERT INTO bulk_call (key, user_id, value, reason, gateway, state) VALUES (E'odd\n"key"', 'u1', -1.5, '', 'gateway', 'waiting'), ('k', 'u1', 2, 'x', 'gateway', 'in_doubt');
INSERT INTO bulk_call (key, user_id, value, reason, gateway, state) VALUES ('k', 'u2', 2, 'x', 'gateway', 'in_doubt');
SELECT resolve_bulk('k', ARRAY['u2'], true, E'why\nnot \\ "so"');
INSERT INTO pruned_grant SELECT s.id, 'u1', 'gateway', 3, 2, 10, now(), 2, 10, now(), now(), NULL FROM quota_strategy s WHERE s.name = 'daily';
INSERT INTO pruned_run (strategy_id, runs, grants, prune_time, role) SELECT s.id, 3, 3, now(), 'r' FROM quota_strategy s WHERE s.name = 'daily';
UPDATE quota_installation SET workers_enabled = false, doubtful_until = '2020-01-01 UTC', doubtful_firing = '2020-01-02 UTC',
	former_ids = '[{"id": "00000000-0000-0000-0000-000000000000", "before_grant": 1}]';
INSERT INTO gateway_call (role, action, gateway, user_id, amount, reason, outcome, message) VALUES ('r', 'delta', 'gateway', 'u1', -5, E'why\nnot', 'applied', NULL);
CREATE VIEW public.people AS SELECT * FROM quota_manager.user_info WHERE vip > 0;
SELECT count(*) FROM set_user_source('public.people');
SQL

	$before = contents($node, 'postgres');
	$numbers = sequences($node, 'postgres');
	foreach my $table (tables($node, 'postgres'))
	{
		isnt($before->{$table}, '', "$table has rows to lose");
	}
	unlike($numbers, qr/unused/, 'every sequence has been used');
};

my $folder = $node->backup_dir;
mkdir $folder;

subtest 'plain' => sub {
	command_ok(
		[ 'pg_dump', '--file', "$folder/plain.sql", $node->connstr('postgres') ],
		'pg_dump');
	unlike(slurp_file("$folder/plain.sql"), qr/top-secret-key/, 'no key in the dump');
	$node->safe_psql('postgres', 'CREATE DATABASE plain TEMPLATE template0');
	restored('plain',
		[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$folder/plain.sql", $node->connstr('plain') ]);
};

subtest 'rows as INSERT, which other tools than ours may write' => sub {
	command_ok(
		[ 'pg_dump', '--inserts', '--file', "$folder/inserts.sql", $node->connstr('postgres') ],
		'pg_dump --inserts');
	$node->safe_psql('postgres', 'CREATE DATABASE inserts TEMPLATE template0');
	restored('inserts',
		[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$folder/inserts.sql", $node->connstr('inserts') ]);
};

subtest 'custom format, restored by several at once' => sub {
	command_ok(
		[ 'pg_dump', '--format=custom', '--file', "$folder/custom", $node->connstr('postgres') ],
		'pg_dump --format=custom');
	$node->safe_psql('postgres', 'CREATE DATABASE parallel TEMPLATE template0');
	restored('parallel',
		[ 'pg_restore', '--exit-on-error', '--jobs=4', '--dbname', $node->connstr('parallel'), "$folder/custom" ]);
};

# On a server that allows other hosts the gateways are there all the same.
$node->append_conf('postgresql.conf', "quota_manager.allowed_hosts = 'other.example'");
$node->reload;
$node->safe_psql('postgres', 'CREATE DATABASE elsewhere TEMPLATE template0');
restored('elsewhere',
	[ 'pg_restore', '--exit-on-error', '--dbname', $node->connstr('elsewhere'), "$folder/custom" ]);
$node->append_conf('postgresql.conf', "quota_manager.allowed_hosts = ''");
$node->reload;

subtest 'the restored database goes on where the other stopped, once it is told to.  Its users are in a view: not as a superuser' => sub {
	$node->safe_psql('postgres', 'CREATE ROLE scanner IN ROLE pg_read_all_data');
	foreach my $database ('plain', 'parallel')
	{
		my (undef, undef, $error) = $node->psql($database, 'SELECT * FROM quota_manager.scan()');

		like($error, qr/ERROR:  this database is a copy/, "$database: it stands still");
		$node->safe_psql($database, q{SELECT quota_manager.resume('unchanged_since_dump'), quota_manager.grant_access('scanner', 'worker')});
		is($node->safe_psql($database, <<'SQL'), '0|1', "$database: nobody is paid again");
SET quota_manager.schedule_clock = '2025-07-02 08:30:00+00';
UPDATE quota_manager.quota_strategy SET max_exec_per_user = 1 WHERE name = 'daily';
SET ROLE scanner;
CREATE TEMPORARY TABLE result AS SELECT * FROM quota_manager.scan();
RESET ROLE;
SELECT (SELECT granted FROM result WHERE strategy = 'star' AND error IS NULL), max(grants) FROM (
	SELECT count(*) AS grants FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
	WHERE s.name = 'daily' AND e.status <> 'cancelled' GROUP BY e.user_id) per_user;
SQL
		is( $node->safe_psql($database, <<'SQL'), 't', "$database: new numbers do not collide");
INSERT INTO quota_manager.user_info (id, github_star, vip) VALUES ('new', 'zgsm', 1);
SET ROLE scanner;
SELECT bool_and(granted = 1) FROM quota_manager.scan('star');
SQL
		is( $node->safe_psql(
				$database,
				q{SELECT has_column_privilege('operator_role', 'quota_manager.quota_strategy', 'amount', 'UPDATE'),
					has_table_privilege('operator_role', 'quota_manager.quota_credential', 'SELECT'),
					has_function_privilege('operator_role', 'quota_manager.scan(text)', 'EXECUTE'),
					has_function_privilege('public', 'quota_manager.scan(text)', 'EXECUTE')}),
			't|f|t|f',
			"$database: rights are kept");
	}
};

$node->stop;
done_testing();

# Runs a restore into a database and compares what is there.
sub restored
{
	my ($database, $command) = @_;
	my $after;

	command_ok($command, "restore into $database");
	$after = contents($node, $database);
	is_deeply([ sort keys %$after ], [ sort keys %$before ], "$database: the same tables");
	foreach my $table (sort keys %$before)
	{
		is($after->{$table}, $before->{$table}, "$database: the rows of $table");
	}
	is(sequences($node, $database), $numbers, "$database: the sequences");
	is($node->safe_psql($database, 'SELECT count(*) FROM quota_manager.quota_credential'),
		0, "$database: no key");
	is($node->safe_psql($database, 'SELECT count(*) FROM quota_manager.quota_worker'),
		0, "$database: nothing has gone wrong yet");
	return;
}
