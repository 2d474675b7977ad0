
# Who may preview what, and what cannot be done with it; the view subject over sources of the site, also after a dump is
# restored and when the relation is gone; that what docs/preview.md prints is what there is.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node add_gateway);
use Test::More;

my $node = scan_node('preview_rights');
my $folder = $node->backup_dir;
mkdir $folder;

sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]); }

# The answer of a session as a role, or its error.
sub as
{
	my ($role, $statements, $database) = @_;
	my ($code, $out, $err) = $node->psql($database // 'postgres', "SET SESSION AUTHORIZATION $role; SET search_path = quota_manager; $statements");

	return $code == 0 ? $out : $err =~ /ERROR:\s+(.*)/ ? "ERROR: $1" : $err;
}

add_gateway($node, 'postgres');
sql(<<'SQL');
CREATE ROLE viewer; CREATE ROLE operator; CREATE ROLE admin; CREATE ROLE worker; CREATE ROLE stranger; CREATE ROLE mallory;
SELECT quota_manager.grant_access(r::regrole, r) FROM unnest(ARRAY['viewer', 'operator', 'admin', 'worker']) r;
INSERT INTO quota_manager.user_info (id, vip, org) SELECT 'user' || n, n % 4, 'org' || n % 10 FROM generate_series(1, 100) n;
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES
	('vip', 'single', 5, 'm', 'is-vip(2)'), ('secret', 'single', 7, 'm', 'is-vip(3)');
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, periodic_expr) VALUES ('daily', 'periodic', 1, 'm', 'true()', '@daily');
SQL

my $counts = q{SELECT reason, users, amount FROM preview('vip')};

subtest 'who may' => sub {
	is(as($_, $counts), 'granted|50|250', "a role of level $_ previews") foreach qw(viewer operator admin worker);
	is(as('viewer', q{SELECT string_agg(user_id, ' ') FROM preview_users('vip', n => 3)}), 'user10 user11 user14', 'and lists');
	is(as('viewer', q{SELECT count(*) FROM forecast(n => 2)}), 4, 'and forecasts');
	is(as('viewer', q{SELECT users FROM preview(condition => 'belong-to("org1")')}), 10, 'and tries a condition');
	is(as('viewer', q{SELECT users, amount FROM preview('vip', changes => '{"condition": "is-vip(3)", "amount": 2}')}), '25|50', 'and an edit that it may not make');
	like(as('viewer', q{UPDATE quota_strategy SET amount = 2}), qr/permission denied/, 'which it may not');
	like(as('stranger', $counts), qr/ERROR: function preview\(unknown\) does not exist|permission denied/, 'nobody else does');
	like(as('viewer', "SELECT * FROM quota_internal.$_"), qr/permission denied for function/, "not by the back: $_")
	  foreach q{preview_counts((SELECT s FROM quota_strategy s LIMIT 1), '-infinity', true, NULL, NULL, 0)},
	  q{preview_page((SELECT s FROM quota_strategy s LIMIT 1), '-infinity', true, NULL, NULL, 'admitted', NULL, 5)},
	  q{forecast_demand((SELECT s FROM quota_strategy s LIMIT 1), '{NULL}')};
};

