
# The ways in which a scan finds users and writes grants are one: a pass that
# strategies share, a query of a strategy's own, and the condition run for each
# user agree on random conditions; a scan of who has changed finds whom a scan of
# all users finds, whoever writes meanwhile; grants are the same whether the
# table access method takes them or an INSERT.
#
# QUOTA_MANAGER_LONG=1: ten times as many rounds.  QUOTA_MANAGER_SEED: another seed.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node add_gateway);
use QuotaTest::Seed;
use Test::More;
use Time::HiRes qw(time);

my $rounds = $ENV{QUOTA_MANAGER_LONG} ? 1500 : 150;
my $seed = QuotaTest::Seed::start(101);
my $node = scan_node('engine', "max_prepared_transactions = 20\nautovacuum_naptime = 1s\nquota_manager.delete_proof = on\n");

sub sql { return $node->safe_psql('postgres', join ";\n", @_); }
sub pick { return $_[ rand @_ ]; }

add_gateway($node, 'postgres');

# A random condition on attributes.
my @times = map { sprintf '2024-%02d-01 00:00:00', $_ } 1 .. 12;

sub call
{
	return pick(
		sprintf('is-vip(%d)', rand(6) - 1), sprintf('belong-to("org%d", "org%d")', rand 5, rand 5), sprintf('register-before("%s")', pick(@times)),
		sprintf('access-after("%s")', pick(@times)), sprintf('github-star("p%d")', rand 4), sprintf('match-user("user%d", "user%d")', 1 + rand 250, 1 + rand 250),
		'true()', 'false()');
}

sub condition
{
	my ($depth) = @_;

	return call() if $depth == 0 || rand() < 0.3;
	return 'not(' . condition($depth - 1) . ')' if rand() < 0.25;
	return pick('and', 'or') . '(' . join(', ', map { condition($depth - 1) } 0 .. 1 + rand 2) . ')';
}

sub user
{
	my ($id) = @_;
	my $maybe = sub { return rand() < 0.2 ? 'NULL' : $_[0]; };

	return sprintf "('%s', %s, %s, %s, %s, %s)", $id, $maybe->(int rand 5), $maybe->(sprintf "'org%d'", rand 6),
	  $maybe->(sprintf "'p%d, p%d'", rand 5, rand 5), map { $maybe->("'" . pick(@times) . "'") } 0 .. 1;
}

sub add_users
{
	return 'INSERT INTO quota_manager.user_info (id, vip, org, github_star, register_time, access_time) VALUES ' . join(', ', map { user($_) } @_);
}

sub add_strategies
{
	my ($from, $to, $depth) = @_;

	return 'INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES '
	  . join(', ', map { sprintf "('s%d', 'single', 1, 'm', '%s')", $_, condition($depth) } $from .. $to);
}

# 100,000 pairs.
sql(add_users(map { "user$_" } 1 .. 250), add_strategies(1, 400, 3), 'ANALYZE');
my (undef, undef, $said) =
  $node->psql('postgres', q{SET client_min_messages = debug1; SELECT count(*) FROM quota_manager.scan()});
like($said, qr/(\d{2,3}) strategies share a pass over the users/, 'strategies share a pass');
my $granted = 'SELECT e.strategy_id AS s, e.user_id AS u FROM quota_manager.quota_execute e';
my $alone = <<'SQL';
DO $$
DECLARE
	strategy integer;
BEGIN
	FOR strategy IN SELECT id FROM quota_manager.quota_strategy LOOP
		PERFORM quota_internal.evaluate(ARRAY[strategy]);
		INSERT INTO alone SELECT strategy, v.user_id FROM quota_internal.evaluated_users(strategy, 'infinity', NULL) v WHERE v.verdict = 'admitted';
		PERFORM quota_internal.end_evaluation(strategy);
	END LOOP;
