
# What the catalogue says of a fresh install that test/sql/catalog.sql does not ask: where objects are and for whom, what
# their definitions depend on, and whether functions are as volatile as what they call.  Each exception has its reason.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node);
use Test::More;

# What the schemas are for, and the kinds of objects that each may have.
my %schema = (
	quota_manager => { for => 'people', kinds => [qw(function procedure view table type operator index cast sequence)] },
	quota_internal => { for => 'the extension itself', kinds => [qw(function view table type index)] },
	quota_condition => { for => 'conditions', kinds => [qw(function)] },
	quota_api => { for => 'HTTP', kinds => [qw(function view type)] });

# Functions that PUBLIC may call: those that are IMMUTABLE and not SECURITY DEFINER, since they read and change nothing:
# constraints, indexes and types call them as whoever writes a row.  Beyond these:
my %for_everybody = ();

# Who has rights before grant_access() gives some.
my %has_rights = (pg_monitor => 'the figures, as those of the server');

# Functions that are called by functions which promise to be less volatile.
my %steady_enough = (
	'quota_manager.schedule_now()' => 'the time moves on during a statement; its callers are for one moment, which they read once',
	'quota_internal.present_identity()' => 'it changes with a promotion, during no statement',
	'quota_internal.meets_support(internal)' => 'the planner calls it, not the function that it supports',
	'quota_internal.may_match_support(internal)' => 'the planner calls it, not the function that it supports');

# Functions that call others which are more volatile, and are steady all the same.
my %steady_callers = (
	(map { $_ => 'it reads only; what it calls is volatile so that only the owner may call it' }
		'quota_internal.previewed_strategy(pg_catalog.text,quota_manager.condition,pg_catalog.jsonb)',
		'quota_internal.previewed_run(quota_manager.quota_strategy,integer)',
		'quota_internal.forecast_demand(quota_manager.quota_strategy,timestamp with time zone[])',
		'quota_internal.forecast_runs(integer[],pg_catalog.jsonb,timestamp with time zone)',
		'quota_manager.preview(pg_catalog.text,quota_manager.condition,pg_catalog.jsonb)',
		'quota_manager.preview_users(pg_catalog.text,quota_manager.condition,pg_catalog.jsonb,pg_catalog.text,pg_catalog.text,integer)',
		'quota_manager.forecast(integer,timestamp with time zone,pg_catalog.text)'));

# Functions that plpgsql_check would have promise more.
my %volatile_on_purpose = (
	'quota_internal.has_readings(pg_catalog.text)' => 'pin_statistics() in it must come before its query is planned');

my $node = scan_node('catalog_lint');

$node->safe_psql('postgres', <<'SQL');
CREATE SCHEMA lint;
CREATE VIEW lint.member AS
	SELECT d.classid, d.objid, i.type, i.schema, i.identity
	FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid AND e.extname = 'quota_manager',
		pg_identify_object(d.classid, d.objid, 0) i
	WHERE d.deptype = 'e';
-- With what belongs to the members: rules of views, constraints, defaults, indexes, triggers, policies.
CREATE VIEW lint.part AS
	WITH RECURSIVE part AS (
		SELECT classid, objid, identity FROM lint.member
		UNION SELECT d.classid, d.objid, p.identity FROM part p
		JOIN pg_depend d ON d.refclassid = p.classid AND d.refobjid = p.objid AND d.deptype IN ('i', 'a', 'I')
	)
	SELECT * FROM part;
CREATE VIEW lint.routine AS
	SELECT p.*, m.schema, m.identity, l.lanname FROM lint.member m
	JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid JOIN pg_language l ON l.oid = p.prolang;
SQL

# Rows of a query, in the order of their bytes.
sub rows
{
	my ($query) = @_;

	my @rows = sort split /\n/, $node->safe_psql('postgres', $query);

	return @rows;
}

# Checks that a query finds nothing but what is excepted, and that each exception is still one.
sub only
{
	my ($name, $query, $excepted) = @_;
	my %found = map { $_ => 1 } rows($query);

	is_deeply([ grep { !$excepted->{$_} } sort keys %found ], [], $name);
	is_deeply([ grep { !$found{$_} } sort keys %$excepted ], [], "$name: no exception is out of date") if %$excepted;
	return;
}