subtest 'what the site hides' => sub {
	sql(q{ALTER TABLE quota_manager.quota_strategy ENABLE ROW LEVEL SECURITY;
		CREATE POLICY open ON quota_manager.quota_strategy USING (name <> 'secret' OR current_user <> 'viewer')});
	is(as('viewer', q{SELECT * FROM preview('secret')}), 'ERROR: strategy "secret" does not exist', 'a hidden strategy does not exist');
	is(as('viewer', q{SELECT * FROM preview_users('secret')}), 'ERROR: strategy "secret" does not exist', 'not in lists');
	is(as('viewer', q{SELECT * FROM forecast(strategy => 'secret')}), 'ERROR: strategy "secret" does not exist', 'not in forecasts');
	is(as('viewer', q{SELECT string_agg(DISTINCT strategy_name, ' ') FROM forecast()}), 'daily vip', 'nor among all');
	is(as('operator', q{SELECT users FROM preview('secret')}), 25, 'others see it');
	sql(q{DROP POLICY open ON quota_manager.quota_strategy; ALTER TABLE quota_manager.quota_strategy DISABLE ROW LEVEL SECURITY;
		ALTER TABLE quota_manager.user_info ENABLE ROW LEVEL SECURITY;
		CREATE POLICY few ON quota_manager.user_info USING (vip < 3 OR current_user <> 'viewer')});
	is(as('viewer', $counts), 'granted|25|125', 'users who are hidden are not counted, as in a scan of the role');
	is(as('operator', $counts), 'granted|50|250', 'others are shown them');
	sql(q{DROP POLICY few ON quota_manager.user_info; ALTER TABLE quota_manager.user_info DISABLE ROW LEVEL SECURITY});
};

subtest 'code of others' => sub {
	sql(<<'SQL');
CREATE SCHEMA mallory AUTHORIZATION mallory;
GRANT USAGE ON SCHEMA mallory TO PUBLIC;
GRANT CREATE, USAGE ON SCHEMA quota_condition TO mallory;
GRANT USAGE ON SCHEMA quota_manager TO mallory;
SET ROLE mallory;
CREATE FUNCTION mallory.escape() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RESET ROLE; RETURN true; END $$;
CREATE FUNCTION mallory.write() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN DELETE FROM quota_manager.quota_strategy; RETURN true; END $$;
CREATE FUNCTION mallory.again() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT count(*) > 0 FROM quota_manager.preview(condition => 'true()')); END $$;
CREATE FUNCTION mallory.path() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('search_path', 'mallory', false); RETURN true; END $$;
CREATE FUNCTION quota_condition.who(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RETURN current_user = 'viewer'; END $$;
DO $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY ARRAY['escape', 'write', 'again', 'path'] LOOP
		EXECUTE format('CREATE FUNCTION quota_condition.%1$I(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS %2$L',
			name, format('BEGIN RETURN mallory.%I(); END', name));
	END LOOP;
END
$$;
RESET ROLE;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA quota_condition TO PUBLIC;
SQL
	is(as('viewer', q{SELECT users FROM preview(condition => 'who()')}), 100, 'a condition runs as who asks');
	like(as('viewer', q{SELECT * FROM preview(condition => 'escape()')}), qr/cannot set parameter "role"|security-restricted/, 'and cannot become another role');
	like(as('viewer', q{SELECT * FROM preview(condition => 'write()')}), qr/cannot execute DELETE in a read-only transaction/, 'nor write, be it what the role may write');
	is(sql('SELECT count(*) FROM quota_manager.quota_strategy'), 3, 'nothing was written');
	like(as('viewer', q{SELECT * FROM preview(condition => 'again()')}), qr/cannot be asked for this within a security-restricted operation/, 'nor preview by itself');
	is(as('viewer', q{SELECT users FROM preview(condition => 'path()'); SHOW search_path}), "100\nquota_manager", 'a setting that it changes is as before');
	is(as('viewer', q{SELECT users FROM preview('vip', changes => '{"condition": "who()"}')}), 100, 'the same in an edit');
	like(sql(q{SELECT coalesce((SELECT 'x' FROM quota_manager.preview(condition => 'is-vip(2)')), '')}), qr/x/, 'a superuser runs what is built in');
	my ($code, $out, $err) = $node->psql('postgres', q{SELECT * FROM quota_manager.preview(condition => 'who()')});
	like($err, qr/code that others have written is not run as role "postgres"/, 'and nothing else');
};

