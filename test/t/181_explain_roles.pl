
# Explanations, comparisons and previews run code that others have written (condition functions, what reads a user source)
# as a scan does: as who asks, or for who can become a superuser as the workers' role; restricted, and without a write or
# a trace.  What they answer is what a scan of the role finds.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node add_gateway);
use QuotaTest::Wait qw(wait_until);
use Test::More;

my $node = scan_node('explain_roles', "quota_manager.worker_role = 'worker'");

sub sql { return $node->safe_psql('postgres', join ";\n", @_); }

# The answer of a session of a role, or its error.
sub as
{
	my ($role, @statements) = @_;
	my ($code, $out, $err) = $node->psql('postgres', join(";\n", @statements), extra_params => [ '-U', $role, '-q' ]);

	return $code == 0 ? $out : $err =~ /ERROR:\s+(.*)/ ? "ERROR: $1" : $err;
}

add_gateway($node, 'postgres');
sql(<<'SQL');
CREATE ROLE viewer LOGIN; CREATE ROLE operator LOGIN; CREATE ROLE worker LOGIN; CREATE ROLE creator LOGIN CREATEROLE; CREATE ROLE branch LOGIN; CREATE ROLE mallory LOGIN;
CREATE ROLE guest LOGIN;
SELECT quota_manager.grant_access(a.role::regrole, a.level) FROM (VALUES ('viewer', 'viewer'), ('operator', 'operator'), ('worker', 'worker'), ('creator', 'operator'), ('branch', 'viewer')) a (role, level);
INSERT INTO quota_manager.user_info (id, vip, org, register_time) SELECT 'u' || n, n % 4, 'org' || n % 3, '2024-01-01 22:00:00Z'::timestamptz + n * interval '5 hours' FROM generate_series(1, 12) n;
CREATE SCHEMA mallory AUTHORIZATION mallory;
GRANT USAGE ON SCHEMA mallory TO PUBLIC;
GRANT CREATE, USAGE ON SCHEMA quota_condition TO mallory;
GRANT USAGE ON SCHEMA quota_manager TO mallory;
CREATE TABLE public.signs (what text);
GRANT ALL ON public.signs TO PUBLIC;
SET ROLE mallory;
CREATE TABLE mallory.loot (what text);
GRANT ALL ON mallory.loot TO PUBLIC;
-- Raises nothing, whatever is refused.
CREATE FUNCTION mallory.steal() RETURNS boolean LANGUAGE plpgsql VOLATILE PARALLEL SAFE AS $$
DECLARE
	act text;
	cursor refcursor := 'trap';
BEGIN
	FOREACH act IN ARRAY ARRAY['RESET ROLE', 'SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres', 'ALTER ROLE mallory SUPERUSER', 'CREATE TABLE mallory.made ()',
		'CREATE TEMP TABLE pitfall (a integer)', 'INSERT INTO mallory.loot VALUES (current_user)', 'INSERT INTO public.signs VALUES (current_user)',
		'DECLARE held CURSOR WITH HOLD FOR SELECT 1', 'PREPARE prepared AS SELECT 1', 'LISTEN channel', 'SET transaction_read_only = off', 'SET LOCAL transaction_read_only = off',
		'SET search_path = mallory', 'SET LOCAL search_path = mallory', 'SET timezone = ''Asia/Tokyo''', 'SET quota_manager.pinned_statistics = off', 'SET row_security = off',
		'CREATE FUNCTION mallory.left_behind() RETURNS integer LANGUAGE sql RETURN 1', 'SET my.note = ''left''', 'INSERT INTO public.signs VALUES (current_user)'] LOOP
		BEGIN
			EXECUTE act;
		EXCEPTION WHEN OTHERS THEN
		END;
	END LOOP;
	BEGIN
		OPEN cursor FOR SELECT current_user;
	EXCEPTION WHEN OTHERS THEN
	END;
	RETURN true;
