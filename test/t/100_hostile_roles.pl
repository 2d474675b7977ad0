
# What each role tries that it may not: forging history, lifting what limits it,
# reading keys, running its code as somebody else.  Every attempt is refused or
# without effect: what the tables and the catalogue hold is compared each time.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node add_gateway);
use QuotaTest::Wait qw(becomes_true);
use Test::More;

my $node = scan_node('hostile', "shared_preload_libraries = 'quota_manager'\nquota_manager.workers = off\n");
my @levels = qw(viewer operator admin worker);
my $attempts = 0;
my $known;

# Something of everything: grants of each status, a suspended gateway, a strategy that has run.
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE viewer LOGIN; CREATE ROLE operator LOGIN; CREATE ROLE admin LOGIN; CREATE ROLE worker LOGIN; CREATE ROLE nobody LOGIN;
SELECT quota_manager.grant_access(r::regrole, r) FROM unnest(ARRAY['viewer', 'operator', 'admin', 'worker']) r;
SQL
add_gateway($node, 'postgres');
$node->safe_psql('postgres', <<'SQL');
INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, credential, sole_writer) VALUES ('other', 'zgsm', 'http://127.0.0.1:9', 'row:key', true);
INSERT INTO quota_manager.quota_credential VALUES ('key', 'top-secret-key');
INSERT INTO quota_manager.user_info (id, vip) VALUES ('u1', 1), ('u2', 2), ('u3', 3), ('u4', 4), ('u5', 5), ('u6', 6);
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('gift', 'single', 5, 'm', 'is-vip(1)');
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, max_exec_per_user) VALUES ('capped', 'single', 5, 'm', 'is-vip(9)', 1);
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('daily', 'periodic', 5, 'm', '0 0 1 1 *', 'true()');
CREATE ROLE owner_of_shop LOGIN;
SQL
$node->safe_psql('postgres', 'SELECT count(*) FROM quota_manager.scan()', extra_params => [ '-U', 'worker' ]);
$node->safe_psql('postgres', <<'SQL');
UPDATE quota_manager.quota_execute SET status = (ARRAY['pending', 'processing', 'completed', 'failed', 'in_doubt', 'pending'])[substr(user_id, 2)::int],
	next_attempt_time = 'infinity';
UPDATE quota_manager.quota_execute SET gateway = 'other' WHERE user_id = 'u6';
INSERT INTO quota_manager.user_balance (user_id, gateway, balance) VALUES ('u1', 'gateway', 7);
INSERT INTO quota_manager.balance_suspension VALUES ('gateway', now(), 'all read 0'), ('other', now(), 'all read 0');
CREATE FUNCTION public.fingerprint() RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
	part text;
	whole text := '';
	relation regclass;
BEGIN
	FOR relation IN SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'quota_manager'::regnamespace AND c.relkind = 'r' ORDER BY c.relname LOOP
		EXECUTE format('SELECT md5(coalesce(string_agg(t::text, %L ORDER BY t::text COLLATE "C"), %L)) FROM %s t', E'\n', '', relation) INTO part;
		whole := whole || relation || ' ' || part || E'\n';
	END LOOP;
	FOR relation IN SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'quota_manager'::regnamespace AND c.relkind = 'S' ORDER BY c.relname LOOP
		EXECUTE format('SELECT last_value || is_called::text FROM %s', relation) INTO part;
		whole := whole || relation || ' ' || part || E'\n';
	END LOOP;
	SELECT string_agg(concat(c.relname, c.relkind, c.relacl, c.relrowsecurity, c.relhastriggers, c.relhasrules), ' ' ORDER BY c.relname) INTO part
		FROM pg_class c WHERE c.relnamespace IN ('quota_manager'::regnamespace, 'quota_internal'::regnamespace, 'quota_condition'::regnamespace);
	whole := whole || md5(part) || E'\n';
	SELECT string_agg(p.oid::regprocedure || coalesce(p.proacl::text, ''), ' ' ORDER BY p.oid) INTO part
		FROM pg_proc p WHERE p.pronamespace IN ('quota_manager'::regnamespace, 'quota_internal'::regnamespace, 'quota_condition'::regnamespace);
	whole := whole || md5(part) || E'\n';
	SELECT string_agg(concat(r.rolname, r.rolsuper, r.rolbypassrls), ' ' ORDER BY r.rolname) INTO part FROM pg_roles r;
	RETURN whole || part;
END $$;
REVOKE ALL ON FUNCTION public.fingerprint() FROM PUBLIC;
SQL
my $id = sub { $node->safe_psql('postgres', "SELECT id FROM quota_manager.quota_execute WHERE user_id = '$_[0]'") };
my %grant = map { $_ => $id->($_) } map { "u$_" } 1 .. 6;

sub known_state
{
	return $node->safe_psql('postgres', 'SELECT public.fingerprint()');
}

# A role sends something that is answered so, and that changes nothing.
sub attempt
{
	my ($role, $sql, $answer, $name) = @_;
	my (undef, $out, $error) = $node->psql('postgres', $sql, extra_params => [ '-U', $role ], on_error_stop => 0);
	my $now = known_state();

	$attempts++;
	$name //= $sql;
	$name =~ s/\s+/ /g;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	subtest substr("$role: $name", 0, 160) => sub {
		like("$out$error", $answer, 'what it is told');
		unlike("$out$error", qr/top-secret/, 'no key');
		is($now, $known, 'nothing has changed');
	};
	# One that succeeds is told of once.
	$known = $now;
	return;
}
$known = known_state();
my $refused = qr/permission denied for (table|function|procedure|schema|sequence|view)|must be owner of|permission denied: /;

