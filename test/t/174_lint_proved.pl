
# What lint says of conditions is so.  On random conditions and users no claim is refuted, and a condition that some user
# meets and another does not is never said to hold for nobody or everybody.  Where the users are all that calls can tell
# apart, the claims are exactly those that are true.  Every fault that is planted is found.
#
# QUOTA_MANAGER_LINT_CASES  how many conditions that can hold and can fail (10000)
# QUOTA_MANAGER_SEED        another seed than the usual one

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Encode qw(encode decode);
use QuotaTest::ConditionGenerator;
use QuotaTest::LintGenerator;
use QuotaTest::ScanNode qw(scan_node);
use Test::More;

my $cases = $ENV{QUOTA_MANAGER_LINT_CASES} || 10_000;
my $seed = $ENV{QUOTA_MANAGER_SEED} || 20_260_801;
my $batch = 1_000;
my $generator = QuotaTest::LintGenerator->new($seed);
my $node = scan_node('lint_proved', "quota_manager.lint_on_write = off\nlog_statement = none\n");

note("seed $seed, $cases conditions");
sql(<<'SQL');
INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('x', 'zgsm', 'http://127.0.0.1:9', true), ('y', 'zgsm', 'http://127.0.0.1:9', false);
INSERT INTO quota_manager.quota_model VALUES ('m', 'x'), ('n', 'x'), ('o', 'y');
CREATE FUNCTION quota_condition.tagged(s quota_manager.subject, tag text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (s).name = tag;
CREATE SCHEMA lint;
CREATE UNLOGGED TABLE lint.person (n integer, s quota_manager.subject);
CREATE UNLOGGED TABLE lint.asked (n integer, condition text);
CREATE UNLOGGED TABLE lint.answer (n integer, condition quota_manager.condition, meets bit varying);
-- A bit per user.
CREATE FUNCTION lint.meets(condition quota_manager.condition) RETURNS bit varying LANGUAGE sql AS
	$$ SELECT string_agg(CASE WHEN p.s OPERATOR(quota_manager.@@) condition THEN '1' ELSE '0' END, '' ORDER BY p.n)::bit varying FROM lint.person p $$;
-- Is there a place of the part at which true() or false() changes nothing?  not(...) may be meant where only ... is written.
CREATE FUNCTION lint.is_superfluous(condition text, part text, meets bit varying) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	wanted text;
	constant text;
BEGIN
	FOREACH wanted IN ARRAY ARRAY[part] || CASE WHEN part LIKE 'not(%' THEN ARRAY[substr(part, 5, length(part) - 5)] ELSE '{}' END LOOP
		FOR i IN 1 .. length(condition) - length(wanted) + 1 LOOP
			CONTINUE WHEN substr(condition, i, length(wanted)) <> wanted;
			FOREACH constant IN ARRAY ARRAY['true()', 'false()'] LOOP
				IF lint.meets((overlay(condition PLACING constant FROM i FOR length(wanted)))::quota_manager.condition) = meets THEN
					RETURN true;
				END IF;
			END LOOP;
		END LOOP;
	END LOOP;
	RETURN false;
END $$;
CREATE FUNCTION lint.findings(condition quota_manager.condition) RETURNS TABLE (problem text, severity text, message text, detail text, hint text) LANGUAGE sql AS
	$$ SELECT * FROM quota_internal.condition_findings(condition, '{m,n,o}', '{x,x,y}') $$;
-- Pairs in which every user that meets the first meets the second.
CREATE FUNCTION lint.contained() RETURNS TABLE (a integer, b integer) LANGUAGE sql AS $$
	WITH pool AS MATERIALIZED (SELECT array_agg(n ORDER BY n) AS n, array_agg(condition::text ORDER BY n) AS conditions FROM lint.answer)
	SELECT p.n[c.inner_position], p.n[c.outer_position] FROM pool p CROSS JOIN LATERAL quota_internal.contained_conditions(p.conditions, '{m,n,o}', '{x,x,y}', NULL) c $$;
SQL

sub sql
{
	my ($sql) = @_;

	return decode('UTF-8', $node->safe_psql('postgres', encode('UTF-8', $sql)));
}

# Puts conditions into lint.answer, with the users that meet them; those that are none are left out.
sub ask
{
	my @texts = @_;
	my $n = 0;

	sql('TRUNCATE lint.asked, lint.answer; COPY lint.asked FROM STDIN;' . "\n"
		  . join('', map { $n++ . "\t" . s/([\n\r\t\\])/{ "\n" => '\n', "\r" => '\r', "\t" => '\t', '\\' => '\\\\' }->{$1}/ger . "\n" } @texts) . "\\.\n"
		  . q{INSERT INTO lint.answer SELECT a.n, a.condition::quota_manager.condition, NULL FROM lint.asked a, quota_manager.check_condition(a.condition) c WHERE c.valid;
			UPDATE lint.answer SET meets = lint.meets(condition);});
	return;
}

# Looks at a batch: which claims are refuted, and how many there were.
sub refuted
{
	my ($tally) = @_;
	my $out = sql(qq{
		CREATE TEMP TABLE found AS SELECT a.*, f.problem, f.message, position(B'1' IN a.meets) > 0 AS is_met, position(B'0' IN a.meets) > 0 AS not_all
			FROM lint.answer a LEFT JOIN LATERAL lint.findings(a.condition) f ON true;
		SELECT format('%s: %s: %s', condition, problem, message) FROM found
		WHERE CASE problem WHEN 'never_holds' THEN is_met WHEN 'always_holds' THEN not_all
			WHEN 'dead_part' THEN message NOT LIKE '%...' AND NOT lint.is_superfluous(condition, substring(message FROM 'can never hold: (.*)'), meets)
			WHEN 'superfluous_part' THEN message NOT LIKE '%...' AND NOT lint.is_superfluous(condition, substring(message FROM 'changes nothing: (.*)'), meets) END;
		SELECT format('#%s %s', coalesce(problem, 'nothing'), count(*)) FROM found GROUP BY problem;
		SELECT format('#contingent %s', count(DISTINCT n)) FROM found WHERE is_met AND not_all;
	});
	my @refuted;

	foreach my $line (split /\n/, $out)
	{
		if ($line =~ /^#(\w+) (\d+)$/) { $tally->{$1} += $2 }
		else { push @refuted, $line }
	}
	return @refuted;
}

subtest 'no claim about random conditions is refuted by a user' => sub {
	my $language = QuotaTest::ConditionGenerator->new($seed);
	my ($n, %tally, @refuted) = (0);

	sql(join ';', QuotaTest::LintGenerator::sample('lint.person', 150));
	# Users that the other generator's conditions are about.
	my $users = 0;
	sql(join '', map {
		my $user = $_;
		my @columns = map { defined $_ ? "'" . s/'/''/gr . "'" : 'NULL' } @$user{qw(id github_star vip org)}, map { defined $_ && !/(?:Z|[+-]\d\d:\d\d|infinity)$/ ? "${_}Z" : $_ } @$user{qw(register_text access_text)};
		my $balance = $user->{balance} // {};
		my $json = join ', ', map { my $at = { default => 'x', other => 'y' }->{$_}; $at ? qq("$at": $balance->{$_}) : () } sort keys %$balance;
		'INSERT INTO lint.person (n, s.id, s.github_star, s.vip, s.org, s.register_time, s.access_time, s.balances) VALUES ('
		  . join(', ', 1000 + $users++, @columns, "'{$json}'") . ");\n"
	} $language->users(60));
	while (($tally{contingent} // 0) < $cases)
	{
		ask(map { my $i = $n++; $i % 2 ? $language->condition($i) : $generator->condition(3, @QuotaTest::LintGenerator::FACTS) } 1 .. $batch);
		push @refuted, refuted(\%tally);
		last if @refuted || $n > 10 * $cases + 10 * $batch;
	}
	is(join("\n", @refuted[ 0 .. ($#refuted > 4 ? 4 : $#refuted) ]), '', 'none');
	note("of $n: ", join ', ', map { "$tally{$_} $_" } sort keys %tally);
	cmp_ok($tally{contingent}, '>=', $cases, 'enough conditions that some user meets and another does not');
	cmp_ok($tally{$_} // 0, '>', $cases / 100, "enough of $_") foreach qw(nothing never_holds dead_part superfluous_part);
};

subtest 'no containment is refuted by a user' => sub {
	my ($claims, @refuted) = (0);

	foreach my $round (1 .. $cases / 1_000)
	{
		ask(map { $generator->condition(2, @QuotaTest::LintGenerator::FACTS) } 1 .. 100);
		foreach my $line (split /\n/, sql(q{SELECT a.meets & ~b.meets = a.meets & ~a.meets, a.condition, b.condition
			FROM lint.contained() c JOIN lint.answer a ON a.n = c.a JOIN lint.answer b ON b.n = c.b}))
		{
			$claims++;
			push @refuted, $line if $line !~ /^t/;
		}
	}
	is(join("\n", @refuted[ 0 .. ($#refuted > 4 ? 4 : $#refuted) ]), '', 'none');
	note("$claims pairs");
	cmp_ok($claims, '>', $cases / 20, 'enough pairs');
};

# All users that calls about three facts can tell apart: then a claim is to be made where it is true, too.
subtest 'what is true is said' => sub {
	my ($conditions, $pairs) = (0, 0);
	my (@wrong, %tally);

	foreach my $round (1 .. 3 + $cases / 1_000)
	{
		my @facts = (sort { rand() <=> 0.5 } @QuotaTest::LintGenerator::FACTS)[ 0 .. 2 ];

		sql(join ';', 'TRUNCATE lint.person', QuotaTest::LintGenerator::product('lint.person', @facts));
		ask(map { $generator->condition(3, @facts) } 1 .. 120);
		push @wrong, refuted(\%tally);
		push @wrong, map { "@facts: $_" } grep { $_ } split /\n/, sql(q{
			WITH said AS (SELECT a.*, EXISTS (SELECT 1 FROM lint.findings(a.condition) f WHERE f.problem = 'never_holds') AS never,
					EXISTS (SELECT 1 FROM lint.findings(a.condition) f WHERE f.problem = 'always_holds') AS always,
					a.condition::text ~ '^[^a-eg-z]*(and|or|not|true|false|[(), ])*$' AS plain FROM lint.answer a)
			SELECT format('%s: never %s, always %s', condition, never, always) FROM said
			WHERE never <> (position(B'1' IN meets) = 0) OR NOT plain AND always <> (position(B'0' IN meets) = 0)});
		push @wrong, map { "@facts: $_" } grep { $_ } split /\n/, sql(q{
			CREATE TEMP TABLE said AS SELECT * FROM lint.contained();
			SELECT format('%s in %s: said %s', a.condition, b.condition, c.a IS NOT NULL)
			FROM lint.answer a JOIN lint.answer b ON a.n <> b.n LEFT JOIN said c ON c.a = a.n AND c.b = b.n
			WHERE position(B'1' IN a.meets) > 0 AND (c.a IS NOT NULL) <> (a.meets & ~b.meets = a.meets & ~a.meets)});
		$conditions += sql('SELECT count(*) FROM lint.answer');
		$pairs += sql('SELECT count(*) FROM lint.contained()');
	}
	is(join("\n", @wrong[ 0 .. ($#wrong > 4 ? 4 : $#wrong) ]), '', 'and nothing else');
	note("$conditions conditions, $pairs pairs; ", join ', ', map { "$tally{$_} $_" } sort keys %tally);
};

subtest 'every fault that is planted is found' => sub {
	my (@strategies, @planted);
	my $add = sub {
		my ($kind, %columns) = @_;
		my $name = $columns{name} = "$kind " . @strategies;

		%columns = (type => 'single', amount => 1, model => 'model ' . @strategies, condition => 'is-vip(1)', %columns);
		push @strategies, { %columns };
		push @planted, [ $name, $kind ] if $kind ne 'sound';
		return;
	};
	foreach my $i (1 .. 60)
	{
		$add->('never_holds', condition => $generator->contradiction(1));
		$add->('always_holds', condition => $generator->tautology);
		$add->('dead_part', condition => "or(match-user(\"zz\"), @{[ $generator->contradiction(0) ]})");

		my $base = $generator->sound;
		my %times = $i % 2 ? () : (type => 'periodic', periodic_expr => "@{[ $i % 60 ]} 8 * * *", time_zone => 'Asia/Shanghai');
		$add->('sound', %times, condition => $base, model => "twin $i");
		$add->('duplicate', %times, condition => $generator->rewritten($base), model => "twin $i", amount => 1 + int rand 9);
		$add->('sound', %times, condition => $base, model => "tier $i");
		$add->('paid_twice', %times, condition => "and($base, match-user(\"s\"))", model => "tier $i");

		$add->('unnamed_model', model => substr("long-model-$i", 0, -1) . 'x' . $i);
		$add->('unnamed_model', condition => "quota-le(\"absent-$i\", 5)");
		$add->('never_fires', type => 'periodic', periodic_expr => '0 0 29 2 *', valid_from => '2025-03-01', valid_until => '2028-02-29');
		$add->('never_fires', type => 'periodic', periodic_expr => "@{[ $i % 60 ]} 3 31 12 *", valid_from => sprintf('2030-01-%02d', $i % 28 + 1), valid_until => '2030-12-31');
		$add->('never_fires', type => 'periodic', periodic_expr => '0 0 1 1 *', valid_from => '294276-06-01');
		$add->('expired', valid_until => "2020-01-01 00:00:$i" =~ s/:60/:59/r);
		$add->('full_width', condition => "belong-to(\"a$_" . "b\")") foreach ('，', '“', '”', '、', '　')[ $i % 5 ];
		$add->('full_width', model => "模型，$i");
	}
	sql(join '', map { my $s = $_; my @columns = sort keys %$s;
		"INSERT INTO quota_manager.quota_strategy (@{[ join ', ', @columns ]}) VALUES (@{[ join ', ', map { q(') . $s->{$_} =~ s/'/''/gr . q(') } @columns ]});\n" } @strategies);
	# All models but those that are not to be named.
	sql(q{INSERT INTO quota_manager.quota_model SELECT DISTINCT model, 'x' FROM quota_manager.quota_strategy WHERE name NOT LIKE 'unnamed_model %' OR condition::text LIKE 'quota-le%'
		UNION SELECT DISTINCT m, CASE m WHEN 'o' THEN 'y' ELSE 'x' END FROM quota_manager.quota_strategy, unnest(quota_manager.condition_models(condition)) m WHERE m NOT LIKE 'absent-%'
		ON CONFLICT DO NOTHING});

	my %found;
	$found{ join '|', (split /\|/)[ 0, 1 ] }++ foreach split /\n/, sql('SELECT strategy, problem FROM quota_manager.lint()');
	my @missed = grep { !$found{ join '|', @$_ } } @planted;
	is(join("\n", map { my $name = $_->[0]; my ($s) = grep { $_->{name} eq $name } @strategies; "$name: $s->{condition}" } @missed), '', 'all of ' . @planted);
	is(sql(q{SELECT string_agg(strategy || ': ' || message, E'\n') FROM quota_manager.lint() WHERE strategy LIKE 'sound %' AND severity <> 'notice'}), '', 'and what is sound is not blamed');
	is(sql(q{SELECT string_agg(DISTINCT problem, ' ') FROM quota_manager.lint() WHERE severity <> 'notice' AND (strategy, problem) NOT IN (SELECT s.name, split_part(s.name, ' ', 1) FROM quota_manager.quota_strategy s)}),
		'', 'and nothing else but notices') or diag(sql(q{SELECT strategy || ': ' || problem || ': ' || message FROM quota_manager.lint()
			WHERE severity <> 'notice' AND (strategy, problem) NOT IN (SELECT s.name, split_part(s.name, ' ', 1) FROM quota_manager.quota_strategy s) LIMIT 5}));
};

$node->stop;
done_testing();