END $$;
CREATE FUNCTION mallory.become() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RESET ROLE; RETURN true; END $$;
CREATE FUNCTION mallory.sign() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.signs VALUES (current_user); RETURN true; END $$;
CREATE FUNCTION quota_condition.evil(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RETURN mallory.steal(); END $$;
CREATE FUNCTION quota_condition.become(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RETURN mallory.become(); END $$;
CREATE FUNCTION quota_condition.sign(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RETURN mallory.sign(); END $$;
CREATE FUNCTION quota_condition.fail(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RAISE EXCEPTION 'failed'; END $$;
CREATE FUNCTION quota_condition.run_as(s quota_manager.subject, role text) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RETURN current_user = role; END $$;
-- Constant for the planner, which runs it.
CREATE FUNCTION mallory.planned(role text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$ BEGIN RETURN current_user = role; END $$;
CREATE FUNCTION quota_condition.planned_as(s quota_manager.subject, role text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT mallory.planned(role) $$;
-- These depend on settings, and on the user.
CREATE FUNCTION quota_condition.born_on(s quota_manager.subject, day text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT s.register_time::pg_catalog.date::pg_catalog.text = day $$;
CREATE FUNCTION quota_condition.odd(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RETURN CASE WHEN (s).vip > 2 THEN NULL ELSE (s).vip % 2 = 1 END; END $$;
RESET ROLE;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA quota_condition TO PUBLIC;
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('evil', 'single', 1, 'm', 'false()');
UPDATE quota_manager.quota_strategy SET condition = 'evil()';
SQL

my $before_16 = sql('SHOW server_version_num') < 160000;

# What hostile code could have left behind in a session, or anywhere.
my $trace = q{
SELECT concat_ws(' ', current_user = session_user, current_setting('role'), current_setting('search_path'), current_setting('timezone'), current_setting('transaction_read_only'),
	current_setting('row_security'), nullif(current_setting('my.note', true), ''), (SELECT count(*) FROM pg_cursors WHERE name IN ('trap', 'held')), (SELECT count(*) FROM pg_prepared_statements WHERE name = 'prepared'),
	(SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_class WHERE relname IN ('pitfall', 'made')), (SELECT count(*) FROM pg_proc WHERE proname = 'left_behind'),
	(SELECT count(*) FROM mallory.loot), (SELECT count(*) FROM public.signs), (SELECT count(*) FROM pg_roles WHERE rolname = 'mallory' AND rolsuper), pg_current_xact_id_if_assigned() IS NULL)};
my $no_trace = 't none "$user", public UTC off on 0 0 0 0 0 0 0 0 t';

# What can be asked about a condition of which there is a strategy, and one of which each part that is asked for is.
sub questions
{
	my ($strategy, $condition) = @_;

	return (
		explain_match => "SELECT result = 'true' FROM quota_manager.explain_match('u1', '$strategy') ORDER BY node LIMIT 1",
		'explain_match of a condition' => "SELECT result = 'true' FROM quota_manager.explain_match('u1', condition => '$condition') ORDER BY node LIMIT 1",
		explain_match_text => "SELECT bool_or(l LIKE '%(true%') FROM quota_manager.explain_match_text('u1', '$strategy') l",
		funnel => "SELECT holds > 0 FROM quota_manager.funnel('$strategy') ORDER BY node LIMIT 1",
		diff => "SELECT count(*) > 0 FROM quota_manager.diff('$strategy')",
		diff_counts => "SELECT gained > 0 FROM quota_manager.diff_counts('$strategy')",
		why => "SELECT bool_or(what LIKE 'the user meets the condition now%') FROM quota_manager.why('u1', '$strategy')",
		preview => "SELECT sum(users) > 0 FROM quota_manager.preview('$strategy')",
		'preview of a condition' => "SELECT sum(users) > 0 FROM quota_manager.preview(condition => '$condition')",
		'preview of an edit' => qq{SELECT sum(users) > 0 FROM quota_manager.preview('$strategy', changes => jsonb_build_object('condition', '$condition'))},
		preview_users => "SELECT count(*) > 0 FROM quota_manager.preview_users('$strategy')",
		forecast => "SELECT sum(users) > 0 FROM quota_manager.forecast(strategy => '$strategy')",
		'api.explain_match' => "SELECT result = 'true' FROM quota_api.explain_match('u1', '$strategy') ORDER BY node LIMIT 1",
		'api.funnel' => "SELECT holds > 0 FROM quota_api.funnel('$strategy') ORDER BY node LIMIT 1",
		'api.diff' => "SELECT count(*) > 0 FROM quota_api.diff('$strategy')",
		'api.diff_counts' => "SELECT gained > 0 FROM quota_api.diff_counts('$strategy')",
		'api.why' => "SELECT bool_or(what LIKE 'the user meets the condition now%') FROM quota_api.why('u1', '$strategy')",
		'api.explain' => "SELECT holds FROM quota_api.explain('$strategy', 'u1') WHERE step = 6",
		'api.preview' => "SELECT count(*) > 0 FROM quota_api.preview(strategy => '$strategy')",
		'api.preview of a condition' => "SELECT count(*) > 0 FROM quota_api.preview(condition => '$condition')",
		'api.preview of a parameter' => "PREPARE p (quota_manager.condition) AS SELECT count(*) > 0 FROM quota_api.preview(condition => \$1); SET LOCAL plan_cache_mode = force_generic_plan; EXECUTE p ('$condition')",
		'api.preview_counts' => "SELECT sum(users) > 0 FROM quota_api.preview_counts('$strategy')",
		'api.preview_users' => "SELECT count(*) > 0 FROM quota_api.preview_users('$strategy')",
		'api.forecast_firings' => "SELECT sum(users) > 0 FROM quota_api.forecast_firings(strategy => '$strategy')",
		'api.forecast' => "SELECT matched > 0 FROM quota_api.forecast('$strategy')");
}

# The answers of one session of a role to all of these, or their errors; and what each left behind.
sub answers
{
	my ($role, %question) = @_;
	my @names = sort keys %question;
	my (undef, $out, $err) = $node->psql('postgres',
		join("\n", map { "\\echo :::$_\nBEGIN;\nSAVEPOINT before;\n$question{$_};\n\\if :ERROR\n\\echo ERROR: :LAST_ERROR_MESSAGE\nROLLBACK TO before;\n\\endif\n\\echo ::\n$trace;\nCOMMIT;\nDEALLOCATE ALL;" } @names),
		on_error_stop => 0, extra_params => [ '-U', $role, '-q' ]);
	my %answer = map { /^(.*?)\n(.*?)\n?::\n(.*?)\n?\z/s ? ($1 => [ $2, $3 ]) : () } split /^:::/m, $out;

	is(join(' ', sort keys %answer), join(' ', @names), "$role is answered") or diag($out, $err);
	return %answer;
}

# Checks them, but for those whose names match $except.
sub check_answers
{
	my ($role, $expected, $what, $question, $except) = @_;
	my %answer = answers($role, %$question);

	foreach my $name (sort keys %answer)
	{
		is($answer{$name}[0] =~ s/^ERROR: \{"code" : "\w+", "message" : "(.*)", "details" : .*/ERROR: $1/r =~ s/\\"/"/gr, $expected, "$role: $name: $what") if !$except || $name !~ $except;
		is($answer{$name}[1], $no_trace, "$role: $name: $what: nothing is left behind");
	}
	return;
}

# Makes a strategy whose condition has replaced one that nobody meets.
sub strategy
{
	my ($name, $condition) = @_;

	sql("INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('$name', 'single', 1, 'm', 'false()')",
		"UPDATE quota_manager.quota_strategy SET condition = '$condition' WHERE name = '$name'");
	return;
}

# Its owner runs what mallory has written when it makes an index or plans.
my $clean = 'SET client_min_messages = error; DELETE FROM mallory.loot; DELETE FROM public.signs; DROP TABLE IF EXISTS mallory.made; DROP FUNCTION IF EXISTS mallory.left_behind';
my %reader = (postgres => 'worker', creator => $before_16 ? 'worker' : 'creator', operator => 'operator', viewer => 'viewer');

subtest 'code of others has the rights that it has in a scan' => sub {
	foreach my $role (sort keys %reader)
	{
		my %of = (run => "run-as(\"$reader{$role}\")", planned => "planned-as(\"$reader{$role}\")");

		foreach my $kind (sort keys %of)
		{
			strategy("$kind as $role", $of{$kind});
			check_answers($role, 't', "$kind as $reader{$role}", { questions("$kind as $role", $of{$kind}) });
		}
	}
};

subtest 'it leaves nothing behind' => sub {
	check_answers($_, 't', 'an answer', { questions('evil', 'evil()') }) foreach sort keys %reader;
	is(sql('SELECT count(*) FROM mallory.loot', 'SELECT count(*) FROM public.signs', q{SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'}), "0\n0\nf", 'nor anywhere else');
};

subtest 'what it may not do is an error, after which the session is as before' => sub {
	my %refused = ('become()' => 'cannot set parameter "role" within security-definer function', 'sign()' => 'cannot execute INSERT in a read-only transaction', 'fail()' => 'failed');

	foreach my $condition (sort keys %refused)
	{
		strategy($condition, $condition);
		# A story and a forecast go on.
		check_answers($_, "ERROR: $refused{$condition}", $condition, { questions($condition, $condition) }, qr/why|forecast/) foreach sort keys %reader;
	}
	like(as('viewer', q{SELECT string_agg(what, E'\n') FROM quota_manager.why('u1', 'fail()')}), qr/^whether the user meets the condition now is not known: failed$/m, 'a story says what failed');
	is(as('viewer', q{SELECT note FROM quota_manager.forecast(strategy => 'fail()')}), 'failed', 'so does a forecast');
	like(as('viewer', q{SELECT count(*) FROM quota_manager.forecast()}), qr/^\d+$/, 'of all, too');
};

subtest 'within functions that are SECURITY DEFINER' => sub {
	sql(q{CREATE FUNCTION public.by_postgres(condition quota_manager.condition) RETURNS text LANGUAGE sql SECURITY DEFINER
			AS $$ SELECT result FROM quota_manager.explain_match('u1', condition => condition) ORDER BY node LIMIT 1 $$;
		CREATE FUNCTION public.by_branch(condition quota_manager.condition) RETURNS text LANGUAGE sql SECURITY DEFINER
			AS $$ SELECT result FROM quota_manager.explain_match('u1', condition => condition) ORDER BY node LIMIT 1 $$;
		ALTER FUNCTION public.by_branch OWNER TO branch;
		CREATE FUNCTION public.counted_by_branch(condition quota_manager.condition) RETURNS bigint LANGUAGE sql SECURITY DEFINER
			AS $$ SELECT holds FROM quota_manager.funnel(condition => condition) ORDER BY node LIMIT 1 $$;
		ALTER FUNCTION public.counted_by_branch OWNER TO branch;
		GRANT USAGE ON SCHEMA quota_manager, public TO guest});
	is(as('guest', q{SELECT public.by_postgres('run-as("worker")')}), 'true', q{one of a superuser's asks as the workers' role});
	is(as($_, q{SELECT public.by_branch('run-as("branch")')}), 'true', "one of a viewer's asks as the viewer, whoever calls it: $_") foreach qw(postgres viewer guest);
	foreach my $call (q{by_postgres('evil()')}, q{by_branch('evil()')})
	{
		is(as('postgres', 'BEGIN', "SELECT public.$call", $trace, 'COMMIT'), "true\n$no_trace", "nothing is left behind: $call");
	}
	sql(q{ALTER TABLE quota_manager.user_info ENABLE ROW LEVEL SECURITY; CREATE POLICY branch ON quota_manager.user_info TO branch USING (org = 'org1');
		CREATE POLICY others ON quota_manager.user_info TO viewer, operator, worker USING (true)});
	is(as($_, q{SELECT public.counted_by_branch('run-as("branch")')}), 4, "and is shown what the viewer is: $_") foreach qw(postgres guest viewer);
	is(as('branch', q{SELECT holds + fails FROM quota_manager.funnel(condition => 'run-as("x")') LIMIT 1}), 4, 'a viewer is shown what policies let him see');
	is(as('branch', q{SELECT count(*) FROM quota_api.preview(condition => 'run-as("branch")')}), 4, 'over HTTP too');
	is(as('branch', q{SELECT * FROM quota_manager.explain_match('u2', condition => 'run-as("branch")')}), 'ERROR: user "u2" does not exist', 'no other user is there');
	sql('DROP POLICY branch ON quota_manager.user_info; DROP POLICY others ON quota_manager.user_info; ALTER TABLE quota_manager.user_info DISABLE ROW LEVEL SECURITY');
};

subtest 'not by the back' => sub {
	is(as('viewer', q{SELECT * FROM quota_internal.ask('SELECT current_user::text', NULL, 1) a (who text)}), 'viewer', 'a viewer asks as himself');
	is(as('guest', q{SELECT * FROM quota_internal.ask('SELECT current_user::text', NULL, 1) a (who text)}), 'ERROR: permission denied for schema quota_internal', 'others do not');
	like(as('viewer', qq{SELECT * FROM quota_internal.ask('$_', NULL, 1) a (who text)}), qr/ERROR: /, "nothing is written: $_")
	  foreach 'INSERT INTO public.signs VALUES ($$x$$) RETURNING what', 'WITH w AS (DELETE FROM public.signs RETURNING what) SELECT what FROM w', 'SET ROLE postgres', 'SELECT mallory.sign()::text', 'COMMIT', 'SELECT 1; SELECT 2', 'SELECT 1', 'SELECT $$a$$, $$b$$', '';
	is(sql('SELECT count(*) FROM public.signs'), 0, 'nothing was');
};

# The users whom a scan, rolled back, grants; and those whom questions say to meet it.
sub users_of_scan { my ($role, $strategy) = @_; return as($role, 'BEGIN', "SELECT FROM quota_manager.scan('$strategy')", "SELECT string_agg(e.user_id, ' ' ORDER BY e.user_id) FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name = '$strategy'", 'ROLLBACK') =~ s/^\n//r; }

subtest 'answers are those of a scan' => sub {
	my @condition = ('odd()', 'not(odd())', 'born-on("2024-01-02")', 'is-vip(1) and not(born-on("2024-01-03")) or odd()', 'run-as("worker") and odd()', 'run-as("operator") or is-vip(3)');

	foreach my $n (0 .. $#condition)
	{
		strategy("scanned $n", $condition[$n]);
		foreach my $role (qw(postgres operator))
		{
			my @settings = ("SET timezone = 'Asia/Tokyo'", q{SET datestyle = 'German'});
			my $wanted = users_of_scan($role, "scanned $n");
			my $name = "$role: $condition[$n]";

			isnt($wanted, '', "$name: there are some") unless $role eq 'operator' && $condition[$n] =~ /worker/;
			is(as($role, @settings, "SELECT string_agg(u.id, ' ' ORDER BY u.id) FROM quota_manager.user_info u, quota_manager.explain_match(u.id, 'scanned $n') e WHERE e.parent IS NULL AND e.result = 'true'"), $wanted, "$name: explained");
			is(as($role, @settings, "SELECT string_agg(user_id, ' ' ORDER BY user_id) FROM quota_manager.preview_users('scanned $n', n => 1000)"), $wanted, "$name: previewed");
			is(as($role, @settings, "SELECT string_agg(user_id, ' ' ORDER BY user_id) FROM quota_manager.diff('scanned $n') WHERE change = 'gained'"), $wanted, "$name: compared with nobody");
			is(as($role, @settings, "SELECT string_agg(id, ' ' ORDER BY id) FROM quota_api.preview(condition => '$condition[$n]')"), $wanted, "$name: over HTTP");
			is(as($role, @settings, "SELECT string_agg(u.id, ' ' ORDER BY u.id) FROM quota_manager.user_info u, quota_api.explain('scanned $n', u.id) e WHERE e.step = 6 AND e.holds"), $wanted, "$name: question by question");
			is(as($role, @settings, "SELECT string_agg(u.id, ' ' ORDER BY u.id) FROM quota_manager.user_info u, quota_manager.why(u.id, 'scanned $n') w WHERE w.what LIKE 'the user meets%'"), $wanted, "$name: told");
			is(as($role, @settings, "SELECT holds FROM quota_manager.funnel('scanned $n') ORDER BY node LIMIT 1"), scalar(split(/ /, $wanted)), "$name: counted");
		}
	}
};

subtest 'who brings users from elsewhere' => sub {
	# A view whose functions run, a policy, an index, and a column whose type becomes another one that is cast.
	sql(<<'SQL');
SET ROLE mallory;
CREATE FUNCTION mallory.me(id text) RETURNS text LANGUAGE plpgsql VOLATILE PARALLEL SAFE AS $$ BEGIN RETURN current_user; END $$;
CREATE FUNCTION mallory.indexed(vip integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$ BEGIN PERFORM mallory.steal(); RETURN vip; END $$;
CREATE FUNCTION mallory.stealing(id text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN PERFORM mallory.steal(); RETURN id; END $$;
CREATE FUNCTION mallory.signing(id text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN PERFORM mallory.sign(); RETURN id; END $$;
CREATE FUNCTION mallory.allows() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM mallory.steal(); RETURN current_user IN ('worker', 'viewer', 'operator', 'creator'); END $$;
CREATE TABLE mallory.members (id text, vip integer, org text);
INSERT INTO mallory.members SELECT 'u' || n, n % 4, 'org' || n % 3 FROM generate_series(1, 12) n;
CREATE VIEW mallory.people AS SELECT mallory.stealing(m.id) AS id, mallory.me(m.id) AS org, m.vip FROM mallory.members m;
CREATE VIEW mallory.guestbook AS SELECT mallory.signing(m.id) AS id, m.org, m.vip FROM mallory.members m;
CREATE TABLE mallory.guarded (id text, vip integer, org text);
INSERT INTO mallory.guarded SELECT * FROM mallory.members;
CREATE INDEX ON mallory.guarded ((mallory.indexed(vip)));
ALTER TABLE mallory.guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY guard ON mallory.guarded USING (mallory.allows());
CREATE TYPE mallory.level AS (n integer);
CREATE FUNCTION mallory.as_level(n integer) RETURNS mallory.level LANGUAGE sql RETURN ROW(n)::mallory.level;
CREATE FUNCTION mallory.as_integer(level mallory.level) RETURNS integer LANGUAGE plpgsql AS $$
	BEGIN PERFORM mallory.steal(); RETURN CASE WHEN current_user IN ('worker', 'viewer', 'operator', 'creator') THEN (level).n ELSE -1 END; END $$;
GRANT SELECT ON ALL TABLES IN SCHEMA mallory TO PUBLIC;
SQL
	sql($clean);
	foreach my $source (qw(people guarded))
	{
		sql("SET client_min_messages = error; SELECT FROM quota_manager.set_user_source('mallory.$source')", $clean);
		foreach my $role (sort keys %reader)
		{
			my $condition = $source eq 'people' ? "belong-to(\"$reader{$role}\")" : 'is-vip(1)';

			strategy("$source of $role", $condition);
			check_answers($role, 't', "$condition of $source", { questions("$source of $role", $condition) });
		}
	}
	# As it was when it was set, and as its owner has made it.
	sql('ALTER TABLE mallory.guarded DISABLE ROW LEVEL SECURITY', 'SET client_min_messages = error; DROP INDEX mallory.guarded_indexed_idx',
		'SET ROLE mallory; ALTER TABLE mallory.guarded ALTER COLUMN vip TYPE mallory.level USING mallory.as_level(vip); CREATE CAST (mallory.level AS integer) WITH FUNCTION mallory.as_integer AS IMPLICIT');
	foreach my $role (sort keys %reader)
	{
		check_answers($role, 't', 'a cast', { questions("guarded of $role", 'is-vip(1)') });
	}
	sql("SELECT FROM quota_manager.set_user_source('mallory.guestbook')", $clean);
	strategy('signed', 'is-vip(1)');
	check_answers('postgres', 'ERROR: cannot execute INSERT in a read-only transaction', 'a source whose reading writes', { questions('signed', 'is-vip(1)') }, qr/why|forecast/);
	is(sql('SELECT count(*) FROM public.signs'), 0, 'nothing was written');
	sql('SELECT FROM quota_manager.set_user_source(NULL)');
};

subtest 'in what is restricted already' => sub {
	sql(q{CREATE MATERIALIZED VIEW public.counted AS SELECT holds FROM quota_manager.funnel(condition => 'run-as("branch")') LIMIT 1;
		ALTER MATERIALIZED VIEW public.counted OWNER TO branch; GRANT SELECT ON public.counted TO PUBLIC});
	sql('REFRESH MATERIALIZED VIEW public.counted');
	is(sql('SELECT holds FROM public.counted'), 12, 'a materialized view asks as its owner, whoever refreshes it');
	sql(q{SET ROLE mallory;
		CREATE FUNCTION quota_condition.again(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS $$ BEGIN RETURN (SELECT result FROM quota_manager.explain_match((s).id, condition => 'run-as("worker")') LIMIT 1) = 'true'; END $$});
	is(as('postgres', q{SELECT holds FROM quota_manager.funnel(condition => 'again()') LIMIT 1}), 12, 'so does code of others: as who it runs as');
	sql(q{SET ROLE mallory; CREATE FUNCTION quota_condition.endless(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS $$ BEGIN RETURN (SELECT result FROM quota_manager.explain_match((s).id, condition => 'endless()') LIMIT 1) = 'true'; END $$});
	is(as('postgres', q{SELECT count(*) FROM quota_manager.explain_match('u1', condition => 'endless()')}), 'ERROR: stack depth limit exceeded', 'which has an end');
};

# Lets sessions that begin from now on have the setting.
sub set_worker_role
{
	my ($role) = @_;

	$node->append_conf('postgresql.conf', "quota_manager.worker_role = '$role'");
	$node->reload;
	wait_until($node, "SELECT current_setting('quota_manager.worker_role', true) = '$role'");
	return;
}

subtest q{with a workers' role that will not do} => sub {
	my $ask = q{SELECT holds FROM quota_manager.funnel(condition => 'odd()') LIMIT 1};
	my $refused = qr/code that others have written is not run as role "postgres", which is a superuser\n.*Condition function odd is not the extension's own; quota_manager\.worker_role/;
	my %role = (nobody => qr/$refused names role "nobody", which does not exist/, postgres => qr/$refused names role "postgres", which is a superuser/,
		guest => qr/role "guest" of quota_manager\.worker_role has no access to the extension in this database\n.*in place of role "postgres"\.\n.*SELECT quota_manager\.grant_access\('guest', 'worker'\)/);

	sql('REVOKE ALL ON SCHEMA quota_manager FROM guest');
	foreach my $role (sort keys %role)
	{
		set_worker_role($role);
		my (undef, undef, $err) = $node->psql('postgres', $ask);
		like($err, $role{$role}, "it is said of $role");
		is(as('operator', $ask), 3, 'others ask as before');
	}
};

subtest q{without a workers' role} => sub {
	my $refused = 'code that others have written is not run as role "postgres", which is a superuser';

	set_worker_role('');
	my %question = questions('run as postgres', 'run-as("worker")');
	check_answers('postgres', "ERROR: $refused", 'refused', \%question, qr/why|forecast/);
	my (undef, undef, $err) = $node->psql('postgres', $question{explain_match});
	like($err, qr/HINT:  Act as another role that quota_manager\.grant_access was called for \(SET ROLE\), or name the workers' role in quota_manager\.worker_role: it then acts for who can become a superuser\./, 'with the way out');
	is(as('postgres', "SET ROLE viewer; $question{$_}"), 'f', "who goes it is answered: $_") foreach qw(explain_match funnel preview), 'api.preview of a condition';
	like(as('postgres', q{SELECT string_agg(what, E'\n') FROM quota_manager.why('u1', 'run as postgres')}), qr/^whether the user meets the condition now is not known: \Q$refused\E$/m, 'a story says so');
	is(as('postgres', q{SELECT note FROM quota_manager.forecast(strategy => 'run as postgres')}), $refused, 'so does a forecast');
	is(as('postgres', q{SELECT count(*) FROM quota_manager.explain_match('u1', condition => 'is-vip(1) and belong-to("org1")')}), 3, 'what is built in is explained');
	is(as('postgres', q{SELECT count(*) FROM quota_api.preview(condition => 'is-vip(1)')}), 9, 'and previewed');
};

$node->stop;
done_testing();