# Tables that only the owner writes, by everybody.
foreach my $role (@levels, 'nobody')
{
	attempt($role, $_, $refused)
	  foreach (
		q{INSERT INTO quota_manager.quota_execute (strategy_id, user_id, scheduled_time, run_id, strategy_version, amount, model, gateway, batch_number)
			VALUES (1, 'me', '-infinity', 1, 1, 9e18, 'm', 'gateway', '')},
		q{UPDATE quota_manager.quota_execute SET status = 'pending' WHERE status = 'completed'},
		q{UPDATE quota_manager.quota_execute SET amount = 9e18},
		q{DELETE FROM quota_manager.quota_execute},
		q{INSERT INTO quota_manager.quota_run (strategy_id, state, start_time, finish_time, scheduled_time) VALUES (3, 'done', now(), now(), '9999-01-01')},
		q{UPDATE quota_manager.quota_run SET undelivered = false},
		q{INSERT INTO quota_manager.user_balance (user_id, gateway, balance) VALUES ('u2', 'gateway', 0)},
		q{UPDATE quota_manager.user_balance SET balance = 0},
		q{DELETE FROM quota_manager.user_balance},
		q{INSERT INTO quota_manager.grant_decision (grant_id, strategy_id, revision, user_id, scheduled_time, gateway, action, status_before, status_after, role, session_role, note)
			VALUES (1, 1, 0, 'u1', '-infinity', 'gateway', 'cancel', 'pending', 'cancelled', 'admin', 'admin', '')},
		q{INSERT INTO quota_manager.gateway_call (role, action, gateway, user_id, outcome) VALUES ('admin', 'delta', 'gateway', 'u1', 'applied')},
		q{DELETE FROM quota_manager.balance_suspension},
		q{INSERT INTO quota_manager.balance_suspension VALUES ('third', now(), 'x')},
		q{INSERT INTO quota_manager.quota_worker VALUES ('courier', 'all is well', now())},
		q{UPDATE quota_manager.quota_installation SET id = gen_random_uuid(), workers_enabled = false},
		q{UPDATE quota_manager.quota_gateway SET state = 'closed', state_reason = 'x', next_probe_time = now()},
		q{SELECT nextval(pg_get_serial_sequence('quota_manager.quota_execute', 'id'))},
		q{SELECT id FROM quota_manager.quota_execute FOR UPDATE},
		q{CREATE TRIGGER mine AFTER UPDATE ON quota_manager.quota_run FOR EACH ROW EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()},
		q{SELECT secret FROM quota_manager.quota_credential});
}

subtest q{a grant with somebody else's number, and one that stands in the way of another} => sub {
	attempt('worker', qq{INSERT INTO quota_manager.quota_execute (id, strategy_id, user_id, scheduled_time, run_id, strategy_version, amount, model, gateway, batch_number, status)
		VALUES ($grant{u1}, 3, 'thief', '2025-01-01', 1, 1, 5, 'm', 'gateway', '', 'completed')}, $refused, q{a forged id});
	attempt('worker', q{COPY quota_manager.quota_execute (strategy_id, user_id, scheduled_time, run_id, strategy_version, amount, model, gateway, batch_number, status) FROM STDIN;
	2	u9	-infinity	1	1	5	m	gateway		completed
	\.}, $refused, 'a completed grant beforehand');
	attempt('operator', "SELECT quota_manager.cancel($grant{u3})", qr/cannot be cancelled/, 'a cap is not lifted by cancelling what is completed');
};

subtest 'what writes history in quota_internal, called alone' => sub {
	foreach my $role (@levels)
	{
		is($node->safe_psql('postgres', qq{SELECT string_agg(p.oid::regprocedure::text, ' ') FROM pg_proc p WHERE p.pronamespace = 'quota_internal'::regnamespace
			AND p.provolatile = 'v' AND p.proparallel <> 's' AND has_function_privilege('$role', p.oid, 'EXECUTE')}), '', "$role: can call nothing internal that writes");
	}
	foreach my $role (qw(operator worker))
	{
		attempt($role, "SELECT quota_internal.$_", $refused)
		  foreach (
			q{record_decisions(ARRAY[ROW(1, now(), 1, 1, 0, 'u1', '-infinity', 'gateway', 'cancel', 'pending', 'cancelled', 'admin', 'admin', '', 'alice')::quota_manager.grant_decision])},
			q{record_run(r) FROM quota_manager.quota_run r},
			q{record_failure(1, 'x')},
			q{record_skipped(s, now(), '9999-01-01', 5, 'x') FROM quota_manager.quota_strategy s},
			q{begin_doubt('x')},
			q{note_identity()},
			q{check_identity(true)},
			q{end_back_offs()},
			q{decide('cancel', ARRAY[1], '')},
			q{decide_one('cancel', 1, '')},
			q{lock_strategies(ARRAY[1])},
			q{lock_balances('gateway')},
			q{read_as_caller('SELECT secret FROM quota_manager.quota_credential', NULL)},
			q{run_as_caller('DELETE FROM quota_manager.quota_run')});
	}
};

