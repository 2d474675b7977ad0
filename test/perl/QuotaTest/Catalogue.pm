
=pod

=head1 NAME

QuotaTest::Catalogue - everything that the catalogues know of the extension, and how two databases differ in it

=head1 SYNOPSIS

  my @differences = differences(catalogue($node, 'upgraded'), catalogue($node, 'fresh'));

=head1 DESCRIPTION

Every row of every catalogue that describes the extension, a member of it, or
what belongs to a member (columns, defaults, constraints, indexes, triggers,
rules, policies, comments, rights, dependencies, ...) is taken whole, with names
for oids and definitions for parsed expressions.  So a column of a catalogue
that a later major adds is compared too.  Left out is only what says how often
or when something was done, such as relfilenode.

=cut

package QuotaTest::Catalogue;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT_OK = qw(catalogue differences);

my $query = <<'SQL';
SET client_min_messages = warning;
SET search_path = pg_catalog, pg_temp;

-- The extension, its schema, its members, and what belongs to them; toast tables are named by oids.
CREATE TEMPORARY TABLE object AS
WITH RECURSIVE extension AS (
	SELECT oid, extnamespace FROM pg_extension WHERE extname = 'quota_manager'
), found (classid, objid) AS (
	SELECT 'pg_extension'::regclass::oid, oid FROM extension
	UNION SELECT 'pg_namespace'::regclass::oid, extnamespace FROM extension
	UNION SELECT d.classid, d.objid FROM pg_depend d JOIN extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
		WHERE d.deptype = 'e'
	UNION SELECT d.classid, d.objid FROM found f JOIN pg_depend d ON (d.refclassid, d.refobjid) = (f.classid, f.objid)
		WHERE d.deptype IN ('a', 'i', 'P', 'S')
)
SELECT f.classid, f.objid, concat_ws(' ', i.type, coalesce(i.identity, i.name)) AS name
FROM found f, pg_identify_object(f.classid, f.objid, 0) i
WHERE i.schema IS DISTINCT FROM 'pg_toast'
	AND NOT (f.classid = 'pg_trigger'::regclass AND EXISTS (SELECT 1 FROM pg_trigger t WHERE t.oid = f.objid AND t.tgisinternal));

CREATE FUNCTION pg_temp.rights(acl aclitem[]) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s: %s%s (by %s)', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
			a.privilege_type, CASE WHEN a.is_grantable THEN ' with grant option' END, a.grantor::regrole),
		', ' ORDER BY a.grantee::regrole::text, a.privilege_type)
	FROM aclexplode(acl) a
$$;

-- The columns of the catalogues without what differs by chance, and what others tell better; and whose oids they hold.
CREATE TEMPORARY TABLE told_column AS
SELECT a.attrelid AS catalogue, a.attname AS name, r.reference
FROM pg_attribute a
LEFT JOIN LATERAL (SELECT k.pktable::oid AS reference, k.is_array FROM pg_get_catalog_foreign_keys() k
	WHERE k.fktable = a.attrelid AND k.fkcols = ARRAY[a.attname::text]) r ON true
WHERE a.attrelid IN (SELECT classid FROM object UNION SELECT c::regclass FROM unnest(ARRAY['pg_attribute', 'pg_index', 'pg_sequence', 'pg_aggregate', 'pg_range']) c)
	AND a.attnum > 0 AND NOT a.attisdropped
	AND a.atttypid NOT IN ('pg_node_tree'::regtype, 'aclitem[]'::regtype, 'int2vector'::regtype, 'oidvector'::regtype)
	AND coalesce(NOT r.is_array, true)
	AND a.attname <> ALL (ARRAY['oid', 'relfilenode', 'relpages', 'reltuples', 'relallvisible', 'relallfrozen', 'relfrozenxid', 'relminmxid',
		'relnatts', 'reltoastrelid', 'attnum', 'attrelid', 'attcacheoff', 'atthasmissing', 'attmissingval', 'adnum', 'indexrelid', 'indcheckxmin',
		'indnatts', 'indnkeyatts', 'conkey', 'confkey', 'polroles', 'extconfig', 'extcondition', 'seqrelid']);
CREATE INDEX ON told_column (catalogue);
ANALYZE told_column;

