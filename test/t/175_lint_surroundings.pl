
# Lint among roles, dumps and hostile conditions: who is told what, that a warning never keeps anybody from writing, that a
# restore says nothing, that the texts are those of docs/lint.md, and that no condition takes it long.

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node);
use Test::More;

my $node = scan_node('lint_surroundings', "log_statement = none\n");
my $never = q{'and(is-vip(3), not(is-vip(2)))'};

$node->safe_psql('postgres', q{
	CREATE ROLE viewer LOGIN; CREATE ROLE operator LOGIN; CREATE ROLE stranger LOGIN;
	SELECT quota_manager.grant_access('viewer', 'viewer'), quota_manager.grant_access('operator', 'operator');
	INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('main', 'zgsm', 'http://127.0.0.1:9', true);
	INSERT INTO quota_manager.quota_model VALUES ('gpt-4', 'main')});

# What a role is told on standard error, and what comes out.
sub as
{
	my ($role, $sql, $database) = @_;
	my ($code, $out, $err) = $node->psql($database // 'postgres', $sql, extra_params => [ '-U', $role ]);

	return ($err, $out);
}

sub strategy
{
	my ($name, $condition, %more) = @_;
	my %columns = (name => "'$name'", type => q{'single'}, amount => 1, model => q{'gpt-4'}, condition => $condition, %more);

	return 'INSERT INTO quota_manager.quota_strategy (' . join(', ', sort keys %columns) . ') VALUES (' . join(', ', @columns{ sort keys %columns }) . ');';
}

subtest 'the page shows what is said' => sub {
	my $page = slurp_file("$FindBin::RealBin/../../docs/lint.md");
	my ($statement) = $page =~ /```sql\n(INSERT .*?;)\n```/s;
	my ($told) = $page =~ /```\n\n((?:    .*\n)+)/;
	my ($err) = as('postgres', "SET search_path = quota_manager; SET quota_manager.default_strategy_state = active; $statement");

	$err =~ s/^psql:[^ ]* //mg;
	# The page breaks long lines.
	s/\s+/ /g foreach $told, $err;
	is($err, $told =~ s/^ | $//gr, 'when the strategy is written');
	my %code = map { $_ => 1 } $page =~ /^\| `(\w+)` \| (?:error|warning|notice) \| /mg;
	my @made = (slurp_file("$FindBin::RealBin/../../sql/parts/lint.sql") =~ /'(\w+)', (?:'(?:error|warning|notice)'|n\.severity)|THEN '(duplicate)' ELSE '(paid_twice)' END/g,
		slurp_file("$FindBin::RealBin/../../src/condition/finding.c") =~ /add_finding\(\s*\w+, "(\w+)"/g);

	is_deeply([ sort keys %code ], [ sort keys %{ { map { $_ => 1 } grep { defined && !/^(?:error|warning)$/ } @made } } ], 'its table has the problems that there are');
	cmp_ok(scalar(keys %code), '>', 10, 'codes');
	$node->safe_psql('postgres', 'DELETE FROM quota_manager.quota_strategy');
};

subtest 'who is told' => sub {
	my ($err, $out) = as('operator', strategy('never', $never));

	like($err, qr/WARNING:  strategy "never": the condition can never hold\n.*No user meets both is-vip\(3\) and not\(is-vip\(2\)\)\./, 'an operator who writes');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM quota_manager.quota_strategy'), 1, 'and it is written');
	($err, $out) = as('viewer', 'SELECT strategy, problem FROM quota_manager.lint()');
	is("$err$out", 'never|never_holds', 'a viewer may ask');
	($err, $out) = as('viewer', 'SELECT strategy_name, problem FROM quota_api.lint()');
	is("$err$out", 'never|never_holds', 'over the API too');
	($err, $out) = as('viewer', 'BEGIN READ ONLY; SELECT strategy, problem FROM quota_manager.lint()');
	is("$err$out", 'never|never_holds', 'in a transaction that reads only');
	like((as('stranger', 'SELECT quota_manager.lint()'))[0], qr/permission denied/, 'a stranger may not');
	like((as('viewer', q{SELECT quota_manager.lint('nobody')}))[0], qr/ERROR:  strategy "nobody" does not exist\nHINT:  See SELECT/, 'one that is not there');
};

subtest 'what a policy hides is not named' => sub {
	$node->safe_psql('postgres', strategy('hidden', q{'is-vip(1)'}) . strategy('seen', q{'is-vip(2)'}) . q{
		ALTER TABLE quota_manager.quota_strategy ENABLE ROW LEVEL SECURITY;
		CREATE POLICY site ON quota_manager.quota_strategy TO operator, viewer USING (name <> 'hidden') WITH CHECK (true)});
	my ($err, $out) = as('viewer', q{SELECT strategy, message FROM quota_manager.lint() WHERE problem = 'paid_twice'});
	is("$err$out", '', 'by lint()');
	like((as('viewer', q{SELECT quota_manager.lint('hidden')}))[0], qr/strategy "hidden" does not exist/, 'nor asked about');
	($err) = as('operator', strategy('third', q{'is-vip(3)'}));
	like($err, qr/everybody whom it pays is paid by "seen" as well/, 'by a warning');
	is((as('postgres', q{SELECT message FROM quota_manager.lint() WHERE strategy = 'seen'}))[1], 'everybody whom it pays is paid by "hidden" as well', 'others see it');
	$node->safe_psql('postgres', 'DROP POLICY site ON quota_manager.quota_strategy; ALTER TABLE quota_manager.quota_strategy DISABLE ROW LEVEL SECURITY');
};

subtest 'who may not read is not kept from writing' => sub {
	foreach my $right ('EXECUTE ON FUNCTION quota_internal.warn_of_strategies(integer[])', 'SELECT ON quota_manager.quota_strategy')
	{
		$node->safe_psql('postgres', "REVOKE $right FROM operator");
		is((as('operator', strategy("without $right", $never)))[0], '', "without $right");
		$node->safe_psql('postgres', "GRANT $right TO operator");
	}
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_strategy WHERE name LIKE 'without %'}), 2, 'both are written');
	is((as('operator', 'SET quota_manager.lint_on_write = off;' . strategy('quiet', $never)))[0], '', 'nor who does not want to know');
};

subtest 'a restore says nothing' => sub {
	my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';

	$node->safe_psql('postgres', q{CREATE FUNCTION quota_condition.gone(s quota_manager.subject) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN true;}
		. strategy('broken', q{'and(gone(), not(gone()))'}));
	$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'dumped');
	$node->safe_psql('postgres', 'CREATE DATABASE restored');
	# Without what the site has added.
	my $sql = slurp_file($dump) =~ s/^CREATE FUNCTION quota_condition\.gone.*?;\n//msr =~ s/^ALTER FUNCTION quota_condition\.gone.*?;\n//mgr =~ s/^GRANT .*?quota_condition\.gone.*?;\n//mgr;
	my ($code, $out, $err) = $node->psql('restored', $sql);

	unlike($err, qr/WARNING/, 'no warning');
	is($node->safe_psql('restored', q{SELECT count(*) FROM quota_manager.quota_strategy}), $node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_strategy}), 'all are there');
	is($node->safe_psql('restored', q{SELECT problem, message FROM quota_manager.lint('broken') LIMIT 1}), 'broken_condition|the condition cannot be evaluated: unknown condition function "gone"', 'and lint() says what is lost');
	$node->safe_psql('postgres', 'DELETE FROM quota_manager.quota_strategy');
};

subtest 'many at once are ten warnings' => sub {
	my ($err) = as('operator', q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)
		SELECT 'many ' || i, 'single', 1, 'gpt-4', format('and(is-vip(%s), not(is-vip(1)))', i)::quota_manager.condition FROM generate_series(2, 151) i});

	is(() = $err =~ /WARNING:  strategy "many/g, 10, 'ten');
	like($err, qr/WARNING:  90 more findings, in 100 strategies of 150\nHINT:  See SELECT \* FROM quota_manager\.lint\(\)\./, 'and how many more');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.lint() WHERE problem = 'never_holds'}), 150, 'lint() has all');
	$node->safe_psql('postgres', 'DELETE FROM quota_manager.quota_strategy');
	($err) = as('operator', q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)
		SELECT 'many ' || i, 'single', 1, 'gpt-4', format('match-user("u%s")', i)::quota_manager.condition FROM generate_series(2, 151) i});
	like($err, qr/^psql:<stdin>:\d+: WARNING:  only 100 strategies of 150 were looked at\nHINT:  See SELECT \* FROM quota_manager\.lint\(\)\.$/, 'or that not all were looked at');
	$node->safe_psql('postgres', 'DELETE FROM quota_manager.quota_strategy');
};

# As large as conditions can be, and made to be hard.  Time is that of the processor, since others run on the machine.
subtest 'hostile conditions' => sub {
	my $pigeons = q{(WITH p AS (SELECT p, h FROM generate_series(1, 10) p, generate_series(1, 9) h)
		SELECT 'and(' || (SELECT string_agg('or(' || l || ')', ', ') FROM (SELECT string_agg(format('github-star("%s-%s")', p, h), ', ') AS l FROM p GROUP BY p) x) || ', '
			|| (SELECT string_agg(format('not(and(github-star("%s-%s"), github-star("%s-%s")))', a.p, a.h, b.p, b.h), ', ') FROM p a JOIN p b ON a.h = b.h AND a.p < b.p) || ')')};
	my %hostile = (
		deep => q{repeat('and(is-vip(1), or(belong-to("x"), ', 249) || 'true()' || repeat('))', 249)},
		nots => q{repeat('not(', 499) || 'is-vip(1)' || repeat(')', 499)},
		pairs => q{(SELECT 'or(' || string_agg(format('and(is-vip(%s), match-user("u%s"))', i, i), ', ') || ')' FROM generate_series(1, 1500) i)},
		ids => q{(SELECT 'match-user(' || string_agg(format('"u%s"', i), ', ') || ')' FROM generate_series(1, 7000) i)},
		ors => q{(SELECT 'and(' || string_agg(format('or(is-vip(%s), github-star("u%s"))', i, i), ', ') || ')' FROM generate_series(1, 1500) i)},
		bounds => q{(SELECT 'or(' || string_agg(format('not(is-vip(%s))', i), ', ') || ')' FROM generate_series(1, 3000) i)},
		amounts => q{(SELECT 'and(' || string_agg(format('quota-le("m%s", %s)', i, i), ', ') || ')' FROM generate_series(1, 2500) i)},
		pigeons => $pigeons);

	$node->safe_psql('postgres', q{
		CREATE SCHEMA lint;
		CREATE FUNCTION lint.cpu() RETURNS bigint LANGUAGE sql VOLATILE AS $$ SELECT 10 * ((f[1])::bigint + (f[2])::bigint)
			FROM (SELECT regexp_match(pg_read_file('/proc/self/stat'), '\) (?:\S+ ){11}(\S+) (\S+)') f) x $$});
	foreach my $name (sort keys %hostile)
	{
		my $out = $node->safe_psql('postgres', qq{
			SET client_min_messages = error;
			SET quota_manager.lint_on_write = off;
			CREATE TEMP TABLE hostile AS SELECT ($hostile{$name})::quota_manager.condition AS condition, 0::bigint AS cpu;
			UPDATE hostile SET cpu = lint.cpu();
			SELECT count(*) FILTER (WHERE f.problem IN ('never_holds', 'always_holds')) FROM hostile h CROSS JOIN LATERAL quota_internal.condition_findings(h.condition, '{}', '{}') f;
			SELECT lint.cpu() - cpu FROM hostile;
			INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) SELECT '$name', 'single', 1, 'gpt-4', condition FROM hostile});
		my ($wrong, $time) = split /\n/, $out;

		is($wrong, 0, "$name: nothing is claimed");
		cmp_ok($time, '<', 1_000, "$name: $time ms");
	}
	my ($found, $time) = split /\n/, $node->safe_psql('postgres', q{
		SET client_min_messages = error;
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) SELECT 'small ' || i, 'single', 1, 'gpt-4',
			format('and(or(is-vip(%s), belong-to("o%s", "x")), register-before("2024-0%s-01 00:00:00"), quota-le("gpt-4", %s))', i % 7, i, 1 + i % 9, i)::quota_manager.condition
			FROM generate_series(1, 500) i;
		SELECT lint.cpu() AS cpu \gset
		SELECT count(*) > 0 FROM quota_manager.lint();
		SELECT lint.cpu() - :cpu});
	is($found, 't', 'with five hundred others something is found');
	cmp_ok($time, '<', 10_000, "in $time ms");

	# One more among five hundred.
	$time = $node->safe_psql('postgres', q{
		SET client_min_messages = error;
		SELECT lint.cpu() AS cpu \gset
		UPDATE quota_manager.quota_strategy SET condition = 'is-vip(4)' WHERE name = 'small 1';
		SELECT lint.cpu() - :cpu});
	cmp_ok($time, '<', 1_000, "a write takes $time ms");

	my ($err) = as('postgres', q{SET statement_timeout = '20ms'; SELECT count(*) FROM quota_manager.lint()});
	like($err, qr/canceling statement due to statement timeout/, 'it can be cancelled');
};

$node->stop;
done_testing();