subtest 'what each level may not call' => sub {
	my @administers = ('resume()', q{resume('may_have_run')}, 'start_workers()', 'stop_workers()', 'wake_workers()', 'schedule_jobs()', 'unschedule_jobs()', q{set_credential('key', 'mine')});
	my @owners = (q{grant_access('viewer', 'admin')}, 'set_user_source()', 'create_access_time_index()');
	my @decides = (
		"resolve($grant{u5}, true)",
		"resolve(ARRAY[$grant{u5}], false)",
		"retry($grant{u4})",
		"cancel($grant{u1})",
		q{import_grants('SELECT 1')},
		q{restart_schedule('daily')},
		q{release_balances('gateway', 'x')},
		'audit_balances()',
		q{gateway_query('u1')},
		q{gateway_refresh('u1', 5)},
		q{gateway_delta('u1', 5, 'x')});
	my %not_for = (
		viewer => [ @administers, @owners, @decides, 'scan()' ],
		worker => [ @administers, @owners, @decides ],
		operator => [ @administers, @owners ],
		admin => \@owners,
		nobody => [ @decides, 'scan()', 'schedule_now()' ]);
	foreach my $role (sort keys %not_for)
	{
		attempt($role, "SELECT quota_manager.$_", $refused) foreach @{ $not_for{$role} };
	}
	attempt($_, 'CALL quota_manager.tick()', $refused) foreach qw(viewer nobody);
	attempt($_, 'CALL quota_manager.deliver()', $refused) foreach qw(viewer nobody);
};

subtest 'strategies, users and gateways: what is restored only, and what is kept by itself' => sub {
	attempt('operator', $_, $refused)
	  foreach (
		q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition, version, schedule_since) VALUES ('past', 'periodic', 5, 'm', '* * * * *', 'true()', 1, '2000-01-01')},
		q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition, schedule_since) VALUES ('past', 'periodic', 5, 'm', '* * * * *', 'true()', '2000-01-01')},
		q{INSERT INTO quota_manager.quota_strategy (id, name, type, amount, model, condition) VALUES (99, 'x', 'single', 5, 'm', 'true()')},
		q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, create_time) VALUES ('x', 'single', 5, 'm', 'true()', '2000-01-01')},
		q{UPDATE quota_manager.quota_strategy SET version = 2147483647},
		q{UPDATE quota_manager.quota_strategy SET id = id + 100},
		q{UPDATE quota_manager.quota_strategy SET create_time = '2000-01-01', update_time = '2000-01-01'},
		q{UPDATE quota_manager.quota_strategy SET schedule_since = '2000-01-01'},
		q{INSERT INTO quota_manager.user_info (id, create_time) VALUES ('u9', '2000-01-01')},
		q{INSERT INTO quota_manager.quota_model VALUES ('x', 'other')},
		q{UPDATE quota_manager.quota_gateway SET is_default = false},
		q{TRUNCATE quota_manager.quota_strategy});
	# A key that an upsert may set to what it is.
	attempt('operator', q{UPDATE quota_manager.user_info SET id = id || 'again'}, qr/the id of user "u\d" cannot be changed/);
	attempt('admin', q{UPDATE quota_manager.quota_gateway SET name = 'y' WHERE name = 'other'}, qr/gateway "other" cannot be renamed/);
	attempt('admin', $_, $refused)
	  foreach (
		q{INSERT INTO quota_manager.quota_gateway (id, name, dialect, base_url) VALUES (99, 'x', 'zgsm', 'http://127.0.0.1:9')},
		q{INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, create_time) VALUES ('x', 'zgsm', 'nonsense', '2000-01-01')},
		q{INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, state) VALUES ('x', 'zgsm', 'http://127.0.0.1:9', 'open')},
		q{UPDATE quota_manager.quota_gateway SET doubt_policy_since = '2100-01-01'},
		q{UPDATE quota_manager.quota_gateway SET update_time = '2000-01-01'},
		q{TRUNCATE quota_manager.quota_gateway},
		q{TRUNCATE quota_manager.quota_execute},
		q{UPDATE quota_manager.quota_credential SET name = secret},
		q{DELETE FROM quota_manager.quota_credential RETURNING secret});
	# Also where a site has granted whole tables.
	$node->safe_psql('postgres', q{
		CREATE ROLE application LOGIN;
		GRANT USAGE ON SCHEMA quota_manager TO application;
		GRANT SELECT, INSERT, UPDATE ON quota_manager.quota_strategy, quota_manager.quota_gateway TO application});
	$known = known_state();
	attempt('application', q{INSERT INTO quota_manager.quota_strategy (id, name, type, amount, model, periodic_expr, condition, version, schedule_since)
		VALUES (99, 'past', 'periodic', 5, 'm', '* * * * *', 'true()', 1, '2000-01-01')}, qr/cannot be written with a version|permission denied/, 'a restored strategy');
	attempt('application', q{INSERT INTO quota_manager.quota_gateway (id, name, dialect, base_url, create_time) VALUES (99, 'x', 'zgsm', 'nonsense', '2000-01-01')},
		qr/invalid URL|permission denied/, 'a restored gateway');
	attempt('application', q{UPDATE quota_manager.quota_gateway SET state = 'closed'}, qr/written by deliveries alone|permission denied/, 'a state');
};

