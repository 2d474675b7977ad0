
# explain_match says what the evaluation says: the whole of a random condition is what an oracle and a plan say of the user,
# each part is what three-valued logic makes of its own parts, and each change that it asks for, made, flips the call that it
# is of.
#
# QUOTA_MANAGER_EXPLAIN_PAIRS  how many pairs of a condition and a user (100000)
# QUOTA_MANAGER_EXAMPLES       another file of examples, to try besides
# QUOTA_MANAGER_SEED           another seed than the usual one

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Encode qw(decode encode);
use PostgreSQL::Test::Utils;
use QuotaTest::ConditionExamples qw(read_examples user_of);
use QuotaTest::ConditionGenerator;
use QuotaTest::ConditionNode qw(condition_node);
use QuotaTest::ConditionOracle qw(parse check evaluate);
use QuotaTest::ConditionPaths;
use Test::More;

my $pairs = $ENV{QUOTA_MANAGER_EXPLAIN_PAIRS} || 100_000;
my $seed = $ENV{QUOTA_MANAGER_SEED} || 20_261_127;
my $generator = QuotaTest::ConditionGenerator->new($seed);
my @examples = grep { $_->{expected} ne 'error' } map { read_examples($_) } "$FindBin::RealBin/../data/condition_examples.tsv",
  grep { $_ } $ENV{QUOTA_MANAGER_EXAMPLES};

# Random users, and those of the examples after them.
my @users = $generator->users(40);
my $random_users = @users;
my %place;
foreach my $example (@examples)
{
	$place{ $example->{user} } //= push(@users, user_of($example->{user})) - 1;
}

my $node = condition_node('explain');
my $paths = QuotaTest::ConditionPaths->new($node, \@users);

# Runs SQL in which text is text, and returns what it wrote.
sub sql
{
	return decode('UTF-8', $node->safe_psql('postgres', encode('UTF-8', join ";\n", @_)));
}