-- A row of a catalogue, oids as names.
CREATE FUNCTION pg_temp.told(catalogue regclass, source jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_object_agg(c.name, CASE
		WHEN c.reference IS NULL OR value IS NULL OR value::text !~ '^"?\d+"?$' THEN value
		WHEN (value #>> '{}')::oid = 0 THEN NULL
		ELSE (SELECT to_jsonb(concat_ws(' ', i.type, coalesce(i.identity, i.name))) FROM pg_identify_object(c.reference, (value #>> '{}')::oid, 0) i) END)
	FROM told_column c
	CROSS JOIN LATERAL (SELECT source -> c.name AS value OFFSET 0) v
	WHERE c.catalogue = told.catalogue
$$;

CREATE TEMPORARY TABLE finding (object text, aspect text, definition text);

DO $$
DECLARE
	catalogue regclass;
BEGIN
	FOR catalogue IN SELECT DISTINCT o.classid FROM object o LOOP
		EXECUTE format('INSERT INTO finding SELECT o.name, f.key, f.value FROM object o JOIN %1$s c ON c.oid = o.objid AND o.classid = %2$s,
			jsonb_each_text(pg_temp.told(%2$s::oid::regclass, to_jsonb(c))) f', catalogue, catalogue::oid);
	END LOOP;
END
$$;

-- Columns, in their order.  The option pg_attver, which late minor releases set by themselves, counts changes of the column.
INSERT INTO finding
SELECT format('column %s of %s', a.attname, o.name), f.key, f.value
FROM object o JOIN pg_attribute a ON o.classid = 'pg_class'::regclass AND a.attrelid = o.objid AND a.attnum > 0 AND NOT a.attisdropped,
	jsonb_each_text(pg_temp.told('pg_attribute', to_jsonb(a)) || jsonb_build_object('type', format_type(a.atttypid, a.atttypmod), 'rights', pg_temp.rights(a.attacl),
		'attoptions', (SELECT string_agg(option, ', ') FROM unnest(a.attoptions) option WHERE option !~ '^pg_attver='),
		'number', (SELECT count(*) FROM pg_attribute b WHERE b.attrelid = a.attrelid AND b.attnum BETWEEN 1 AND a.attnum AND NOT b.attisdropped))) f;

-- Catalogues without oids of their own.
INSERT INTO finding
SELECT o.name, f.key, f.value FROM object o JOIN pg_index i ON o.classid = 'pg_class'::regclass AND i.indexrelid = o.objid,
	jsonb_each_text(pg_temp.told('pg_index', to_jsonb(i))) f
UNION ALL SELECT o.name, f.key, f.value FROM object o JOIN pg_sequence s ON o.classid = 'pg_class'::regclass AND s.seqrelid = o.objid,
	jsonb_each_text(pg_temp.told('pg_sequence', to_jsonb(s))) f
UNION ALL SELECT o.name, f.key, f.value FROM object o JOIN pg_aggregate a ON o.classid = 'pg_proc'::regclass AND a.aggfnoid = o.objid,
	jsonb_each_text(pg_temp.told('pg_aggregate', to_jsonb(a))) f
UNION ALL SELECT o.name, f.key, f.value FROM object o JOIN pg_range r ON o.classid = 'pg_type'::regclass AND r.rngtypid = o.objid,
	jsonb_each_text(pg_temp.told('pg_range', to_jsonb(r))) f
UNION ALL SELECT o.name, 'labels', string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder)
	FROM object o JOIN pg_enum e ON o.classid = 'pg_type'::regclass AND e.enumtypid = o.objid GROUP BY 1
UNION ALL SELECT o.name, 'inherits', string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno)
	FROM object o JOIN pg_inherits i ON o.classid = 'pg_class'::regclass AND i.inhrelid = o.objid GROUP BY 1;

-- What is kept as a parsed tree, or as numbers of columns.
INSERT INTO finding
SELECT o.name, 'definition', d.definition FROM object o CROSS JOIN LATERAL (
	SELECT CASE o.classid
		WHEN 'pg_proc'::regclass THEN (SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.oid = o.objid AND p.prokind <> 'a')
		WHEN 'pg_constraint'::regclass THEN pg_get_constraintdef(o.objid)
		WHEN 'pg_trigger'::regclass THEN pg_get_triggerdef(o.objid)
		WHEN 'pg_rewrite'::regclass THEN pg_get_ruledef(o.objid)
		WHEN 'pg_statistic_ext'::regclass THEN pg_get_statisticsobjdef(o.objid)
		WHEN 'pg_attrdef'::regclass THEN (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.oid = o.objid)
		WHEN 'pg_policy'::regclass THEN (SELECT format('to %s using (%s) with check (%s)', p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid),
			pg_get_expr(p.polwithcheck, p.polrelid)) FROM pg_policy p WHERE p.oid = o.objid)
		WHEN 'pg_class'::regclass THEN (SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i WHERE i.indexrelid = o.objid)
	END AS definition) d
WHERE d.definition IS NOT NULL;

INSERT INTO finding
SELECT o.name, 'rights', pg_temp.rights(r.rights) FROM object o CROSS JOIN LATERAL (
	SELECT CASE o.classid
		WHEN 'pg_class'::regclass THEN (SELECT coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))
			FROM pg_class c WHERE c.oid = o.objid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S'))
		WHEN 'pg_proc'::regclass THEN (SELECT coalesce(p.proacl, acldefault('f', p.proowner)) FROM pg_proc p WHERE p.oid = o.objid)
		WHEN 'pg_type'::regclass THEN (SELECT coalesce(t.typacl, acldefault('T', t.typowner)) FROM pg_type t WHERE t.oid = o.objid)
		WHEN 'pg_namespace'::regclass THEN (SELECT coalesce(n.nspacl, acldefault('n', n.nspowner)) FROM pg_namespace n WHERE n.oid = o.objid)
	END AS rights) r
WHERE r.rights IS NOT NULL;

INSERT INTO finding
SELECT o.name, 'default rights', string_agg(concat_ws(' ', d.defaclobjtype, pg_temp.rights(d.defaclacl)), '; ' ORDER BY d.defaclobjtype)
FROM object o JOIN pg_default_acl d ON o.classid = 'pg_namespace'::regclass AND d.defaclnamespace = o.objid GROUP BY 1
UNION ALL SELECT o.name, concat_ws(' ', 'initial rights', a.attname), pg_temp.rights(i.initprivs)
FROM object o JOIN pg_init_privs i ON (i.classoid, i.objoid) = (o.classid, o.objid)
	LEFT JOIN pg_attribute a ON i.classoid = 'pg_class'::regclass AND a.attrelid = i.objoid AND a.attnum = i.objsubid AND i.objsubid > 0
UNION ALL SELECT o.name, concat_ws(' ', 'comment', a.attname), d.description
FROM object o JOIN pg_description d ON (d.classoid, d.objoid) = (o.classid, o.objid)
	LEFT JOIN pg_attribute a ON d.classoid = 'pg_class'::regclass AND a.attrelid = d.objoid AND a.attnum = d.objsubid AND d.objsubid > 0
UNION ALL SELECT o.name, concat_ws(' ', 'label', l.objsubid), l.label
FROM object o JOIN pg_seclabel l ON (l.classoid, l.objoid) = (o.classid, o.objid)
UNION ALL SELECT o.name, 'is dumped ' || c.relation::regclass, 'where ' || c.condition
FROM object o JOIN pg_extension e ON o.classid = 'pg_extension'::regclass AND e.oid = o.objid, unnest(e.extconfig, e.extcondition) c (relation, condition);

INSERT INTO finding
SELECT o.name, 'depends on', string_agg(DISTINCT format('%s (%s)', concat_ws(' ', i.type, coalesce(i.identity, i.name)), d.deptype), ', ')
FROM object o JOIN pg_depend d ON (d.classid, d.objid) = (o.classid, o.objid), pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) i
GROUP BY o.classid, o.objid, o.name;

-- A line each, with separators that no definition holds.
SELECT concat_ws(chr(30), object, aspect, replace(definition, chr(10), chr(31))) FROM finding WHERE definition IS NOT NULL;
SQL

# What the catalogues of a database know of the extension: object, aspect and definition, in two levels of hashes.
# Statements may come before, in the same session.
sub catalogue
{
	my ($node, $database, $before) = @_;
	my %found;

	foreach my $line (split /\n/, $node->safe_psql($database, ($before // '') . ";\n" . $query))
	{
		my ($object, $aspect, $definition) = split /\x1e/, $line, -1;

		die "$object has two of: $aspect" if exists $found{$object}{$aspect};
		$found{$object}{$aspect} = $definition =~ tr/\x1f/\n/r;
	}
	return \%found;
}

# How the first differs from the second: texts that name the object and both definitions.
sub differences
{
	my ($upgraded, $fresh) = @_;
	my @found;

	foreach my $object (sort keys %{ { %$upgraded, %$fresh } })
	{
		if (!$upgraded->{$object} || !$fresh->{$object})
		{
			push @found, "$object: " . ($fresh->{$object} ? 'missing after the update' : 'there after the update only');
			next;
		}
		my %aspects = (%{ $upgraded->{$object} }, %{ $fresh->{$object} });

		foreach my $aspect (sort keys %aspects)
		{
			my ($is, $should) = map { $_->{$object}{$aspect} // '(none)' } $upgraded, $fresh;

			push @found, "$object, $aspect\n  after the update: $is\n  in a fresh one:   $should" if $is ne $should;
		}
	}
	return @found;
}

1;