subtest 'who may read all data, or write all, reads no key' => sub {
	$node->safe_psql('postgres', q{
		CREATE ROLE reader LOGIN IN ROLE pg_read_all_data;
		CREATE ROLE writer LOGIN IN ROLE pg_read_all_data, pg_write_all_data});
	$known = known_state();
	foreach my $role (qw(reader writer))
	{
		attempt($role, $_, qr/^(0|copied)?$/)
		  foreach (
			q{SELECT count(*) FROM quota_manager.quota_credential},
			q{SELECT secret FROM quota_manager.quota_credential WHERE name = 'key'},
			q{COPY quota_manager.quota_credential TO STDOUT},
			q{SELECT c.secret FROM quota_manager.quota_gateway g JOIN quota_manager.quota_credential c ON 'row:' || c.name = g.credential});
		attempt($role, 'SET row_security = off; SELECT secret FROM quota_manager.quota_credential', qr/would be affected by row-level security policy/);
	}
	attempt('writer', q{UPDATE quota_manager.quota_credential SET name = 'x' RETURNING secret}, qr/^$/);
	attempt('reader', q{SELECT quota_manager.cancel(1)}, $refused);
	my ($dump) = run_command([ 'pg_dump', '-U', 'reader', '-d', $node->connstr('postgres'), '-n', 'quota_manager' ]);
	unlike($dump, qr/top-secret/, 'reader: no key in a dump');
	is($node->safe_psql('postgres', 'SELECT name FROM quota_manager.quota_credential', extra_params => [ '-U', 'admin' ]), 'key', 'an administrator sees that there is one');
};

