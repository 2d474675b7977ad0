
# explain_match and funnel read as who calls them: a viewer may, others may not; what a policy hides is not there; the
# users are those that scans read.  Funnels are what separate queries count.  Conditions as deep and as long as can be are
# explained.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node add_gateway);
use QuotaTest::Seed;
use Test::More;

my $node = scan_node('explain_rights');
QuotaTest::Seed::start(173);

add_gateway($node, 'postgres');
sub pick { return $_[ rand @_ ]; }

# Runs SQL as a role.
sub as
{
	my ($role, @sql) = @_;

	return $node->safe_psql('postgres', join(";\n", @sql), extra_params => [ '-U', $role ]);
}

# What a role is refused.
sub refused
{
	my ($role, $sql, $error, $name) = @_;
	my ($code, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', $role ]);

	isnt($code, 0, $name) or diag($out);
	return like($err, $error, "$name: the error says so");
}

as('postgres', <<'SQL');
CREATE ROLE viewer LOGIN; CREATE ROLE worker LOGIN; CREATE ROLE stranger LOGIN; CREATE ROLE branch LOGIN;
SELECT quota_manager.grant_access('viewer', 'viewer'), quota_manager.grant_access('worker', 'worker'), quota_manager.grant_access('branch', 'viewer');
INSERT INTO quota_manager.user_info (id, vip, org, github_star, register_time, access_time)
	SELECT 'u' || n, nullif(n % 5, 4), 'org' || n % 3, CASE WHEN n % 4 > 0 THEN 'p' || n % 4 || ', p' || n % 3 END, '2024-01-01Z'::timestamptz + n * interval '1 day',
		CASE WHEN n % 7 > 0 THEN '2024-01-01Z'::timestamptz + n * interval '2 days' END FROM generate_series(1, 300) n;
INSERT INTO quota_manager.user_balance (user_id, gateway, balance) SELECT 'u' || n, 'gateway', n % 20 FROM generate_series(1, 300) n WHERE n % 3 > 0;
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('seen', 'single', 1, 'm', 'is-vip(2) and belong-to("org1")'), ('hidden', 'single', 1, 'm', 'is-vip(1)');
SQL

subtest 'who may' => sub {
	is(as('viewer', q{SELECT result FROM quota_manager.explain_match('u2', 'seen') ORDER BY node LIMIT 1}), 'false', 'a viewer explains');
	is(as('viewer', q{SELECT count(*) FROM quota_manager.explain_match_text('u2', 'seen')}), 4, 'in lines too');
	is(as('viewer', q{SELECT holds FROM quota_manager.funnel('seen') LIMIT 1}), as('viewer', q{SELECT count(*) FROM quota_manager.subject s WHERE s OPERATOR(quota_manager.@@) 'is-vip(2) and belong-to("org1")'}),
		'and counts');
	is(as('worker', q{SELECT count(*) FROM quota_manager.funnel('seen')}), 3, 'so does the role of the workers');
	refused('stranger', "SELECT * FROM quota_manager.$_", qr/permission denied/, "a stranger may not: $_") foreach q{explain_match('u2', 'seen')}, q{funnel('seen')};
	is(as('viewer', q{BEGIN READ ONLY; SELECT count(*) FROM quota_manager.explain_match('u2', 'seen'); SELECT count(*) FROM quota_manager.funnel('seen')}), "3\n3", 'nothing is written');
};

subtest 'the story of a user' => sub {
	as('worker', q{SELECT count(*) FROM quota_manager.scan('seen')});
	is(as('viewer', q{SELECT string_agg(kind, ' ' ORDER BY n) FROM quota_manager.why('u7', 'seen') WITH ORDINALITY w (at, what, kind, g, r, v, n)}), 'grant delivery now now next', 'a viewer reads it');
	is(as('viewer', q{SELECT string_agg(kind, ' ' ORDER BY n) FROM quota_manager.why('u1', 'seen') WITH ORDINALITY w (at, what, kind, g, r, v, n)}), 'left out now next', 'also of who got nothing');
	refused('stranger', q{SELECT * FROM quota_manager.why('u7', 'seen')}, qr/permission denied/, 'a stranger does not');
	as('postgres', 'ALTER TABLE quota_manager.quota_execute ENABLE ROW LEVEL SECURITY', 'ALTER TABLE quota_manager.quota_run ENABLE ROW LEVEL SECURITY',
		'CREATE POLICY everything ON quota_manager.quota_run TO branch USING (true)', 'CREATE POLICY branch ON quota_manager.quota_execute TO branch USING (user_id <> $$u7$$)');
	is(as('branch', q{SELECT string_agg(kind, ' ' ORDER BY n) FROM quota_manager.why('u7', 'seen') WITH ORDINALITY w (at, what, kind, g, r, v, n)}), 'left out now next', 'what a policy hides is not in it');
	as('postgres', 'ALTER TABLE quota_manager.quota_execute DISABLE ROW LEVEL SECURITY', 'ALTER TABLE quota_manager.quota_run DISABLE ROW LEVEL SECURITY');
	is(as('viewer', q{BEGIN READ ONLY; SELECT count(*) > 0 FROM quota_manager.why('u7', 'seen')}), 't', 'nothing is written');
};

subtest 'what a policy hides is not there' => sub {
	as('postgres', q{
		ALTER TABLE quota_manager.user_info ENABLE ROW LEVEL SECURITY; ALTER TABLE quota_manager.quota_strategy ENABLE ROW LEVEL SECURITY;
		ALTER TABLE quota_manager.user_balance ENABLE ROW LEVEL SECURITY;
		CREATE POLICY everything ON quota_manager.user_info TO viewer USING (true);
		CREATE POLICY everything ON quota_manager.quota_strategy TO viewer USING (true);
		CREATE POLICY everything ON quota_manager.user_balance TO viewer USING (true);
		CREATE POLICY branch ON quota_manager.user_info TO branch USING (org = 'org1');
		CREATE POLICY branch ON quota_manager.quota_strategy TO branch USING (name <> 'hidden')});
	is(as('branch', q{SELECT result FROM quota_manager.explain_match('u1', 'seen') WHERE parent IS NULL}), 'false', 'a user of the branch');
	refused('branch', q{SELECT * FROM quota_manager.explain_match('u2', 'seen')}, qr/user "u2" does not exist/, 'one of another');
	refused('branch', q{SELECT * FROM quota_manager.explain_match('u1', 'hidden')}, qr/strategy "hidden" does not exist/, 'a hidden strategy');
	refused('branch', q{SELECT * FROM quota_manager.funnel('hidden')}, qr/strategy "hidden" does not exist/, 'its funnel');
	is(as('branch', q{SELECT holds + fails + unknown FROM quota_manager.funnel('seen') LIMIT 1}), 100, 'the funnel counts the users of the branch');
	is(as('branch', q{SELECT result || ' ' || saw FROM quota_manager.explain_match('u1', condition => 'quota-le("m", 5)')}), 'unknown no balance, never read', 'a hidden balance');
	is(as('viewer', q{SELECT result || ' ' || split_part(saw, ',', 1) FROM quota_manager.explain_match('u1', condition => 'quota-le("m", 5)')}), 'true balance 1', 'seen by others');
	as('postgres', q{ALTER TABLE quota_manager.user_info DISABLE ROW LEVEL SECURITY; ALTER TABLE quota_manager.quota_strategy DISABLE ROW LEVEL SECURITY;
		ALTER TABLE quota_manager.user_balance DISABLE ROW LEVEL SECURITY});
};

# A random condition.
sub condition
{
	my ($depth) = @_;
	my $day = sub { return sprintf '2024-%02d-01 00:00:00', 1 + rand 12; };

	return pick(
		sprintf('is-vip(%d)', rand(6) - 1), sprintf('belong-to("org%d")', rand 4), sprintf('register-before("%s")', $day->()), sprintf('access-after("%s")', $day->()),
		sprintf('github-star("p%d")', rand 4), sprintf('match-user("u%d")', 1 + rand 300), sprintf('quota-le("m", %d)', rand 20)) if $depth == 0 || rand() < 0.2;
	return 'not(' . condition($depth - 1) . ')' if rand() < 0.2;
	return pick('and', 'or') . '(' . join(', ', map { condition($depth - 1) } 0 .. 1 + rand 3) . ')';
}

subtest 'a funnel is what separate queries count' => sub {
	as('postgres', 'CREATE TABLE asked (condition quota_manager.condition)', 'GRANT ALL ON asked TO viewer', map { "INSERT INTO asked VALUES ('" . condition(3) . "')" } 1 .. 100);
	my $wrong = as('viewer', <<'SQL');
CREATE TEMP TABLE wrong (condition text, node integer, what text, said bigint, counted bigint);
DO $$
DECLARE
	c record;
	f record;
	before text;
	counted record;
BEGIN
	FOR c IN SELECT a.condition FROM asked a LOOP
		FOR f IN SELECT u.*, t.text, array_to_string(array_agg(t.text) OVER (PARTITION BY t.parent ORDER BY t.node), ', ') AS before, w.kind AS within
			FROM quota_manager.funnel(condition => c.condition) u JOIN quota_internal.condition_tree(c.condition) t USING (node)
			LEFT JOIN quota_internal.condition_tree(c.condition) w ON w.node = t.parent
		LOOP
			EXECUTE format('SELECT count(*) FILTER (WHERE s OPERATOR(quota_manager.@@) %1$L) AS holds,
				count(*) FILTER (WHERE s OPERATOR(quota_manager.@@) %1$L IS NOT TRUE AND quota_manager.may_match(s, %1$L)) AS unknown,
				count(*) FILTER (WHERE s OPERATOR(quota_manager.@@) %2$L) AS remaining, count(*) AS users FROM quota_manager.subject s', f.text,
				CASE WHEN f.within = 'and' THEN 'and(true(), ' || f.before || ')' ELSE 'false()' END) INTO counted;
			INSERT INTO wrong SELECT c.condition, f.node, v.what, v.said, v.counted FROM (VALUES ('holds', f.holds, counted.holds), ('unknown', f.unknown, counted.unknown),
					('fails', f.fails, counted.users - counted.holds - counted.unknown), ('remaining', f.remaining, CASE WHEN f.within = 'and' THEN counted.remaining END)) v (what, said, counted)
				WHERE v.said IS DISTINCT FROM v.counted;
			INSERT INTO wrong VALUES (NULL);
		END LOOP;
	END LOOP;
END
$$;
SELECT count(*) FROM wrong WHERE condition IS NULL;
SELECT * FROM wrong WHERE condition IS NOT NULL LIMIT 5;
SQL
	my ($parts, @wrong) = split /\n/, $wrong;
	cmp_ok($parts, '>', 300, "$parts parts");
	is(join("\n", @wrong), '', 'all are the same');
};

subtest q{users of the site's} => sub {
	as('postgres', q{CREATE TABLE public.member (id text PRIMARY KEY, vip integer, org text)}, q{INSERT INTO public.member VALUES ('m1', 2, 'org1'), ('m2', 0, 'org1'), ('u1', 3, 'org1')},
		'GRANT SELECT ON public.member TO viewer', q{SELECT count(*) FROM quota_manager.set_user_source('public.member')});
	is(as('viewer', q{SELECT string_agg(result, ' ' ORDER BY node) FROM quota_manager.explain_match('m1', 'seen')}), 'true true true', 'are explained');
	is(as('viewer', q{SELECT saw FROM quota_manager.explain_match('u1', condition => 'is-vip(1)')}), 'vip = 3', 'as scans see them');
	is(as('viewer', q{SELECT holds || ' ' || fails FROM quota_manager.funnel('seen') LIMIT 1}), '2 1', 'and counted');
	refused('viewer', q{SELECT * FROM quota_manager.explain_match('u2', 'seen')}, qr/user "u2" does not exist/, 'others are not there');
	refused('branch', "SELECT * FROM quota_manager.$_", qr/role "branch" cannot read the user source public.member/, "who may not read them: $_")
	  foreach q{explain_match('m1', 'seen')}, q{funnel('seen')};
	as('postgres', 'SELECT count(*) FROM quota_manager.set_user_source(NULL)');
};

subtest 'as deep and as long as can be' => sub {
	my $deep = 'not(' x 499 . 'is-vip(2)' . ')' x 499;
	my $wide = 'or(' . join(', ', map { "match-user(\"x$_\")" } 1 .. 3100) . ')';
	my $both = 'and(is-vip(0),or(is-vip(4),is-vip(5),' x 249 . join(',', map { "is-vip($_)" } 1 .. 3500) . '))' x 249;
	my $long = 'match-user("' . 'x' x 65_500 . '")';
	my %parts = (deep => 500, wide => 3101);
	my %condition = (deep => $deep, wide => $wide, both => $both, long => $long);

	cmp_ok(length $_, '>', 2_000, 'a long condition') foreach values %condition;
	foreach my $name (sort keys %condition)
	{
		my $rows = as('viewer', "SELECT e.result FROM quota_manager.explain_match('u1', condition => '$condition{$name}') e ORDER BY e.node");
		my $wanted = as('viewer', "SELECT CASE WHEN s OPERATOR(quota_manager.@@) '$condition{$name}' THEN 'true' ELSE 'false' END FROM quota_manager.subject s WHERE s.id = 'u1'");

		is([ split /\n/, $rows ]->[0], $wanted, "$name: the whole is explained");
		is(scalar(split /\n/, $rows), $parts{$name}, "$name: all parts") if $parts{$name};
		is(as('viewer', "SELECT f.holds FROM quota_manager.funnel(condition => '$condition{$name}') f ORDER BY f.node LIMIT 1"),
			as('viewer', "SELECT count(*) FROM quota_manager.subject s WHERE s OPERATOR(quota_manager.@@) '$condition{$name}'"), "$name: and counted");
	}
	cmp_ok(as('viewer', "SELECT max(length(part)) FROM quota_manager.explain_match('u1', condition => '$long')"), '<=', 60, 'a long argument is shortened');
	refused('viewer', q{SELECT * FROM quota_manager.explain_match('''; SELECT 1; --', 'seen')}, qr/user "'; SELECT 1; --" does not exist/, 'a user that is a statement');
	is(as('viewer', q{SELECT part FROM quota_manager.funnel(condition => 'match-user("''); DROP TABLE x; --", "%s", "%1$L")')}), q{match-user("'); DROP TABLE x; --", "%s", "%1$L")}, 'a condition that is a statement');
	my ($code, undef, $err) = $node->psql('postgres', "SET statement_timeout = '50ms'; SELECT count(*) FROM quota_manager.funnel(condition => '$both')");
	like($err, qr/statement timeout/, 'what takes long can be cancelled');
};

$node->stop;
done_testing();