subtest 'nothing is written' => sub {
	my $call = q{SELECT count(*) FROM quota_manager.preview('vip'); SELECT count(*) FROM quota_manager.preview('daily', changes => '{"amount": 3}');
		SELECT count(*) FROM quota_manager.preview(condition => 'is-vip(1)'); SELECT count(*) FROM quota_manager.preview_users('vip', n => 3);
		SELECT count(*) FROM quota_manager.forecast(n => 3)};
	my $before = sql('SELECT pg_snapshot_xmax(pg_current_snapshot())');

	is(sql("BEGIN READ ONLY; $call; COMMIT"), "1\n1\n1\n3\n5", 'in a transaction that is read-only');
	is(sql("BEGIN; $call; SELECT pg_current_xact_id_if_assigned() IS NULL; COMMIT"), "1\n1\n1\n3\n5\nt", 'a transaction gets no number');
	is(sql('SELECT pg_snapshot_xmax(pg_current_snapshot())'), $before, 'and no other did');
	is(sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1; $call; COMMIT"), "1\n1\n1\n1\n3\n5", 'at any isolation level');
	is(sql(q{BEGIN; UPDATE quota_manager.quota_strategy SET condition = 'false()' WHERE name = 'vip';
		SELECT users FROM quota_manager.preview('vip'); ROLLBACK; SELECT users FROM quota_manager.preview('vip')}), "0\n50", 'an edit that is not committed is seen by who made it');
};

subtest 'on a standby' => sub {
	$node->append_conf('postgresql.conf', "wal_level = replica\nmax_wal_senders = 5\nhot_standby = on\n");
	$node->restart;
	$node->backup('base');
	my $standby = PostgreSQL::Test::Cluster->new('preview_standby');
	$standby->init_from_backup($node, 'base', has_streaming => 1);
	$standby->start;
	is($standby->safe_psql('postgres', q{SELECT users FROM quota_manager.preview('vip'); SELECT users FROM quota_manager.preview('daily', changes => '{"condition": "is-vip(3)"}');
		SELECT count(*) FROM quota_manager.preview_users('vip', n => 3); SELECT count(*) FROM quota_manager.forecast(n => 3)}), "50\n25\n3\n5", 'all of it works');
	$standby->stop;
};

subtest 'docs/preview.md prints what there is' => sub {
	my $page = slurp_file("$FindBin::RealBin/../../docs/preview.md");

	sql('CREATE DATABASE docs');
	sql(<<'SQL', 'docs');
CREATE EXTENSION quota_manager;
ALTER DATABASE docs SET quota_manager.schedule_clock = '2025-06-06 12:00:00+00';
ALTER DATABASE docs SET quota_manager.default_strategy_state = 'draft';
SET quota_manager.schedule_clock = '2025-06-06 12:00:00+00';
INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('gateway', 'zgsm', 'http://127.0.0.1:9', true);
INSERT INTO quota_manager.user_info (id, vip, github_star) SELECT to_char(n, '"user"FM0000'), n % 4, CASE WHEN n % 10 = 1 THEN 'zgsm' END FROM generate_series(1, 900) n;
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, enabled) VALUES ('vip-once', 'single', 20, 'gpt-4', 'is-vip(3)', true);
SELECT FROM quota_manager.scan();
INSERT INTO quota_manager.user_info (id, vip) SELECT to_char(n, '"user"FM0000'), n % 4 FROM generate_series(901, 1000) n;
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, enabled) VALUES ('welcome', 'single', 50, 'gpt-4', 'true()', false);
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, periodic_expr, max_exec_per_user, enabled) VALUES
	('vip-daily', 'periodic', 10, 'gpt-4', 'is-vip(2)', '0 8 * * *', NULL, true),
	('trial', 'periodic', 5, 'o3', 'github-star("zgsm")', '30 9 * * 1', 2, true);
SQL
	my $examples = 0;
	while ($page =~ /```sql\n(.*?)```\n```\n(.*?)```\n/gs)
	{
		my ($statements, $expected) = ($1, $2);
		my ($out, $err) = run_command([ 'psql', '-X', '-q', '-v', 'SHOW_CONTEXT=never', $node->connstr('docs'), map { ('-c', $_) } grep { /\S/ } split /;\n/, $statements ]);

		$out = join "\n", grep { $_ ne '' } $out, $err =~ s/^psql:[^ ]* //gmr;
		s/\n\n+/\n/g, s/[ \n]+\z//, s/ +$//gm foreach $out, $expected;
		is($out, $expected, $statements =~ s/\n.*//sr);
		$examples++;
		print {*STDERR} "<<<$statements>>>\n$out\n" if $ENV{QUOTA_MANAGER_PRINT_EXAMPLES};
	}
	cmp_ok($examples, '>=', 7, 'so many examples');
};

