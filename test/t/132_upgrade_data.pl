
# An update from 1.0.0 of a database that is full: every row stays as it was, and so does everything of a site that
# depends on the extension; no table is rewritten; nothing is granted twice, and what was pending is delivered.  The same
# of a dump that is restored into the newest version.
#
# QUOTA_MANAGER_LONG=1  a million grants; otherwise 100,000

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Catalogue qw(catalogue differences);
use QuotaTest::ScanNode qw(scan_node sequences tables);
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time);

my $bulk = $ENV{QUOTA_MANAGER_LONG} ? 1_000_000 : 100_000;
my $gateway = QuotaTest::Workers::gateway();
my $node = scan_node('upgrade_data', "shared_preload_libraries = 'quota_manager'\nquota_manager.workers = off\nmax_wal_size = 4GB\n");
my @levels = ('viewer', 'operator', 'admin', 'worker');

$node->safe_psql('postgres', "CREATE ROLE a_$_") foreach @levels;
$node->safe_psql('postgres', 'CREATE DATABASE old');
$node->safe_psql('old', q{CREATE EXTENSION quota_manager VERSION '1.0.0'});

# Something in every table.
$node->safe_psql('old', <<"SQL");
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';
@{[ map { "SELECT grant_access('a_$_', '$_');" } @levels ]}
INSERT INTO quota_gateway (name, dialect, base_url, is_default, sole_writer, doubt_policy) VALUES
	('gateway', 'higress', '$gateway->{url}', true, true, 'reconcile'), ('nobody there', 'zgsm', 'http://127.0.0.1:9', false, false, 'hold');
INSERT INTO quota_model (model, gateway) VALUES ('far', 'nobody there');
INSERT INTO quota_credential VALUES ('key', 'top-secret-key');
INSERT INTO quota_worker VALUES ('courier', 'went wrong here', now());
INSERT INTO user_info (id, name, github_star, vip, org, register_time, access_time)
	SELECT 'u' || i, CASE i % 3 WHEN 0 THEN E'line\\nbreak' WHEN 1 THEN '张三' END, CASE WHEN i % 2 = 0 THEN 'zgsm, x' END, i % 4, 'org' || i % 5,
		timestamptz '2020-01-01' + i * interval '1 day', now() - i * interval '1 minute' FROM generate_series(1, 60) i;
INSERT INTO user_balance (user_id, gateway, balance, read_time) VALUES ('u1', 'nobody there', 3.5, now()), ('u2', 'gateway', 'NaN', '-infinity');
INSERT INTO balance_suspension VALUES ('nobody there', now(), 'all read 0');
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES
	('star', 'single', 20, 'm', 'github-star("zgsm")'), ('take', 'single', -3, 'far', 'is-vip(3) and not belong-to("org1", "a ""quoted"" one")'),
	('low', 'single', 0.000001, 'far', 'quota-le("far", 10)'), ('off', 'single', 1, 'm', 'true()'), ('past', 'single', 1, 'm', 'true()');
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, time_zone, max_exec_per_user, catch_up, valid_until) VALUES
	('daily', 'periodic', 5, 'm', 'CRON_TZ=Asia/Shanghai 30 16 * * MON-SUN', 'true()', 'America/New_York', 3, 'all', '2030-01-01'),
	('failing', 'periodic', 5, 'm', '0 * * * *', 'is-vip(1)', 'UTC', NULL, 'latest', 'infinity');
SELECT count(*) FROM scan();
SET quota_manager.schedule_clock = '2025-07-01 08:30:00+00';
SELECT count(*) FROM scan();
UPDATE quota_strategy SET enabled = false WHERE name = 'off';
UPDATE quota_strategy SET archived = true, enabled = false WHERE name = 'past';
UPDATE quota_strategy SET enabled = false WHERE name IN ('low', 'take');
SELECT count(*) FROM import_grants(\$\$VALUES ('off', 'imported', timestamptz '2020-01-01')\$\$);
INSERT INTO quota_run (strategy_id, scheduled_time, state, reason, start_time, finish_time)
	SELECT id, timestamptz '2025-01-01' + i * interval '1 h', (ARRAY['done', 'skipped'])[i], 'for a reason', now(), now()
	FROM quota_strategy, generate_series(1, 2) i WHERE name = 'failing';
