
# What plpgsql_check finds in the PL/pgSQL functions of the extension: nothing.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::PgCron;
use QuotaTest::ScanNode qw(scan_node);
use Test::More;

my $node = scan_node('plpgsql');
if (!$node->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'plpgsql_check'}))
{
	$node->stop;
	plan skip_all => 'the extension plpgsql_check is not installed';
}
$node->safe_psql('postgres', 'CREATE EXTENSION plpgsql_check');

# Statements that name objects of pg_cron are checked where it is.
my $has_pg_cron = QuotaTest::PgCron::is_available();
if ($has_pg_cron)
{
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_cron'\ncron.use_background_workers = on");
	$node->restart;
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_cron');
}
my $without = $has_pg_cron ? 'false' : q{p.prosrc ~ '\mcron\.'};

# How volatile a function is and those that it calls is asked by 145_catalog_lint.pl, of SQL functions too and with what
# is meant to be so; only newer versions of plpgsql_check tell.  A trigger function is checked with each relation that it is a trigger of.
my @functions = split /\n/, $node->safe_psql('postgres', <<"SQL");
SELECT p.oid::regprocedure || '|' || coalesce(t.tgrelid, 0)::regclass::text || '|' || coalesce(t.tgoldtable, '') || '|' || coalesce(t.tgnewtable, '')
FROM pg_proc p
JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid AND e.extname = 'quota_manager'
LEFT JOIN pg_trigger t ON t.tgfoid = p.oid
WHERE p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'plpgsql') AND NOT ($without) ORDER BY 1
SQL
cmp_ok(scalar(@functions), '>', 15, scalar(@functions) . ' functions to check');

# Temporary tables that a function makes for itself must be there to be checked.
my $temporary = $node->safe_psql('postgres', <<'SQL');
SELECT coalesce(string_agg((regexp_match(p.prosrc, 'CREATE TEMPORARY TABLE \w+ \([^;]*?\)(?= ON COMMIT)'))[1], '; '), '')
FROM pg_proc p WHERE p.pronamespace IN ('quota_manager'::regnamespace, 'quota_internal'::regnamespace) AND p.prosrc ~ 'CREATE TEMPORARY TABLE'
SQL
foreach my $function (@functions)
{
	my ($signature, $relation, $old_table, $new_table) = split /\|/, $function;
	my $transition = ($old_table ? "oldtable => '$old_table', " : '') . ($new_table ? "newtable => '$new_table', " : '');

	is( $node->safe_psql('postgres', qq{$temporary;
			SELECT concat_ws(' ', c.lineno, c.statement, c.message, c.detail, c.query)
			FROM plpgsql_check_function_tb('$signature', } . ($relation eq '-' ? '0' : "'$relation'") . ", $transition" . q{fatal_errors => false,
				other_warnings => true, extra_warnings => false, performance_warnings => false) c
			WHERE c.message !~ '^routine is marked as'}),
		'',
		"$signature" . ($relation eq '-' ? '' : " on $relation"));
}

$node->stop;
done_testing();