# A table of the site, with names of its own, and a view over it.
sql(<<'SQL');
CREATE SCHEMA crm;
CREATE TABLE crm.people (uid text PRIMARY KEY, team text, level integer);
INSERT INTO crm.people SELECT 'p' || n, 'team' || n % 1000, n % 7 FROM generate_series(1, 20000) n;
CREATE INDEX ON crm.people (team);
CREATE VIEW crm.subjects AS SELECT uid AS id, team AS org, level AS vip FROM crm.people;
ANALYZE crm.people;
SQL
my $all = q{SELECT count(*), count(s.org), count(s.name) FROM subject s};

subtest 'subject over sources' => sub {
	is(as('viewer', $all), '100|100|0', 'its own users');
	my $columns = q{SELECT string_agg(attname || ' ' || atttypid::regtype, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'quota_manager.subject'::regclass AND attnum > 0};
	my $before = sql($columns);
	sql(q{SELECT FROM quota_manager.set_user_source('crm.subjects')});
	is(sql($columns), $before, 'the row type stays');
	is(sql(q{SELECT reloptions FROM pg_class WHERE oid = 'quota_manager.subject'::regclass}), '{security_invoker=true}', 'and whose rights count');
	like(as('viewer', $all), qr/permission denied for schema crm/, 'who may not read the source');
	sql('GRANT USAGE ON SCHEMA crm TO viewer');
	like(as('viewer', $all), qr/permission denied for view subjects/, 'is told what is missing');
	sql('GRANT SELECT ON crm.subjects TO viewer');
	is(as('viewer', $all), '20000|20000|0', 'and who may sees the users of the site');
	is(as('viewer', q{SELECT count(*) FROM subject s WHERE s OPERATOR(quota_manager.@@) 'belong-to("team5") and is-vip(1)'}),
		sql(q{SELECT count(*) FROM crm.people WHERE team = 'team5' AND level >= 1}), 'conditions are about them');
	like(sql(q{EXPLAIN (COSTS off) SELECT s.id FROM quota_manager.subject s WHERE s OPERATOR(quota_manager.@@) 'belong-to("team5")'}), qr/Index Cond: \(team = ANY/, 'and use the indexes');
	unlike(sql(q{EXPLAIN (COSTS off) SELECT s.id FROM quota_manager.subject s WHERE s OPERATOR(quota_manager.@@) 'belong-to("team5")'}), qr/user_balance/, 'balances are left out where none asks');
	is(sql(q{INSERT INTO quota_manager.user_balance (user_id, gateway, balance) VALUES ('p7', 'gateway', 3);
		SELECT s.id, s.balances FROM quota_manager.subject s WHERE s OPERATOR(quota_manager.@@) 'quota-le("m", 5)'}), 'p7|{"gateway": 3}', 'and there where one does');
	is(as('viewer', q{SELECT users FROM preview(condition => 'belong-to("team5") and is-vip(1)')}),
		sql(q{SELECT count(*) FROM quota_manager.subject s WHERE s OPERATOR(quota_manager.@@) 'belong-to("team5") and is-vip(1)'}), 'a preview sees the same');
	is(sql(q{SELECT count(*) FROM pg_depend d WHERE d.refobjid = 'crm.subjects'::regclass AND d.classid = 'pg_proc'::regclass}), 0, 'nothing of the extension depends on it');
	sql(q{ALTER TABLE crm.people ADD COLUMN name text DEFAULT 'n'; CREATE OR REPLACE VIEW crm.subjects AS SELECT uid AS id, team AS org, level AS vip, name FROM crm.people;
		SELECT FROM quota_manager.set_user_source('crm.subjects')});
	is(as('viewer', $all), '20000|20000|20000', 'a column that it gets is there when it is set again');
	sql(q{PREPARE p AS SELECT count(*) FROM quota_manager.subject; EXECUTE p; SELECT FROM quota_manager.set_user_source(); EXECUTE p;
		SELECT FROM quota_manager.set_user_source('crm.subjects')});
};

subtest 'a session that has planned it sees a change' => sub {
	my $session = $node->background_psql('postgres');
	$session->query_safe('PREPARE p AS SELECT count(*) FROM quota_manager.subject');
	like($session->query_safe('EXECUTE p'), qr/^20000$/m, 'the users of the site');
	sql(q{SELECT FROM quota_manager.set_user_source()});
	like($session->query_safe('EXECUTE p'), qr/^100$/m, 'its own');
	sql(q{SELECT FROM quota_manager.set_user_source('crm.subjects')});
	like($session->query_safe('EXECUTE p'), qr/^20000$/m, 'and those of the site again');
	$session->quit;
};

subtest 'after a dump is restored' => sub {
	foreach my $format ('plain', 'custom')
	{
		my $database = "restored_$format";

		command_ok([ 'pg_dump', '--format', $format, '--file', "$folder/$format", $node->connstr('postgres') ], "pg_dump, $format");
		sql("CREATE DATABASE $database TEMPLATE template0");
		command_ok($format eq 'plain' ? [ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$folder/$format", $node->connstr($database) ]
			: [ 'pg_restore', '--jobs', 2, '--exit-on-error', '--dbname', $node->connstr($database), "$folder/$format" ], 'and its restore');
		is(as('viewer', $all, $database), '20000|20000|20000', 'subject shows the users of the site');
		like(sql(q{EXPLAIN (COSTS off) SELECT s.id FROM quota_manager.subject s WHERE s.id = 'p5'}, $database), qr/Index/, 'by its indexes');
	}
	# Whoever restores without triggers resumes the copy.
	sql('CREATE DATABASE quiet TEMPLATE template0');
	command_ok([ 'pg_restore', '--section', 'pre-data', '--dbname', $node->connstr('quiet'), "$folder/custom" ], 'restore of what data is kept in');
	command_ok([ 'pg_restore', '--data-only', '--disable-triggers', '--dbname', $node->connstr('quiet'), "$folder/custom" ], 'and of data without triggers');
	is(as('viewer', $all, 'quiet'), '100|100|0', 'subject does not know of the source');
	sql(q{UPDATE quota_manager.quota_installation SET system_identifier = 1, database_oid = 1, timeline = 1; SELECT FROM quota_manager.resume('unchanged_since_dump')}, 'quiet');
	is(as('viewer', $all, 'quiet'), '20000|20000|20000', 'until the copy is resumed');
};

subtest 'the relation changes hands, or is gone' => sub {
	sql('GRANT USAGE ON SCHEMA crm TO mallory; GRANT SELECT ON crm.people TO mallory; ALTER VIEW crm.subjects OWNER TO mallory');
	like(as('viewer', $all), qr/user source crm.subjects belongs to role "mallory" now/, 'another owner');
	sql(q{ALTER VIEW crm.subjects OWNER TO postgres});
	is(as('viewer', $all), '20000|20000|20000', 'the former owner');
	sql('DROP TABLE crm.people CASCADE');
	is(sql(q{SELECT count(*) FROM pg_extension WHERE extname = 'quota_manager'}), 1, 'the extension stays');
	like(as('viewer', $all), qr/relation "crm.subjects" does not exist/, 'and subject says what is missing');
	like(as('viewer', q{SELECT * FROM preview('vip')}), qr/user source crm.subjects does not exist/, 'so does a preview');
	sql(q{SELECT FROM quota_manager.set_user_source()});
	is(as('viewer', $all), '100|100|0', 'and its own users are back');
};

$node->stop;
done_testing();