-- A grant in each state, of those that the gateway is not to get.
UPDATE quota_execute SET status = (ARRAY['completed', 'failed', 'in_doubt', 'cancelled'])[id % 4 + 1], claim_number = id % 3, last_status = 503,
	doubt_time = CASE id % 4 WHEN 2 THEN now() END, next_attempt_time = CASE id % 4 WHEN 2 THEN timestamptz 'infinity' ELSE '-infinity' END,
	last_error = CASE WHEN id % 7 = 0 THEN E'said "no"\\n\\\\' END WHERE run_id IS NOT NULL AND user_id < 'u30';
SELECT resolve(array_agg(id), true, E'why\\nnot "so"') FROM quota_execute WHERE status = 'in_doubt' AND user_id < 'u15';
INSERT INTO gateway_call (role, action, gateway, user_id, amount, reason, outcome, message) VALUES ('r', 'delta', 'gateway', 'u1', -5, E'why\\nnot', 'applied', NULL);

-- What others make of it.
CREATE SCHEMA site;
CREATE VIEW site.paid AS SELECT user_id, sum(amount) AS amount FROM quota_execute WHERE status = 'completed' GROUP BY user_id;
CREATE VIEW site.stars AS SELECT s.id FROM subject s WHERE s @@ 'github-star("zgsm")';
CREATE VIEW site.state AS SELECT g, d.pending FROM quota_gateway g LEFT JOIN delivery_status d ON d.gateway = g.name;
CREATE MATERIALIZED VIEW site.seen AS SELECT id, vip FROM user_info;
CREATE TABLE site.rule (who condition NOT NULL DEFAULT 'true()', at cron DEFAULT '0 8 * * *', strategy integer REFERENCES quota_strategy (id), CHECK (who <> 'false()'));
INSERT INTO site.rule (who, strategy) SELECT condition, id FROM quota_strategy;
CREATE UNIQUE INDEX rule_who ON site.rule (who, strategy);
CREATE INDEX rule_first ON site.rule (describe(at)) WHERE who <> 'is-vip(7)';
CREATE INDEX site_star ON user_info USING gin (star_list(github_star));
CREATE INDEX site_run ON quota_execute (run_id) WHERE status = 'failed';
CREATE FUNCTION site.balances(who text) RETURNS numeric LANGUAGE sql STABLE BEGIN ATOMIC SELECT count(*) FROM quota_manager.known_balance b WHERE b.user_id = who; END;
CREATE FUNCTION site.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER site_note AFTER UPDATE ON quota_strategy FOR EACH ROW EXECUTE FUNCTION site.note();
CREATE POLICY site_paid ON quota_execute FOR SELECT TO a_viewer USING (user_id <> 'u3');
ALTER TABLE quota_execute ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION quota_condition.site_lucky(s subject) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN s.id = 'u7';
SQL

my (%columns, $before, $numbers, $files, $definitions);
subtest 'a past that nobody looks at' => sub {
	$node->safe_psql('old', <<"SQL");
INSERT INTO quota_manager.quota_execute (strategy_id, user_id, scheduled_time, strategy_version, amount, model, gateway, batch_number, status, create_time, update_time)
	SELECT id, 'past' || i, '-infinity', 1, 1, 'm', 'gateway', '', 'completed', '2024-01-01 UTC', '2024-01-01 UTC'
	FROM quota_manager.quota_strategy, generate_series(1, $bulk) i WHERE name = 'past';
VACUUM ANALYZE quota_manager.quota_execute;
SQL

	%columns = map { split /=/ } split /\n/, $node->safe_psql('old', <<'SQL');
SELECT c.relname || '=' || string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'quota_manager'::regnamespace AND c.relkind = 'r' GROUP BY c.relname
SQL
	$before = rows('old');
	$numbers = sequences($node, 'old');
	$files = files();
	$definitions = definitions('old');

	foreach my $table (tables($node, 'old'))
	{
		isnt($before->{$table}, '', "$table has rows to lose");
	}
	is($node->safe_psql('old', q{SELECT string_agg(DISTINCT status, ' ' ORDER BY status) FROM quota_manager.quota_execute}),
		'cancelled completed failed in_doubt pending', 'grants in each state that lasts');
};

# A dump of 1.0.0 does not name the version.
my $dump = $node->backup_dir . '/old';
mkdir $node->backup_dir;
command_ok([ 'pg_dump', '--format=custom', '--file', $dump, $node->connstr('old') ], 'pg_dump of 1.0.0');

