
# What pgspot looks for, and more, in the scripts that install and update the extension: statements that mean something else
# where somebody put objects before them.  Objects that the scripts make are asked for by 145_catalog_lint.pl and
# test/sql/catalog.sql.
#
# pgspot 0.9.4, run by hand over each part, also dislikes operators in CHECK constraints and in WHEN of triggers
# (PS001).  They are bound when the script runs, which begins only in a schema of its own that is empty; that
# they are PostgreSQL's is tested with the catalogue.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::SqlScript qw(statements bare body unqualified);
use Test::More;

my $root = "$FindBin::RealBin/../..";
my $ours = qr/quota_(?:manager|internal|condition|api)\./;
my $known = qr/(?:pg_catalog\.|$ours)/;
my $path = qr/\bSET search_path = pg_catalog, pg_temp\b/;

# What a script may do, and where the name of what it makes or changes stands.
my @allowed = (
	qr/^CREATE SCHEMA quota_\w+;/,
	qr/^CREATE (?:TABLE|VIEW|TYPE|DOMAIN|FUNCTION|PROCEDURE|OPERATOR|SEQUENCE) $ours/,
	qr/^CREATE (?:UNIQUE )?INDEX \w+ ON $ours/,
	qr/^CREATE (?:CONSTRAINT )?TRIGGER \w+ .*?\sON $ours.*\sEXECUTE FUNCTION $ours/s,
	qr/^CREATE POLICY \w+ ON $ours/,
	qr/^CREATE CAST \($known\w+ AS $known\w+\)/,
	qr/^(?:ALTER|DROP) (?:TABLE|VIEW|TYPE|FUNCTION|PROCEDURE|INDEX|SEQUENCE) $ours/,
	qr/^DROP (?:TRIGGER|POLICY) \w+ ON $ours/,
	qr/^ALTER TABLE $ours/,
	qr/^COMMENT ON (?:TABLE|COLUMN|VIEW|TYPE|DOMAIN|FUNCTION|PROCEDURE|INDEX|OPERATOR|SEQUENCE) $ours/,
	qr/^COMMENT ON SCHEMA quota_\w+\s/,
	qr/^COMMENT ON CAST \($known\w+ AS $known\w+\)/,
	qr/^COMMENT ON (?:TRIGGER|POLICY|CONSTRAINT) \w+ ON $ours/,
	qr/^(?:GRANT|REVOKE) [A-Z, ]+ ON (?:(?:TABLE|FUNCTION|PROCEDURE|TYPE) )?$ours/,
	qr/^(?:GRANT|REVOKE) [A-Z, ]+ ON SCHEMA quota_/,
	qr/^SELECT $known/,
	qr/^NOTIFY pgrst, /,
	qr/^(?:UPDATE|INSERT INTO|DELETE FROM) $ours/,
	qr/^DO (\$\w*\$).*\g1;$/s);

# Statements that run now, with the search_path of the script.
sub runs_now
{
	my ($text) = @_;

	return $text =~ /^(?:DO|SELECT|UPDATE|INSERT|DELETE)\b/;
}