subtest 'where things are' => sub {
	cmp_ok(scalar(rows('SELECT identity FROM lint.member')), '>', 200, 'there is something to check');
	only('every object is in a schema of the extension', <<'SQL' . join(', ', map { "'$_'" } sort keys %schema) . ')', {});
SELECT type || ' ' || identity FROM lint.member
WHERE coalesce(schema, CASE type WHEN 'schema' THEN identity END, 'quota_manager') NOT IN (
SQL
	foreach my $name (sort keys %schema)
	{
		only("$name, for $schema{$name}{for}, has only: @{ $schema{$name}{kinds} }",
			"SELECT type || ' ' || identity FROM lint.member WHERE schema = '$name' AND type NOT IN (" . join(', ', map { "'$_'" } @{ $schema{$name}{kinds} }) . ')', {});
	}
	only('functions for people take and give no pseudo-types', <<'SQL', {});
SELECT identity FROM lint.routine r
WHERE schema IN ('quota_manager', 'quota_api') AND EXISTS (SELECT FROM unnest(proargtypes::oid[] || prorettype) t JOIN pg_type y ON y.oid = t
	WHERE y.typtype = 'p' AND y.typname NOT IN ('void', 'record', 'anyelement'))
SQL
};

# A function that no page describes to people belongs in quota_internal.  One of a release cannot be moved there: a dump has
# rights on it by its name.
my $shown = join "\n", map { slurp_file($_) =~ /^```.*?^```|`[^`\n]+`/msg } "$FindBin::RealBin/../../README.md",
	grep { !m{/reference\.md$} } glob "$FindBin::RealBin/../../docs/*.md";
my @undescribed = grep { $shown !~ /\b\Q$_\E\b/ } rows(<<'SQL');
SELECT CASE schema WHEN 'quota_condition' THEN replace(proname, '_', '-') ELSE proname END FROM lint.routine WHERE schema <> 'quota_internal'
SQL

is_deeply(\@undescribed, [], 'every function outside of quota_internal is shown on a page that people read');

subtest 'comments, on whatever can have one' => sub {
	only('every object has a comment', <<'SQL', {});
SELECT type || ' ' || identity FROM lint.member m
WHERE obj_description(objid, (SELECT relname FROM pg_class WHERE oid = classid)) IS NULL AND type <> 'sequence'
	-- from 17 on, also the types that relations and types bring along
	AND NOT (classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
		WHERE t.oid = objid AND (t.typcategory = 'A' OR c.relkind <> 'c')))
SQL
	only('every column has a comment', <<'SQL', {});
SELECT m.identity || '.' || a.attname FROM lint.member m JOIN pg_attribute a ON a.attrelid = m.objid AND a.attnum > 0 AND NOT a.attisdropped
WHERE m.classid = 'pg_class'::regclass AND m.type IN ('table', 'view', 'composite type') AND col_description(a.attrelid, a.attnum) IS NULL
SQL
};

subtest 'names' => sub {
	only('what a definition refers to is of PostgreSQL or of the extension', <<'SQL', {});
SELECT DISTINCT p.identity || ' uses ' || o.type || ' ' || o.identity FROM lint.part p
JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid AND d.deptype = 'n',
	pg_identify_object(d.refclassid, d.refobjid, 0) o
WHERE coalesce(o.schema, 'pg_catalog') NOT IN ('pg_catalog') AND NOT EXISTS (SELECT FROM lint.part q WHERE q.classid = d.refclassid AND q.objid = d.refobjid)
SQL
	only('no function depends on search_path: it is C, has a body of the SQL standard, or sets it', <<'SQL', {});
SELECT identity FROM lint.routine
WHERE lanname NOT IN ('c', 'internal') AND prosqlbody IS NULL AND NOT coalesce(proconfig, '{}') && ARRAY['search_path=pg_catalog, pg_temp']
SQL
};

subtest 'rights' => sub {
	only('functions that run as their owner look into pg_temp last', <<'SQL', {});
SELECT identity FROM lint.routine
WHERE prosecdef AND lanname <> 'c' AND prosqlbody IS NULL AND NOT coalesce(proconfig, '{}') && ARRAY['search_path=pg_catalog, pg_temp']
SQL
	only('every object is of the owner of the extension', <<'SQL', {});
SELECT DISTINCT s.classid::regclass || ' ' || s.objid FROM pg_shdepend s JOIN lint.member m USING (classid, objid), pg_extension e
WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND s.deptype = 'o' AND e.extname = 'quota_manager' AND s.refobjid <> e.extowner
SQL
	only('PUBLIC calls no function but computations', <<'SQL', \%for_everybody);
SELECT identity FROM lint.routine
WHERE (provolatile <> 'i' OR prosecdef) AND EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) a WHERE a.grantee = 0)
SQL
	only('PUBLIC has no right on a table, a view or a schema', <<'SQL', {});
SELECT identity FROM lint.member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid, aclexplode(c.relacl) a WHERE a.grantee = 0
UNION SELECT nspname FROM pg_namespace, aclexplode(nspacl) a WHERE nspname LIKE 'quota%' AND a.grantee = 0
SQL
	only('nobody else has a right before grant_access() gives it', <<'SQL', \%has_rights);
SELECT DISTINCT a.grantee::regrole FROM lint.member m LEFT JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
	LEFT JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid, aclexplode(coalesce(c.relacl, p.proacl)) a
WHERE a.grantee NOT IN (0, coalesce(c.relowner, p.proowner))
SQL
};

# Volatility.  The catalogue knows what SQL bodies call of the extension, and their text what they call of PostgreSQL;
# of PL/pgSQL plpgsql_check tells.
my $calls = <<'SQL';
SELECT f.identity AS caller, f.provolatile, d.refobjid AS callee FROM lint.routine f
JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_proc'::regclass
UNION SELECT f.identity, f.provolatile, g.oid FROM lint.routine f
JOIN pg_proc g ON g.pronamespace = 'pg_catalog'::regnamespace AND g.provolatile <> 'i' AND pg_get_function_sqlbody(f.oid) ~ ('\m' || g.proname || '\(')
	AND NOT EXISTS (SELECT FROM pg_proc o WHERE o.pronamespace = g.pronamespace AND o.proname = g.proname AND o.provolatile <> g.provolatile)
SQL
if ($node->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'plpgsql_check'}))
{
	$node->safe_psql('postgres', 'CREATE EXTENSION plpgsql_check');
	$calls .= <<'SQL';
UNION SELECT f.identity, f.provolatile, d.oid FROM lint.routine f, plpgsql_show_dependency_tb(f.oid, 0) d
WHERE f.lanname = 'plpgsql' AND f.provolatile <> 'v' AND f.prorettype <> 'trigger'::regtype AND d.type IN ('FUNCTION', 'PROCEDURE')
SQL
	only('functions are not more volatile than they must be', <<'SQL', \%volatile_on_purpose);
SELECT DISTINCT f.identity FROM lint.routine f, plpgsql_check_function(f.oid, 0, fatal_errors => false, performance_warnings => true) m
WHERE f.lanname = 'plpgsql' AND f.prokind = 'f' AND f.prorettype <> 'trigger'::regtype AND f.prosrc !~ '\mcron\.' AND m ~ 'routine is marked as'
	-- Newer releases say of others that they are not volatile enough, of which below.
	AND m !~ 'should be VOLATILE'
SQL
}
my $steady_callers = join ', ', map { "'$_'" } sort keys %steady_callers;
my $steady = join ', ', map { "'$_'" } sort keys %steady_enough;
only('functions are as volatile as what they call', <<"SQL", {});
SELECT DISTINCT c.caller || ' calls ' || g.oid::regprocedure FROM ($calls) c JOIN pg_proc g ON g.oid = c.callee
WHERE strpos('isv', c.provolatile::text) < strpos('isv', g.provolatile::text) AND g.oid::regprocedure::text NOT IN ($steady)
	AND c.caller NOT IN ($steady_callers)
SQL
only('immutable PL/pgSQL functions read no table', <<'SQL', {});
SELECT identity FROM lint.routine WHERE provolatile = 'i' AND lanname = 'plpgsql' AND prosrc ~* '\m(from|join|into|update)\s+quota_'
SQL
only('indexes and constraints call immutable functions of the extension', <<'SQL', {});
SELECT DISTINCT p.identity || ' calls ' || g.oid::regprocedure FROM lint.part p
JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid AND d.refclassid = 'pg_proc'::regclass JOIN pg_proc g ON g.oid = d.refobjid
WHERE p.classid IN ('pg_constraint'::regclass, 'pg_class'::regclass) AND g.provolatile <> 'i'
SQL

# The lint finds what it looks for.
foreach my $case (
	[ 'CREATE TABLE public.stray (); ALTER EXTENSION quota_manager ADD TABLE public.stray', q{SELECT identity FROM lint.member WHERE schema = 'public'}, 'public.stray' ],
	[ 'CREATE FUNCTION quota_internal.stray() RETURNS interval IMMUTABLE LANGUAGE sql RETURN clock_timestamp() - now(); ALTER EXTENSION quota_manager ADD FUNCTION quota_internal.stray()',
		"SELECT DISTINCT c.callee::regprocedure FROM ($calls) c JOIN pg_proc g ON g.oid = c.callee WHERE c.provolatile = 'i' AND g.provolatile <> 'i'", qr/clock_timestamp/ ])
{
	my ($change, $query, $expected) = @$case;

	like($node->safe_psql('postgres', "BEGIN; $change; $query; ROLLBACK"), ref $expected ? $expected : qr/^\Q$expected\E$/m, "seen: $change");
}

$node->stop;
done_testing();