subtest 'the update' => sub {
	my $since = time();
	$node->safe_psql('old', 'ALTER EXTENSION quota_manager UPDATE');
	my $took = time() - $since;
	cmp_ok($took, '<', 30, sprintf 'an update with %d grants (%.2f s)', $bulk, $took);
	is(files(), $files, 'no table or index was rewritten');
	same_rows('old');
	like((run_command([ 'pg_dump', '--schema-only', $node->connstr('old') ]))[0], qr/GRANT USAGE ON SCHEMA $_ TO a_viewer/, "a dump keeps the rights of roles in $_")
	  foreach 'quota_manager', 'quota_internal';
	is(definitions('old'), $definitions, 'what a site has made is as it was');
	site_works('old');
	works_on('old', sub { });
};

subtest 'restored into the newest version' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
	command_ok([ 'pg_restore', '--exit-on-error', '--dbname', $node->connstr('restored'), $dump ], 'restored');
	same_rows('restored', 'quota_credential', 'quota_worker');
	is(definitions('restored') =~ s/\n.*site_(?:star|run|paid|note)\b.*//gr, $definitions =~ s/\n.*site_(?:star|run|paid|note)\b.*//gr, 'restored: what a site has made beside our tables');
	$gateway->ask('reset', {});
	works_on('restored', sub { $node->safe_psql('restored', q{SELECT quota_manager.resume('unchanged_since_dump')}) });
};

# Without what the site has made, and with the rights that 1.1.0 gives, both are what a fresh one is.
$node->safe_psql('postgres', 'CREATE DATABASE fresh TEMPLATE template0');
$node->safe_psql('fresh', 'CREATE EXTENSION quota_manager');
grant_rights('fresh');
my $fresh = catalogue($node, 'fresh');
foreach my $database ('old', 'restored')
{
	my @differences;

	$node->safe_psql($database, <<'SQL');
DROP SCHEMA site CASCADE;
DROP FUNCTION quota_condition.site_lucky;
DROP INDEX IF EXISTS quota_manager.site_star, quota_manager.site_run;
DROP POLICY IF EXISTS site_paid ON quota_manager.quota_execute;
ALTER TABLE quota_manager.quota_execute DISABLE ROW LEVEL SECURITY;
SQL
	grant_rights($database);
	@differences = differences(catalogue($node, $database), $fresh);
	is(scalar @differences, 0, "$database: the catalogue is that of a fresh one") or diag(join "\n", @differences);
}

$node->stop;
done_testing();

sub grant_rights
{
	my ($database) = @_;

	$node->safe_psql($database, join ';', map { "SELECT quota_manager.grant_access('a_$_', '$_')" } @levels);
	return;
}

# The rows of each table by the columns that 1.0.0 had: all, or of many a hash.
sub rows
{
	my ($database) = @_;

	return {
		map {
			$_ => $node->safe_psql($database,
				$_ eq 'quota_execute'
				? "SELECT count(*), sum(hashtextextended(ROW($columns{$_})::text, 0)) FROM quota_manager.$_"
				: "SELECT ROW($columns{$_})::text FROM quota_manager.$_ ORDER BY 1")
		} sort keys %columns
	};
}

sub same_rows
{
	my ($database, @but) = @_;
	my $after = rows($database);

	foreach my $table (sort keys %$before)
	{
		next if grep { $_ eq $table } @but;
		is($after->{$table}, $before->{$table}, "$database: the rows of $table");
	}
	my %known = map { (split)[0] => 1 } split /\n/, $numbers;

	is(join("\n", grep { $known{ (split)[0] } } split /\n/, sequences($node, $database)), $numbers, "$database: the sequences of 1.0.0");
	return;
}

# Which file each table and index of 1.0.0 is in.
sub files
{
	my $tables = join ', ', map { "'quota_manager.$_'::regclass" } sort keys %columns;

	return $node->safe_psql('old', <<"SQL");
SELECT c.oid::regclass, pg_relation_filenode(c.oid) FROM pg_class c
WHERE c.oid = ANY (ARRAY[$tables]) OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = ANY (ARRAY[$tables]))
	AND c.relname NOT IN (@{[ join ', ', map { "'$_'" } new_indexes() ]}) ORDER BY 1
SQL
}