# What is wrong with a statement of a script; is_update: CREATE OR REPLACE replaces what is a member already, which the
# server sees to.
sub complaints
{
	my ($text, $is_update) = @_;
	my $bare = bare($text);
	my $head = $bare =~ s/(\$\w*\$).*\g1//sr;
	my @found;

	push @found, 'IF NOT EXISTS takes what somebody else made' if $head =~ /\bIF NOT EXISTS\b/;
	if ($is_update) { $bare =~ s/^CREATE OR REPLACE (?=FUNCTION|PROCEDURE|VIEW)/CREATE /; }
	push @found, 'CREATE OR REPLACE takes what somebody else made' if $bare =~ /^CREATE OR REPLACE/;
	push @found, 'not among what a script does, or a name without its schema' if !grep { $bare =~ $_ } @allowed;
	push @found, map { "$_ without its schema" } unqualified($text =~ /^DO/ ? body($text) : $text) if runs_now($text);
	if ($bare =~ /^CREATE (?:FUNCTION|PROCEDURE)/)
	{
		my $is_bound = $head =~ /\bLANGUAGE C\b/i || $head =~ /\bBEGIN ATOMIC\b|^RETURN\b/m;

		push @found, 'a body without SET search_path = pg_catalog, pg_temp' if !$is_bound && $head !~ $path;
		push @found, 'SECURITY DEFINER without it' if !$is_bound && $head =~ /\bSECURITY DEFINER\b/ && $head !~ $path;
		push @found, 'SET search_path to something else' if $head =~ /\bSET search_path\b/ && $head !~ $path;
		push @found, 'relations in public' if $bare =~ /\bpublic\./;
		# bound when it is made, with the schema of the extension first
		my ($sql) = $bare =~ /(\bBEGIN ATOMIC\b.*|^RETURN\b.*)/ms;
		push @found, grep { /operator \W|function/ } map { "$_ without its schema" } unqualified($sql) if defined $sql && $bare !~ /^CREATE FUNCTION quota_condition/;
	}
	push @found, 'a view that runs as its owner' if $bare =~ /^CREATE VIEW/ && $bare !~ /security_invoker/;
	return @found;
}

sub lint
{
	my ($name, $script, $is_update) = @_;
	my @found;

	foreach my $statement (statements($script))
	{
		push @found, map { "line $statement->{line}: $_" } complaints($statement->{text}, $is_update);
	}
	is(join("\n", @found), '', $name);
	return;
}

my @parts = glob "$root/sql/parts/*.sql";
cmp_ok(scalar @parts, '>', 15, 'there are parts to lint');
lint($_ =~ s{.*/}{}r, slurp_file($_)) foreach @parts;
my @updates = glob "$root/sql/quota_manager--*--*.sql";
cmp_ok(scalar @updates, '>', 0, 'there are updates to lint; make writes that of the version to come');
lint($_ =~ s{.*/}{}r, slurp_file($_), 1) foreach @updates;

subtest 'the lint finds what it looks for' => sub {
	foreach my $case (
		[ 'CREATE TABLE quota (id int);', qr/without its schema/ ],
		[ 'CREATE TABLE IF NOT EXISTS quota_manager.t (id int);', qr/IF NOT EXISTS/ ],
		[ 'CREATE OR REPLACE FUNCTION quota_manager.f() RETURNS int LANGUAGE sql RETURN 1;', qr/OR REPLACE/ ],
		[ 'CREATE FUNCTION quota_manager.f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;', qr/SET search_path/ ],
		[ 'CREATE FUNCTION quota_manager.f() RETURNS int LANGUAGE sql SET search_path = pg_catalog AS $$ SELECT 1 $$;', qr/something else/ ],
		[ "CREATE FUNCTION quota_manager.f() RETURNS boolean LANGUAGE sql\nRETURN 1 = 2;", qr/operator = / ],
		[ 'CREATE VIEW quota_manager.v AS SELECT 1;', qr/runs as its owner/ ],
		[ 'DO $$ BEGIN IF now() > pg_catalog.now() THEN RETURN; END IF; END $$;', qr/operator > .*function now/s ],
		[ 'DO $$ BEGIN PERFORM CASE x WHEN 1 THEN 2 END; END $$;', qr/CASE with a value/ ],
		[ q{SELECT pg_catalog.f('a'::text);}, qr/cast to text/ ],
		[ q{UPDATE quota_manager.t SET a = 1 WHERE b BETWEEN 1 AND 2;}, qr/BETWEEN/ ],
		[ 'GRANT SELECT ON other TO PUBLIC;', qr/not among/ ])
	{
		my ($text, $pattern) = @$case;

		like(join("\n", complaints($text)), $pattern, "seen: $text");
	}
	is(join("\n", complaints(q{DO $$ BEGIN IF a OPERATOR(pg_catalog.=) 'x = y' THEN RAISE EXCEPTION 'f()'; END IF; END $$;})), '', 'strings and named operators are no matter');
};

done_testing();