END
$$
SQL
sql('CREATE TABLE alone (s integer, u text)', $alone);
sql('CREATE TABLE asked AS SELECT t.id AS s, s.id AS u FROM quota_manager.quota_strategy t, quota_manager.subject s WHERE s OPERATOR(quota_manager.@@) t.condition');
sub differences { return sql("SELECT count(*) FROM (($_[0]) EXCEPT ($_[1]) UNION ALL (($_[1]) EXCEPT ($_[0]))) d"); }
cmp_ok(sql('SELECT count(*) FROM asked'), '>', 10_000, 'enough pairs match');
is(differences($granted, 'TABLE asked'), 0, 'the shared pass finds whom the condition finds that is run for each user');
# Incremental scans find nobody here: they read all users.
is(sql('SELECT count(*) FROM alone'), 0, 'who has not changed is not read again');
sql('TRUNCATE alone', 'SET quota_manager.incremental_scans = off', $alone);
is(differences('TABLE alone', 'TABLE asked'), 0, 'and so does the query of each strategy');

# Who has changed, with others writing: transactions that commit late or not at all, subtransactions, VACUUM.
sql('DELETE FROM quota_manager.quota_execute', 'DELETE FROM quota_manager.quota_run', 'DELETE FROM quota_manager.quota_strategy',
	add_strategies(1, 12, 2), 'SELECT quota_manager.scan()');
my $missed = q{SELECT count(*) FROM quota_manager.quota_strategy t, quota_manager.subject s WHERE s OPERATOR(quota_manager.@@) t.condition
	AND NOT EXISTS (SELECT 1 FROM quota_manager.quota_execute e WHERE e.strategy_id = t.id AND e.user_id = s.id)};
my $last = 250;
my %open;

sub change
{
	my @users = map { 'user' . (1 + int rand $last) } 0 .. rand 4;
	my $where = "WHERE id IN ('" . join("', '", @users) . "')";

	return pick(
		add_users(map { 'user' . ++$last } 0 .. rand 3), sprintf('UPDATE quota_manager.user_info SET vip = %d %s', rand 5, $where),
		sprintf("UPDATE quota_manager.user_info SET access_time = '%s', org = 'org%d' %s", pick(@times), rand 6, $where),
		"DELETE FROM quota_manager.user_info $where",
		sprintf("SAVEPOINT s; UPDATE quota_manager.user_info SET vip = %d %s; %s", rand 5, $where, pick('ROLLBACK TO s', 'RELEASE s')));
}