# Indexes of tables of 1.0.0 that it did not have.
sub new_indexes
{
	my $sql = slurp_file("$FindBin::RealBin/../../sql/quota_manager--1.0.0.sql");

	return ('', grep { $sql !~ /INDEX $_\b/ && !/_pkey$/ && !/^site_/ } split /\n/,
		$node->safe_psql('old', q{SELECT c.relname FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid WHERE c.relnamespace = 'quota_manager'::regnamespace}));
}

# What the site has made, as the catalogue tells it.
sub definitions
{
	my ($database) = @_;

	return $node->safe_psql($database, <<'SQL');
SELECT format('view %s: %s', c.oid::regclass, pg_get_viewdef(c.oid)) FROM pg_class c WHERE c.relnamespace = 'site'::regnamespace AND c.relkind IN ('v', 'm')
UNION ALL SELECT pg_get_indexdef(indexrelid) || indisvalid FROM pg_index WHERE indexrelid::regclass::text ~ 'site'
UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'site'::regnamespace OR proname ~ '^site_'
UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'site.rule'::regclass
UNION ALL SELECT format('%s %s %s', attname, format_type(atttypid, atttypmod), pg_get_expr(d.adbin, d.adrelid))
	FROM pg_attribute LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum WHERE attrelid = 'site.rule'::regclass AND attnum > 0
UNION ALL SELECT format('policy %s of %s: %s', polname, polrelid::regclass, pg_get_expr(polqual, polrelid)) FROM pg_policy WHERE polname ~ '^site_'
UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname ~ '^site_'
ORDER BY 1
SQL
}

# What the site has made does what it is for.
sub site_works
{
	my ($database) = @_;

	is( $node->safe_psql($database, <<'SQL'), "30|7|t|5|f\n0", "$database: what a site has made works");
SET search_path = quota_manager, site, public;
INSERT INTO rule DEFAULT VALUES;
SELECT (SELECT count(*) FROM stars), (SELECT count(*) FROM rule WHERE strategy IS NOT NULL), (SELECT count(*) > 0 FROM paid), (SELECT vip FROM seen WHERE id = 'u1') + 4,
	(SELECT bool_or(s.id <> 'u7') FROM subject s WHERE s @@ 'site-lucky()');
DELETE FROM rule WHERE strategy IS NULL;
SET ROLE a_viewer;
SELECT count(*) FROM quota_execute WHERE user_id = 'u3';
SQL
	return;
}

# Nobody gets anything twice, and what was pending is delivered.
sub works_on
{
	my ($database, $prepare) = @_;
	my $pending = $node->safe_psql($database, q{SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'pending' AND gateway = 'gateway'});

	$prepare->();
	is( $node->safe_psql($database, q{
			SET quota_manager.schedule_clock = '2025-07-01 08:30:00+00';
			SELECT sum(granted), bool_and(error IS NULL) FROM quota_manager.scan()}),
		'0|t', "$database: nothing is granted twice");
	is( $node->safe_psql($database, q{
			SET quota_manager.schedule_clock = '2025-07-02 08:30:00+00';
			INSERT INTO quota_manager.user_info (id, github_star) VALUES ('new', 'zgsm');
			SELECT strategy, granted FROM quota_manager.scan() WHERE granted > 0 ORDER BY 1}),
		"daily|61\nfailing|45\nstar|1", "$database: what is due is granted");
	cmp_ok($pending, '>', 30, "$database: some grants are pending");
	$node->safe_psql($database, 'CALL quota_manager.deliver()');
	# What was disabled is paused now.
	is($node->safe_psql($database, q{SELECT count(*) > 0 AND bool_and(s.state = 'paused') FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
			WHERE e.status = 'pending' AND e.gateway = 'gateway'}), 't', "$database: they are delivered, but for those of a disabled strategy");
	is($node->safe_psql($database, q{SELECT count(*) FROM quota_manager.pauses WHERE until IS NULL}),
		$node->safe_psql($database, q{SELECT count(*) FROM quota_manager.quota_strategy WHERE state = 'paused'}), "$database: which is shown as paused");
	$node->safe_psql($database, 'SELECT quota_manager.unpause_strategy(name) FROM quota_manager.quota_strategy WHERE id IN (SELECT strategy_id FROM quota_manager.quota_execute WHERE status = $$pending$$)');
	$node->safe_psql($database, 'CALL quota_manager.deliver()');
	is($node->safe_psql($database, q{SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'pending' AND gateway = 'gateway'}),
		0, "$database: these are delivered when it goes on");
	is(scalar $gateway->applied, $pending + 107, "$database: once each");
	return;
}