my $within;
subtest 'code of others, in an operation that somebody with more rights performs' => sub {
	$node->safe_psql('postgres', <<'SQL');
CREATE SCHEMA workshop AUTHORIZATION operator;
SET ROLE operator;
CREATE TABLE workshop.loot (what text);
CREATE FUNCTION workshop.rise() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN workshop.really_rise(); END $$;
CREATE FUNCTION workshop.really_rise() RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN ALTER ROLE operator SUPERUSER; RETURN 'u1'; END $$;
CREATE FUNCTION workshop.turn() RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN SET ROLE postgres; RETURN 'u1'; END $$;
CREATE FUNCTION workshop.peep() RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN INSERT INTO workshop.loot SELECT secret FROM quota_manager.quota_credential; RETURN 'u1'; END $$;
CREATE FUNCTION workshop.who() RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN RAISE EXCEPTION 'runs as %', current_user; END $$;
CREATE FUNCTION workshop.drop() RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN DROP TABLE pg_temp.quota_manager_import; RETURN 'u1'; END $$;
CREATE FUNCTION workshop.hook() RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN
	CREATE TRIGGER hook BEFORE UPDATE ON pg_temp.quota_manager_import FOR EACH ROW EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger(); RETURN 'u1'; END $$;
CREATE FUNCTION workshop.write(amount text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN UPDATE quota_manager.quota_execute SET amount = 1000; RETURN 'u1'; END $$;
CREATE FUNCTION workshop.equal(integer, integer) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$ BEGIN ALTER ROLE operator SUPERUSER; RETURN true; END $$;
CREATE OPERATOR workshop.= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = workshop.equal);
CREATE FUNCTION workshop.lead(how boolean) RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN
	PERFORM set_config('search_path', 'workshop, pg_catalog', how); RETURN NULL; END $$;
CREATE DOMAIN workshop.id AS text CHECK (VALUE <> workshop.really_rise());
SQL
	$node->safe_psql('postgres', "SET ROLE operator; CREATE FUNCTION workshop.settle() RETURNS text LANGUAGE plpgsql VOLATILE AS 'BEGIN PERFORM quota_manager.resolve($grant{u5}, true); RETURN null; END';
		CREATE FUNCTION workshop.pay() RETURNS text LANGUAGE plpgsql VOLATILE AS 'BEGIN PERFORM quota_manager.gateway_delta(''u1'', 5, ''mine''); RETURN null; END';
		CREATE FUNCTION workshop.again() RETURNS text LANGUAGE plpgsql VOLATILE AS 'BEGIN PERFORM quota_manager.import_grants(''VALUES (''''gift'''', ''''u9'''', now())''); RETURN null; END'");
	$known = known_state();
	$within = qr/within a security-restricted operation|within security-restricted operation/;
	my @imports = (
		[ q{SELECT ''gift'', workshop.rise(), now()}, qr/must be superuser|permission denied/ ],
		[ q{SELECT ''gift'', workshop.really_rise(), now()}, qr/must be superuser|permission denied/ ],
		[ q{SELECT ''gift'', ''u9''::workshop.id, now()}, qr/must be superuser|permission denied/ ],
		[ q{SELECT ''gift'', workshop.turn(), now()}, qr/cannot set parameter "role" within security/ ],
		[ q{SELECT ''gift'', workshop.peep(), now()}, $refused ],
		[ q{SELECT ''gift'', workshop.who(), now()}, qr/runs as operator/ ],
		[ q{SELECT ''gift'', workshop.drop(), now()}, qr/must be owner of|is being used/ ],
		[ q{SELECT ''gift'', workshop.hook(), now()}, qr/permission denied|must be owner of/ ],
		[ q{SELECT ''gift'', workshop.write(''''), now()}, $refused ],
		[ q{SELECT ''gift'', workshop.lead(false), now()}, qr/^gift\|1\|0\|0\|0\|/ ],
		[ q{SELECT ''gift'', workshop.lead(true), now()}, qr/^gift\|1\|0\|0\|0\|/ ],
		[ q{SELECT ''gift'', workshop.settle(), now()}, $within ],
		[ q{SELECT ''gift'', workshop.pay(), now()}, $within ],
		[ q{SELECT ''gift'', workshop.again(), now()}, $within ],
		[ q{SELECT ''gift'', ''u9'', now(); DELETE FROM quota_manager.quota_run}, $refused ],
		[ q{SELECT ''gift'', ''u9'', now() RETURNING workshop.who()}, qr/runs as operator/ ],
		[ q{SELECT ''gift'', secret, now() FROM quota_manager.quota_credential}, $refused ]);
	attempt('operator', "SELECT * FROM quota_manager.import_grants('$_->[0]')", $_->[1]) foreach @imports;
	attempt('operator', q{CREATE TEMP TABLE quota_manager_import (strategy text, user_id text, grant_time timestamptz, amount numeric);
		SELECT * FROM quota_manager.import_grants('SELECT 1')}, qr/already exists/, 'a table of that name');
	# The same in conditions. Whoever scans is whom they run as, and never a superuser.
	my %condition = (
		rise => [ 'workshop.really_rise()', qr/must be superuser|permission denied/ ],
		turn => [ 'workshop.turn()', qr/cannot set parameter "role" within security/ ],
		peep => [ 'workshop.peep()', $refused ],
		who => [ 'workshop.who()', qr/runs as operator/ ],
		write => [ q{workshop.write('')}, $refused ],
		settle => [ 'workshop.settle()', $within ],
		pay => [ 'workshop.pay()', $within ],
		again => [ 'workshop.again()', $within ],
		scan => [ q{(SELECT max(strategy) FROM quota_manager.scan('daily'))}, $within ]);
	my $grants = $node->safe_psql('postgres', 'SELECT string_agg(e::text, $$;$$ ORDER BY e.id) FROM quota_manager.quota_execute e');
	foreach my $name (sort keys %condition)
	{
		my ($call, $answer) = @{ $condition{$name} };

		$node->safe_psql('postgres', "CREATE FUNCTION quota_condition.does_$name(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS \$\$ BEGIN PERFORM $call; RETURN true; END \$\$;
			SELECT quota_manager.grant_access('operator', 'operator'), quota_manager.grant_access('worker', 'worker')");
		$node->safe_psql('postgres', "INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('$name', 'single', 5, 'm', 'does-$name()')",
			extra_params => [ '-U', 'operator' ]);
		foreach my $role ('operator', 'postgres')
		{
			my (undef, $out, $told) = $node->psql('postgres', "SELECT error FROM quota_manager.scan('$name')", extra_params => [ '-U', $role ]);

			$attempts++;
			like("$out$told", $role eq 'postgres' ? qr/superuser/ : $answer, "$role: scans with does-$name()");
		}
	}
	is($node->safe_psql('postgres', 'SELECT string_agg(e::text, $$;$$ ORDER BY e.id) FROM quota_manager.quota_execute e'), $grants, 'nothing was granted, decided or changed');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM quota_manager.grant_decision'), '0', 'nobody has decided');
	is($node->safe_psql('postgres', q{SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolsuper}), 'postgres', 'nobody became a superuser');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM workshop.loot'), '0', 'nobody has read a key');
	# What a condition sets is undone before its grants are written.
	$node->safe_psql('postgres', q{CREATE FUNCTION quota_condition.leads(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS $$ BEGIN PERFORM workshop.lead(false); RETURN true; END $$;
		SELECT quota_manager.grant_access('operator', 'operator');
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('leads', 'single', 5, 'm', 'leads() and match-user("u1")')});
	is($node->safe_psql('postgres', q{SELECT granted, error FROM quota_manager.scan('leads'); SELECT rolsuper FROM pg_roles WHERE rolname = 'operator'; SHOW search_path},
			extra_params => [ '-U', 'operator' ]), qq{1|\nf\n"\$user", public}, 'a condition does not lead the owner to operators of others');
	$attempts++;
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_strategy SET enabled = false WHERE name NOT IN ('gift', 'capped', 'daily')});
};

# A superuser looks at what an operator has made.
$node->safe_psql('postgres', <<'SQL');
SET ROLE operator;
CREATE MATERIALIZED VIEW workshop.settled AS SELECT workshop.settle() WITH NO DATA;
CREATE MATERIALIZED VIEW workshop.paid AS SELECT workshop.pay() WITH NO DATA;
CREATE TABLE workshop.bait (id text);
INSERT INTO workshop.bait VALUES ('a');
SQL
$known = known_state();
attempt('postgres', "REFRESH MATERIALIZED VIEW workshop.$_", $within) foreach qw(settled paid);

subtest 'policies of a site: what a role may not see it does not act on' => sub {
	$node->safe_psql('postgres', <<'SQL');
CREATE ROLE local LOGIN; CREATE ROLE local_admin LOGIN;
SELECT quota_manager.grant_access('local', 'operator'), quota_manager.grant_access('local_admin', 'admin');
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, enabled) VALUES ('local', 'single', 5, 'm', 'is-vip(1)', false);
SQL
	foreach my $table (qw(quota_execute quota_strategy quota_gateway user_info))
	{
		my $own = { quota_execute => q{user_id = 'u2' OR user_id = 'u5'}, quota_strategy => q{name LIKE 'local%'}, quota_gateway => q{name = 'gateway'}, user_info => q{id = 'u2'} }->{$table};

		$node->safe_psql('postgres', "ALTER TABLE quota_manager.$table ENABLE ROW LEVEL SECURITY;
			CREATE POLICY own ON quota_manager.$table TO local, local_admin USING ($own); CREATE POLICY rest ON quota_manager.$table TO viewer, operator, admin, worker USING (true)");
	}
	$known = known_state();
	attempt('local', @$_)
	  foreach (
		[ "SELECT quota_manager.cancel($grant{u1})", qr/grant $grant{u1} does not exist/ ],
		[ "SELECT quota_manager.retry($grant{u4})", qr/grant $grant{u4} does not exist/ ],
		[ "SELECT quota_manager.resolve($grant{u6}, true)", qr/grant $grant{u6} does not exist/ ],
		[ "SELECT quota_manager.cancel(ARRAY[$grant{u1}, $grant{u6}])", qr/^0\n?.*2 of 2 grants were left.*2 not found/s ],
		[ "SELECT quota_manager.resolve(ARRAY[$grant{u6}], true)", qr/1 not found/ ],
		[ "SELECT quota_manager.retry(ARRAY[$grant{u4}])", qr/1 not found/ ],
		[ q{SELECT quota_manager.restart_schedule('daily')}, qr/strategy "daily" does not exist/ ],
		[ q{SELECT note FROM quota_manager.import_grants('VALUES (''gift'', ''u9'', now())')}, qr/unknown strategy/ ],
		[ q{SELECT quota_manager.release_balances('other', 'mine')}, qr/gateway "other" does not exist/ ],
		[ q{SELECT quota_manager.gateway_query('u1', 'other')}, qr/gateway "other" does not exist/ ],
		[ q{SELECT quota_manager.gateway_delta('u1', 5, 'mine', 'other')}, qr/gateway "other" does not exist/ ],
		[ q{SELECT quota_manager.gateway_refresh('u1', 5, 'other')}, qr/gateway "other" does not exist/ ],
		[ q{SELECT * FROM quota_manager.audit_balances('other')}, qr/would be affected by row-level security|does not exist/ ],
		[ q{SET row_security = off; SELECT quota_manager.cancel(1)}, qr/would be affected by row-level security/ ],
		[ q{UPDATE quota_manager.quota_strategy SET amount = 100 WHERE name = 'gift'}, qr/^$/ ],
		[ q{DELETE FROM quota_manager.user_info WHERE id = 'u1'}, qr/^$/ ]);
	is($node->safe_psql('postgres', q{UPDATE quota_manager.quota_strategy SET enabled = true WHERE name = 'local'; SELECT strategy, matched, granted FROM quota_manager.scan()},
			extra_params => [ '-U', 'local' ]), 'local|1|1', 'a scan finds the users, and runs the strategies, that the role can see');
	# Grants that are hidden from somebody keep what they belong to.
	$node->safe_psql('postgres', q{CREATE POLICY gifts ON quota_manager.quota_strategy TO local USING (name = 'gift');
		CREATE POLICY others ON quota_manager.quota_gateway TO local_admin USING (name = 'other')});
	$known = known_state();
	attempt('local', q{DELETE FROM quota_manager.quota_strategy WHERE name = 'gift'}, qr/has grants and cannot be deleted/);
	attempt('local_admin', q{DELETE FROM quota_manager.quota_gateway WHERE name = 'other'}, qr/grants that are not settled/);
	attempt('local_admin', q{UPDATE quota_manager.quota_gateway SET dialect = 'higress' WHERE name = 'other'}, qr/grants that are not settled/);
	is($node->safe_psql('postgres', "SELECT quota_manager.resolve($grant{u5}, true, 'ours')", extra_params => [ '-U', 'local' ]), '', 'what it sees it decides');
	is($node->safe_psql('postgres', "SELECT status, d.role, d.session_role FROM quota_manager.quota_execute e JOIN quota_manager.grant_decision d ON d.grant_id = e.id"),
		'completed|local|local', 'and is written down with its name');
	is($node->safe_psql('postgres', "SET ROLE operator; SELECT quota_manager.cancel($grant{u6}, 'as another')") . $node->safe_psql('postgres',
			q{SELECT role, session_role FROM quota_manager.grant_decision ORDER BY id DESC LIMIT 1}), 'operator|postgres', 'SET ROLE is who decides');
};

subtest 'the owner of a database' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE shop OWNER owner_of_shop');
	$node->safe_psql('shop', q{CREATE EXTENSION quota_manager; INSERT INTO quota_manager.quota_credential VALUES ('key', 'top-secret-key')});
	foreach my $sql (
		'SELECT * FROM quota_manager.quota_credential', 'SELECT * FROM quota_manager.user_info', q{SELECT quota_manager.grant_access('owner_of_shop', 'admin')},
		'DROP EXTENSION quota_manager', 'ALTER EXTENSION quota_manager UPDATE', 'CREATE TABLE quota_manager.mine (id integer)',
		'CREATE FUNCTION quota_condition.mine(s quota_manager.subject) RETURNS boolean LANGUAGE sql RETURN true', 'ALTER TABLE quota_manager.quota_run DISABLE TRIGGER ALL',
		'ALTER SCHEMA quota_internal RENAME TO mine', 'GRANT USAGE ON SCHEMA quota_manager TO owner_of_shop', 'CREATE POLICY mine ON quota_manager.quota_credential USING (true)',
		q{ALTER DATABASE shop SET quota_manager.schedule_clock = '2035-01-01'}, q{ALTER DATABASE shop SET quota_manager.allowed_hosts = 'mine'})
	{
		my (undef, $out, $error) = $node->psql('shop', $sql, extra_params => [ '-U', 'owner_of_shop' ]);

		$attempts++;
		like("$out$error", qr/permission denied|must be owner|must have privilege|no privileges were granted/, "owner of the database: $sql");
		unlike("$out$error", qr/top-secret/, 'no key');
	}
};

subtest 'default privileges leave nothing on what the extension makes' => sub {
	$node->safe_psql('postgres', 'CREATE ROLE greedy LOGIN; CREATE ROLE readonly LOGIN; CREATE DATABASE generous');
	$node->safe_psql('generous', <<'SQL');
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO readonly;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO greedy WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO greedy;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO greedy;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO greedy;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO greedy, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
CREATE EXTENSION quota_manager;
INSERT INTO quota_manager.quota_credential VALUES ('key', 'top-secret-key');
SQL
	is($node->safe_psql('generous', <<'SQL'), '', 'nobody has anything but the owner, PUBLIC but what is pure, and pg_monitor but figures');
SELECT what, acl FROM (
	SELECT c.relname AS what, a.grantee, c.relowner AS owner, a::text AS acl, false AS pure FROM pg_class c, aclexplode(c.relacl) a
		WHERE c.relnamespace IN ('quota_manager'::regnamespace, 'quota_internal'::regnamespace, 'quota_condition'::regnamespace, 'quota_api'::regnamespace)
	UNION ALL SELECT p.proname, a.grantee, p.proowner, a::text, p.provolatile = 'i' FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
		WHERE p.pronamespace IN ('quota_manager'::regnamespace, 'quota_internal'::regnamespace, 'quota_condition'::regnamespace, 'quota_api'::regnamespace)
	UNION ALL SELECT n.nspname, a.grantee, n.nspowner, a::text, false FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname LIKE 'quota\_%'
	UNION ALL SELECT t.typname, a.grantee, t.typowner, a::text, true FROM pg_type t, aclexplode(t.typacl) a WHERE t.typnamespace = 'quota_manager'::regnamespace) x
WHERE grantee <> owner AND NOT (grantee = 0 AND pure)
	AND NOT (grantee = 'pg_monitor'::regrole AND what IN ('metrics', 'stat_progress_scan', 'stat_progress_deliver', 'read_metrics', 'metrics_text', 'read_progress',
		'quota_manager', 'quota_internal') AND acl ~ ',(SELECT|EXECUTE|USAGE),f')
SQL
	foreach my $case (
		[ 'readonly', 'SELECT * FROM quota_manager.quota_credential' ],
		[ 'readonly', 'SELECT * FROM quota_manager.user_info' ],
		[ 'greedy', 'SELECT * FROM quota_manager.quota_credential' ],
		[ 'greedy', 'CREATE TRIGGER mine AFTER INSERT ON quota_manager.quota_run FOR EACH ROW EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()' ],
		[ 'greedy', 'SELECT quota_internal.check_identity(true)' ],
		[ 'greedy', q{SELECT quota_manager.grant_access('greedy', 'admin')} ],
		[ 'greedy', 'SELECT quota_manager.scan()' ],
		[ 'greedy', 'CREATE TABLE quota_manager.mine (id integer)' ],
		[ 'greedy', 'CREATE FUNCTION quota_condition.mine() RETURNS boolean LANGUAGE sql RETURN true' ],
		[ 'greedy', q{SELECT setval('quota_manager.quota_execute_id_seq', 1)} ],
		[ 'greedy', 'INSERT INTO quota_manager.quota_run (strategy_id, state, start_time, finish_time) VALUES (1, $$done$$, now(), now())' ],
		[ 'greedy', 'GRANT SELECT ON quota_manager.quota_credential TO readonly' ])
	{
		my ($role, $sql) = @$case;
		my (undef, $out, $error) = $node->psql('generous', $sql, extra_params => [ '-U', $role ]);

		$attempts++;
		like("$out$error", qr/permission denied/, "default privileges: $role: $sql");
		unlike("$out$error", qr/top-secret/, 'no key');
	}
};

# Where nothing is given to PUBLIC, each level works all the same.
$node->safe_psql('postgres', 'CREATE DATABASE hardened; REVOKE ALL ON DATABASE hardened FROM PUBLIC; GRANT CONNECT ON DATABASE hardened TO viewer, operator, admin, worker, nobody');
$node->safe_psql('hardened', <<'SQL');
ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE EXTENSION quota_manager;
CREATE TABLE public.tag (user_id text, tag text);
CREATE FUNCTION quota_condition.has_tag(s quota_manager.subject, tag text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
	RETURN EXISTS (SELECT 1 FROM public.tag t WHERE t.user_id = (s).id AND t.tag = has_tag.tag);
GRANT USAGE ON SCHEMA public TO operator, worker, viewer;
GRANT SELECT ON public.tag TO operator, worker, viewer;
SELECT quota_manager.grant_access(r::regrole, r) FROM unnest(ARRAY['viewer', 'operator', 'admin', 'worker']) r;
SQL

sub works
{
	my ($role, $sql, $result, $name) = @_;
	my ($code, $out, $error) = $node->psql('hardened', $sql, extra_params => [ '-U', $role ]);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is("$out$error", $result, "hardened: $role: $name");
	return;
}
works('admin', q{INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default, credential) VALUES ('gateway', 'zgsm', 'http://127.0.0.1:9', true, 'row:key')}, '', 'writes a gateway');
works('admin', q{INSERT INTO quota_manager.quota_credential VALUES ('key', 'top-secret-key')}, '', 'writes a key');
works('admin', q{SELECT quota_manager.set_credential('key', 'top-secret-too'), quota_manager.set_credential('spare', 'top-secret')}, '|', 'and changes it');
works('admin', q{INSERT INTO quota_manager.quota_model VALUES ('m', 'gateway')}, '', 'writes a model');
works('operator', q{INSERT INTO quota_manager.user_info (id, vip, github_star) VALUES ('u1', 1, 'zgsm'), ('u2', 2, NULL)}, '', 'writes users');
works('operator', q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES
	('vip', 'single', 5, 'm', 'is-vip(1)'), ('star', 'single', 5, 'm', 'github-star("zgsm") or has-tag("x")'), ('low', 'single', 5, 'm', 'quota-le("m", 10)')}, '', 'writes strategies');
works('operator', q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('daily', 'periodic', 5, 'm', '0 0 1 1 *', 'true()')}, '', 'and schedules');
works('operator', q{SELECT strategy, granted, error FROM quota_manager.scan() ORDER BY strategy}, "low|0|\nstar|1|\nvip|2|", 'scans');
works('viewer', q{SELECT s.id FROM quota_manager.subject s WHERE s OPERATOR(quota_manager.@@) 'is-vip(2)'}, 'u2', 'tries a condition');
works('viewer', q{SELECT count(*) FROM quota_manager.worker_status, quota_manager.delivery_status}, '3', 'looks at the state');
works('viewer', q{SELECT count(*) FROM quota_manager.upcoming()}, '10', 'sees what comes');
works('viewer', q{SELECT count(*) FROM quota_manager.strategy_due}, '4', 'sees what is due');
works('operator', q{UPDATE quota_manager.quota_strategy SET amount = 6 WHERE name = 'vip'; UPDATE quota_manager.user_info SET vip = 3 WHERE id = 'u1'}, '', 'edits');
works('operator', q{SELECT imported FROM quota_manager.import_grants('VALUES (''low'', ''u2'', now())')}, '1', 'imports');
works('operator', q{SELECT quota_manager.cancel(array_agg(id)) FROM quota_manager.quota_execute WHERE status = 'pending' AND user_id = 'u2'}, '1', 'decides');
works('worker', 'CALL quota_manager.tick()', '1|0', 'runs what is due');
my (undef, undef, $told) = $node->psql('hardened', 'CALL quota_manager.deliver()', extra_params => [ '-U', 'worker' ]);
unlike($told, qr/permission denied/, 'hardened: worker: delivers');
works('admin', 'SELECT pending FROM quota_manager.resume()', '2', 'looks at what a copy would be');
is($node->safe_psql('hardened', q{SELECT count(*) FROM quota_manager.quota_run WHERE state = 'failed'}), '0', 'and no run has failed');
foreach my $sql ('SELECT quota_manager.schedule_now()', 'SELECT * FROM quota_manager.user_info', q{SELECT 'true()'::quota_manager.condition}, 'SELECT quota_manager.scan()')
{
	my (undef, $out, $error) = $node->psql('hardened', $sql, extra_params => [ '-U', 'nobody' ]);

	$attempts++;
	like("$out$error", qr/permission denied/, "hardened: nobody: $sql");
}

# A role that only looks is no role for workers.
$node->append_conf('postgresql.conf', "quota_manager.workers = on\nquota_manager.worker_role = 'viewer'\nquota_manager.poll_interval = '100ms'\n");
$node->reload;
$node->wait_for_log(qr/role "viewer" may not run quota_manager in database "postgres".*\n.*DETAIL:  It lacks the privilege EXECUTE on procedure quota_manager\.tick/);
$attempts++;
pass('viewer: is not the workers\' role');

my $error;
subtest q{nobody logs in as the workers' role where pg_hba.conf says so, and they work all the same} => sub {
	my $hba = slurp_file($node->data_dir . '/pg_hba.conf');
	open my $file, '>', $node->data_dir . '/pg_hba.conf' or die $!;
	print {$file} "local all worker reject\nhost all worker all reject\n$hba";
	close $file;
	$node->append_conf('postgresql.conf', "quota_manager.worker_role = 'worker'\n");
	$node->restart;
	(undef, undef, $error) = $node->psql('postgres', 'SELECT 1', extra_params => [ '-U', 'worker' ]);
	like($error, qr/pg_hba.conf rejects connection/, 'worker: cannot log in');
	$attempts++;
	ok(becomes_true($node, q{SELECT count(*) = 1 FROM quota_manager.worker_status WHERE kind = 'scheduler' AND pid IS NOT NULL AND role = 'worker'}), 'and works');
	# Policies do not stand in the way of who may pass them; nor do they find out otherwise.
	$node->safe_psql('postgres', q{ALTER ROLE worker BYPASSRLS; GRANT USAGE ON SCHEMA workshop TO worker; UPDATE quota_manager.quota_strategy SET enabled = true WHERE name = 'who'});
	ok(becomes_true($node, q{SELECT EXISTS (SELECT FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id
		WHERE s.name = 'who' AND r.reason ~ 'runs as worker')}), 'worker: conditions run as the workers\' role');
	like($node->safe_psql('postgres', q{SELECT error FROM quota_manager.scan('who')}), qr/runs as worker/, 'postgres: a superuser has them run as that role, too');

	cmp_ok($attempts, '>=', 80, "$attempts hostile attempts");
};
$node->stop;
done_testing();