sub literal { return "'" . $_[0] =~ s/'/''/gr . "'"; }

note("seed $seed, $pairs pairs");

# Conditions that make sense.
my (@conditions, @trees);
for (my $n = 1; @conditions * $random_users < $pairs; $n++)
{
	my $text = $generator->condition($n);
	my ($tree) = parse($text);

	next if !defined $tree || check($tree) || length $text > 2000;
	push @conditions, $text;
	push @trees, $tree;
}
sql('CREATE TABLE asked (n integer PRIMARY KEY, condition quota_manager.condition)',
	map { "INSERT INTO asked VALUES ($_, " . literal($conditions[$_]) . ')' } 0 .. $#conditions);
sql(<<'SQL');
CREATE TABLE seen AS
	SELECT a.n AS a, p.n AS p, r.* FROM asked a, quota_test.person p, quota_internal.condition_results(p.s, a.condition) r
	WHERE p.n < 40;
ANALYZE seen;
CREATE INDEX ON seen (a, p, parent);
SQL

subtest 'the whole of a condition is what the oracle says' => sub {
	my %said = map { split / / } split /\n/,
	  sql(q{SELECT a || ' ' || string_agg(left(result, 1), '' ORDER BY p) FROM seen WHERE parent IS NULL GROUP BY a});
	my %letter = (true => 't', false => 'f', null => 'u');
	my (%tally, @wrong);

	foreach my $n (0 .. $#conditions)
	{
		my $wanted = join '', map { $letter{ evaluate($trees[$n], $_) } } @users[ 0 .. $random_users - 1 ];

		$tally{$_}++ foreach split //, $wanted;
		push @wrong, "$conditions[$n]: $said{$n}, not $wanted" if $said{$n} ne $wanted;
	}
	is(scalar(keys %said), scalar(@conditions), scalar(@conditions) . ' conditions');
	is(scalar(@wrong), 0, 'all as the oracle says') or diag(encode('UTF-8', join "\n", @wrong[ 0 .. ($#wrong < 5 ? $#wrong : 5) ]));
	cmp_ok($tally{$_} // 0, '>', $pairs / 50, "enough $_") foreach qw(t f u);
};

subtest 'and what its parts make of it' => sub {
	my $inner = sql(q{SELECT count(*) FROM seen WHERE kind <> 'call'});

	cmp_ok($inner, '>', $pairs / 2, "$inner inner parts");
	# SQL's AND, OR and NOT are three-valued as the language is.
	is(sql(<<'SQL'), '', 'each and, or and not follows from its parts');
SELECT w.a, w.p, w.text, w.result FROM seen w CROSS JOIN LATERAL (
	SELECT bool_and(v.known) FILTER (WHERE v.known IS NOT NULL) AS every, bool_or(v.known) FILTER (WHERE v.known IS NOT NULL) AS any,
		bool_or(v.known IS NULL) AS has_unknown
	FROM seen c CROSS JOIN LATERAL (SELECT nullif(c.result, 'unknown')::boolean) v (known) WHERE (c.a, c.p, c.parent) = (w.a, w.p, w.node)) c
WHERE w.kind <> 'call' AND w.result <> coalesce(CASE w.kind
	WHEN 'and' THEN c.every AND CASE WHEN NOT c.has_unknown THEN true END
	WHEN 'or' THEN c.any OR CASE WHEN NOT c.has_unknown THEN false END
	ELSE NOT c.any END::text, 'unknown')
LIMIT 5
SQL
};

subtest 'as a plan evaluates parts alone' => sub {
	# A statement for many parts; a part once for all users.
	my $differing = sql(<<'SQL');
CREATE TABLE planned (text text, p integer, result text);
DO $$
DECLARE
	part text;
BEGIN
	FOR part IN SELECT DISTINCT text FROM seen WHERE parent IS NOT NULL AND a % 5 = 0 LOOP
		EXECUTE format('INSERT INTO planned SELECT %1$L, p.n, CASE WHEN p.s OPERATOR(quota_manager.@@) %1$L THEN ''true''
			WHEN quota_manager.may_match(p.s, %1$L) THEN ''unknown'' ELSE ''false'' END FROM quota_test.person p WHERE p.n < 40', part);
	END LOOP;
END
$$;
SELECT count(*) FROM seen s JOIN planned l USING (text, p) WHERE s.result <> l.result
SQL
	cmp_ok(sql('SELECT count(*) FROM planned'), '>', $pairs / 10, 'many parts');
	is($differing, 0, 'the same');
};

# What is to change in a call, once per user and call.
sql(<<'SQL');
CREATE TABLE change AS
	SELECT c.*, e.* FROM (SELECT DISTINCT ON (s.p, s.text) s.p, s.function AS called, s.arguments, s.text, s.result FROM seen s WHERE s.kind = 'call' AND s.a % 3 = 0) c
	JOIN quota_test.person p ON p.n = c.p
	CROSS JOIN LATERAL quota_internal.explained_call(p.s, c.called, c.arguments, c.result) e;
CREATE FUNCTION changed(s quota_manager.subject, set_column text, set_value text, set_gateway text) RETURNS quota_manager.subject
LANGUAGE sql AS $$
	SELECT CASE set_column
		WHEN 'balance' THEN jsonb_populate_record(s, jsonb_build_object('balances',
			coalesce((s).balances, '{}') || jsonb_build_object(set_gateway, set_value::numeric)))
		ELSE jsonb_populate_record(s, jsonb_build_object(set_column, set_value)) END
$$;
CREATE TABLE flipped AS
	SELECT c.*, r.result AS after FROM change c JOIN quota_test.person p ON p.n = c.p
	CROSS JOIN LATERAL quota_internal.condition_results(changed(p.s, c.set_column, c.set_value, c.set_gateway), c.text) r
	WHERE c.set_column IS NOT NULL;
SQL

subtest 'each change of a built-in call, made, flips it' => sub {
	cmp_ok(sql("SELECT count(*) FROM flipped WHERE called = '$_'"), '>', $pairs / 500, "many changes for $_")
	  foreach qw(is-vip belong-to match-user github-star register-before access-after quota-le);
	cmp_ok(sql("SELECT count(*) FROM flipped WHERE result = 'unknown'"), '>', $pairs / 500, 'and for missing balances');
	is(sql(<<'SQL'), '', 'each flips its call');
SELECT result, after, text, change, set_column, set_value FROM flipped f WHERE after IS DISTINCT FROM CASE result WHEN 'true' THEN 'false' ELSE 'true' END LIMIT 5
SQL
	# What nothing can change: by the limits of a user's columns.
	is(sql(<<'SQL'), '', 'no change is left out that there is');
SELECT DISTINCT text, result, change FROM change WHERE set_column IS NULL AND NOT (called IN ('true', 'false')
	OR called = 'is-vip' AND NOT arguments[1]::numeric BETWEEN -2147483647 AND 2147483647
	OR called = 'github-star' AND quota_manager.star_list(arguments[1]) <> ARRAY[arguments[1]]
	OR called = 'match-user' AND '' = ALL (arguments)) LIMIT 5
SQL
	is(sql("SELECT count(*) FROM change WHERE change IS NULL OR (saw IS NULL OR bound IS NULL) AND called NOT IN ('true', 'false')"), 0, 'each says what it saw and what is to change');
};

subtest 'also in the tables' => sub {
	sql(<<'SQL');
INSERT INTO quota_manager.user_info (id, github_star, vip, org, register_time, access_time)
	SELECT (p.s).id, (p.s).github_star, (p.s).vip, (p.s).org, (p.s).register_time, (p.s).access_time FROM quota_test.person p WHERE p.n < 40;
INSERT INTO quota_manager.user_balance (user_id, gateway, balance)
	SELECT (p.s).id, b.key, b.value::numeric FROM quota_test.person p, jsonb_each_text((p.s).balances) b WHERE p.n < 40;
CREATE TABLE made (called text, before text, set_column text, after text, asked text);
DO $$
DECLARE
	c record;
	e record;
	again text;
BEGIN
	FOR c IN SELECT t.*, (p.s).id FROM (SELECT *, row_number() OVER (PARTITION BY called, result ORDER BY md5(p || text)) AS place FROM change WHERE set_column IS NOT NULL) t
		JOIN quota_test.person p ON p.n = t.p WHERE t.place <= 60
	LOOP
		SELECT x.* INTO e FROM quota_manager.explain_match(c.id, condition => c.text) x;
		IF e.result <> c.result OR (e.set_column, e.set_value, e.set_gateway) IS DISTINCT FROM (c.set_column, c.set_value, c.set_gateway) THEN
			INSERT INTO made VALUES (c.called, c.result, c.set_column, 'said otherwise: ' || e, c.text);
			CONTINUE;
		END IF;
		BEGIN
			IF e.set_column = 'balance' THEN
				INSERT INTO quota_manager.user_balance (user_id, gateway, balance) VALUES (c.id, e.set_gateway, e.set_value::numeric)
					ON CONFLICT (user_id, gateway) DO UPDATE SET balance = excluded.balance, read_time = clock_timestamp();
			ELSIF e.set_column = 'id' THEN
				-- A user keeps its id: the same one is asked about, or made, under another.
				INSERT INTO quota_manager.user_info (id) VALUES (coalesce(e.set_value, 'somebody else')) ON CONFLICT DO NOTHING;
				c.id := coalesce(e.set_value, 'somebody else');
			ELSE
				EXECUTE format('UPDATE quota_manager.user_info SET %I = %L WHERE id = %L', e.set_column, e.set_value, c.id);
			END IF;
			again := (SELECT x.result FROM quota_manager.explain_match(c.id, condition => c.text) x);
			RAISE SQLSTATE 'UNDO0';
		EXCEPTION WHEN SQLSTATE 'UNDO0' THEN
			INSERT INTO made VALUES (c.called, c.result, e.set_column, again, c.text);
		END;
	END LOOP;
END
$$;
SQL
	cmp_ok(sql('SELECT count(*) FROM made'), '>', 500, 'many changes');
	is(sql("SELECT * FROM made WHERE after IS DISTINCT FROM CASE before WHEN 'true' THEN 'false' ELSE 'true' END LIMIT 5"), '', 'each flips its call');
};

subtest 'the examples of the language' => sub {
	my @rows = map { "($place{ $_->{user} }, " . literal($_->{expression}) . ', ' . literal($_->{expected} eq 'null' ? 'unknown' : $_->{expected}) . ')' } @examples;

	cmp_ok(scalar(@rows), '>', 50, scalar(@rows) . ' examples');
	cmp_ok(scalar(grep { /'unknown'\)$/ } @rows), '>', 0, 'also of an undecided one');
	is(sql('SELECT v.*, e.result FROM (VALUES ' . join(', ', @rows) . ') v (p, condition, expected) JOIN quota_test.person p ON p.n = v.p
		CROSS JOIN LATERAL quota_internal.explained_tree(p.s, v.condition) e WHERE e.parent IS NULL AND e.result <> v.expected'), '', 'all as they say');
};

$node->stop('fast');
done_testing();