my $lost = 0;
foreach my $round (1 .. $rounds)
{
	my $name = 't' . int rand 4;

	if (exists $open{$name})
	{
		sql(pick('COMMIT', 'COMMIT', 'ROLLBACK') . " PREPARED '$name'");
		delete $open{$name};
	}
	elsif (rand() < 0.4)
	{
		# A row that another one has open would be waited for.
		my ($code) = $node->psql('postgres', join ";\n", q{SET lock_timeout = '10ms'}, 'BEGIN', change(), change(), "PREPARE TRANSACTION '$name'");

		$open{$name} = 1 if sql("SELECT count(*) FROM pg_prepared_xacts WHERE gid = '$name'") == 1;
	}
	else
	{
		$node->psql('postgres', join ";\n", q{SET lock_timeout = '10ms'}, 'BEGIN', change(), pick('COMMIT', 'COMMIT', 'ROLLBACK'));
	}
	sql(pick('VACUUM quota_manager.user_info', 'VACUUM (FREEZE) quota_manager.user_info', 'CHECKPOINT')) if rand() < 0.1;
	next if rand() < 0.4;
	$lost += (split /\n/, sql('SET client_min_messages = warning', 'SELECT count(*) FROM quota_manager.scan()', $missed))[-1];
	BAIL_OUT("seed $seed, round $round: somebody was missed") if $lost > 0;
}
sql("COMMIT PREPARED '$_'") foreach keys %open;
is(sql('SELECT count(*) FROM quota_manager.scan()', $missed) =~ s/\A.*\n//r, 0, 'nobody is missed by scans of who has changed');
cmp_ok(sql('SELECT coalesce(sum(occurrences), 0) FROM quota_manager.quota_run WHERE whole_reason IS NULL'), '>', $rounds / 5, 'of which there were enough');
is(sql('SET quota_manager.incremental_scans = off', 'SELECT sum(granted) FROM quota_manager.scan()'), 0, 'a scan of all users finds nobody more');

# Rewritten by others, a table says so.
foreach my $rewrite ('VACUUM FULL quota_manager.user_info', 'ALTER TABLE quota_manager.user_info ADD COLUMN extra integer DEFAULT 5',
	'TRUNCATE quota_manager.quota_run')
{
	sql('SELECT count(*) FROM quota_manager.scan()', 'SELECT count(*) FROM quota_manager.scan()');
	sql($rewrite);
	sql('SELECT count(*) FROM quota_manager.scan()');
	is(sql(q{SELECT string_agg(DISTINCT coalesce(whole_reason, 'none'), ', ') FROM (SELECT DISTINCT ON (strategy_id) whole_reason
			FROM quota_manager.quota_run ORDER BY strategy_id, id DESC) r}) =~ /none/ ? 'incremental' : 'all users', 'all users', "$rewrite: all users are looked at");
}

# What a virtual column says is in no row, so that no row is written when it changes.
SKIP:
{
	skip 'there are no virtual columns before 18', 1 if $node->pg_version < 18;
	sql('ALTER TABLE quota_manager.user_info ADD COLUMN twice bigint GENERATED ALWAYS AS (vip * 2) VIRTUAL',
		'SELECT count(*) FROM quota_manager.scan()', 'SELECT count(*) FROM quota_manager.scan()', 'SELECT count(*) FROM quota_manager.scan()');
	is(sql(q{SELECT count(*) FROM (SELECT DISTINCT ON (strategy_id) whole_reason FROM quota_manager.quota_run ORDER BY strategy_id, id DESC) r
		WHERE whole_reason IS NULL}), 0, 'with a virtual column all users are read each time');
	sql('ALTER TABLE quota_manager.user_info DROP COLUMN twice');
}

subtest 'the other way to write' => sub {
	sql(q{DELETE FROM quota_manager.quota_execute}, q{DELETE FROM quota_internal.scan_mark}, q{SELECT count(*) FROM quota_manager.scan()});
	my $digest = q{SELECT count(*), md5(string_agg(concat_ws('|', strategy_id, user_id, scheduled_time, status, amount, model, gateway), ',' ORDER BY strategy_id, user_id))
		FROM quota_manager.quota_execute};
	my $grants = sql($digest);
	sql(q{DELETE FROM quota_manager.quota_execute}, q{DELETE FROM quota_internal.scan_mark}, 'CREATE TABLE seen (user_id text)',
		q{CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (NEW.user_id); RETURN NULL; END $$},
		q{CREATE TRIGGER note AFTER INSERT ON quota_manager.quota_execute FOR EACH ROW EXECUTE FUNCTION note()},
		q{SELECT count(*) FROM quota_manager.scan()});
	is(sql($digest), $grants, 'a table with a trigger gets the same grants');
	is(sql('SELECT count(*) FROM seen'), (split /\|/, $grants)[0], 'and the trigger sees each of them');
};

# A site's partition: what its bounds do not allow is not written.  From 17 on a table with an identity column
# cannot become one.
SKIP:
{
	skip 'a table with an identity column cannot become a partition', 2 if $node->pg_version >= 17;
	sql(q{DELETE FROM quota_manager.quota_execute}, q{DELETE FROM quota_internal.scan_mark}, 'DROP TRIGGER note ON quota_manager.quota_execute',
		'CREATE TABLE all_grants (LIKE quota_manager.quota_execute) PARTITION BY LIST (gateway)',
		q{ALTER TABLE all_grants ATTACH PARTITION quota_manager.quota_execute FOR VALUES IN ('elsewhere')});
	like(sql(q{SELECT string_agg(DISTINCT error, ', ') FROM quota_manager.scan() WHERE granted > 0 OR error IS NOT NULL}), qr/violates partition constraint/,
		'the bounds of a partition hold');
	is(sql('SELECT count(*) FROM quota_manager.quota_execute'), 0, 'and nothing was written beyond them');
}

$node->stop;
done_testing();
