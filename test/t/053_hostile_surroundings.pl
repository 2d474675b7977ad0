
# Objects that somebody else puts in the way: in the schema before the extension
# is created, before ours in the search_path, in pg_temp, behind a user source.
# Nothing of the extension may run them with the rights of whoever uses it.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node add_gateway);
use Test::More;

my $node = scan_node('hostile');
my ($code, $out, $error);

subtest 'what an owner of the database may do before the extension is there' => sub {
	$node->safe_psql('postgres', 'CREATE ROLE owner_role LOGIN; CREATE ROLE operator_role LOGIN; CREATE ROLE guest_role LOGIN');
	$node->safe_psql('postgres', 'CREATE DATABASE owned OWNER owner_role');
	$node->safe_psql('owned', <<'SQL');
SET ROLE owner_role;
CREATE SCHEMA quota_manager;
SQL
	refused('owned', 'a schema that belongs to somebody else');
	$node->safe_psql('owned', 'ALTER SCHEMA quota_manager OWNER TO postgres; GRANT ALL ON SCHEMA quota_manager TO owner_role');
	$node->safe_psql('owned', <<'SQL');
SET ROLE owner_role;
CREATE FUNCTION quota_manager.captured(double precision, integer) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN ALTER ROLE owner_role SUPERUSER; RETURN true; END $$;
CREATE OPERATOR quota_manager.> (FUNCTION = quota_manager.captured, LEFTARG = double precision, RIGHTARG = integer);
SQL
	refused('owned', 'a schema with an operator in it');
	$node->safe_psql('owned', <<'SQL');
DROP OPERATOR quota_manager.> (double precision, integer);
DROP FUNCTION quota_manager.captured;
CREATE EXTENSION quota_manager;
INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, rate_limit) VALUES ('gateway', 'zgsm', 'http://127.0.0.1:9', 5);
SQL
	is($node->safe_psql('owned', q{SELECT rolsuper FROM pg_roles WHERE rolname = 'owner_role'}), 'f', 'nobody became a superuser');
	$node->safe_psql('postgres', q{CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'});
	($code, $out, $error) = $node->psql('latin', 'CREATE EXTENSION quota_manager');
	like($error, qr/quota_manager needs a database with encoding UTF8, this one has LATIN1/, 'another encoding is refused');
};

subtest 'what an operator may do: where users come from is not his to say' => sub {
	add_gateway($node, 'postgres');
	$node->safe_psql('postgres', <<'SQL');
SELECT quota_manager.grant_access('operator_role', 'operator');
INSERT INTO quota_manager.quota_credential VALUES ('key', 'top-secret-key');
INSERT INTO quota_manager.user_info (id, vip, github_star) VALUES ('u1', 1, 'zgsm'), ('u2', 2, NULL);
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('gift', 'single', 5, 'm', 'is-vip(1)'), ('low', 'single', 5, 'm', 'quota-le("m", 10)');
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition, max_exec_per_user) VALUES ('often', 'periodic', 5, 'm', '* * * * * *', 'true()', 100);
CREATE SCHEMA operator_schema AUTHORIZATION operator_role;
SET ROLE operator_role;
CREATE TABLE operator_schema.loot (what text);
CREATE FUNCTION operator_schema.steal(id text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN INSERT INTO operator_schema.loot SELECT secret FROM quota_manager.quota_credential; ALTER ROLE operator_role SUPERUSER; RETURN id; END $$;
CREATE VIEW operator_schema.people AS SELECT operator_schema.steal('u1') AS id;
SQL
	foreach my $attempt (
		q{SELECT quota_manager.set_user_source('operator_schema.people')},
		q{INSERT INTO quota_manager.quota_installation (user_source) VALUES ('operator_schema.people')},
		q{INSERT INTO quota_manager.quota_installation DEFAULT VALUES; UPDATE quota_manager.quota_installation SET user_source = 'operator_schema.people'})
	{
		($code, $out, $error) = $node->psql('postgres', "SET ROLE operator_role; $attempt");
		like($error, qr/permission denied/, "refused: $attempt");
	}
	# His own view does not hand over what he may not see.
	$node->safe_psql('postgres', q{SET ROLE operator_role; CREATE VIEW operator_schema.window AS SELECT * FROM quota_manager.subject});
	($code, $out, $error) = $node->psql('postgres', q{SET ROLE guest_role; SELECT * FROM operator_schema.window});
	like($error, qr/permission denied/, 'a view over subject shows nothing to others');
};

subtest 'everything a guest may create in public and in pg_temp, in front of everything' => sub {
	my $hostile = hostile_objects();
	$node->safe_psql('postgres', "GRANT CREATE ON SCHEMA public TO guest_role; SET ROLE guest_role; $hostile");
	($code, $out, $error) = $node->psql('postgres', q{SET search_path = public, pg_catalog; SELECT 1 WHERE 'a'::pg_catalog.text = 'a'::pg_catalog.text});
	like($error, qr/captured: = text/, 'they do capture what is written without a schema');
	foreach my $path ('public', 'public, pg_catalog', 'pg_temp, public, pg_catalog', 'quota_manager, public, pg_catalog', 'operator_schema')
	{
		foreach my $statement (
			q{SELECT strategy, granted, error FROM quota_manager.scan()},
			q{SELECT error FROM quota_manager.scan('gift')},
			q{SELECT imported FROM quota_manager.import_grants('VALUES (''gift'', ''u9'', null::pg_catalog.timestamptz)')},
			q{SELECT indexed FROM quota_manager.set_user_source()},
			q{SELECT user_id FROM quota_manager.undecided(2)},
			q{SELECT strategy_id FROM quota_internal.due_strategies()},
			q{SELECT valid, message FROM quota_manager.check_condition('is-vp(1) or github-star("zgsm")')},
			q{SELECT id FROM quota_manager.subject s WHERE s OPERATOR(quota_manager.@@) 'is-vip(1) and not github-star("x") or quota-le("m", 1) and belong-to("o")'},
			q{SELECT s.id FROM quota_manager.subject s, quota_manager.quota_strategy t WHERE s OPERATOR(quota_manager.@@) t.condition},
			q{INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, credential, rate_limit) VALUES ('other', 'higress', 'http://127.0.0.1:9', 'row:key', 1.5)},
			q{UPDATE quota_manager.quota_gateway SET dialect = 'zgsm', max_connections = 3},
			q{INSERT INTO quota_manager.quota_model VALUES ('other', 'other'), ('m', 'gateway')},
			q{INSERT INTO quota_manager.quota_credential VALUES ('other', 'secret')},
			q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('new', 'periodic', 5, 'other', '0 8 * * *', 'quota-le("m", 1)')},
			q{UPDATE quota_manager.quota_strategy SET amount = 6, max_exec_per_user = 200},
			q{DELETE FROM quota_manager.quota_strategy t USING pg_catalog.unnest(array['new']) n WHERE t.name OPERATOR(pg_catalog.=) n},
			q{UPDATE quota_manager.user_info SET vip = 3},
			q{SELECT gateway, pending FROM quota_manager.delivery_status},
			q{SELECT kind, queue_depth, oldest_age, last_error FROM quota_manager.worker_status},
			q{SELECT quota_manager.grant_access('operator_role', 'operator')},
			q{SELECT pending FROM quota_manager.resume()},
			q{UPDATE quota_manager.quota_installation SET timeline = 77; SELECT granted FROM quota_manager.scan()},
			q{UPDATE quota_manager.quota_installation SET system_identifier = 17; SET client_min_messages = warning; SELECT pending FROM quota_manager.resume('may_have_run')},
			q{CALL quota_manager.tick()},
			q{CALL quota_manager.deliver()},
			q{TRUNCATE quota_manager.quota_execute},
			q{DELETE FROM quota_manager.quota_model},
			q{DELETE FROM quota_manager.quota_gateway g USING pg_catalog.unnest(array['other']) n WHERE g.name OPERATOR(pg_catalog.=) n},
			q{DELETE FROM quota_manager.quota_credential c USING pg_catalog.unnest(array['other']) n WHERE c.name OPERATOR(pg_catalog.=) n})
		{
			# A procedure is to be the only statement, so what surrounds it is sent before.
			my $setup = temporary_objects() . "SET search_path = $path;";
			# It reports the gateway that it has found closed, if the next health check is not due.
			$setup .= 'SET client_min_messages = warning;' if $statement =~ /deliver\(\)/;
			($code, $out, $error) = $node->psql('postgres', "$setup\n$statement;\n", extra_params => ['-q']);
			is("$code $error", '0 ', "search_path $path: $statement");
			unlike($out, qr/captured/, 'and no error is recorded');
		}
	}
	is($node->safe_psql('postgres', 'SELECT count(*) FROM public.captured'), 0, 'nothing of theirs was called');
	is($node->safe_psql('postgres', q{SELECT rolsuper FROM pg_roles WHERE rolname = 'operator_role'}), 'f', 'nobody became a superuser');
};

subtest 'settings that only a superuser has are not taken from whoever sets them before the library is loaded' => sub {
	$node->safe_psql('postgres', q{SELECT quota_manager.grant_access('guest_role', 'viewer')});
	($code, $out, $error) = $node->psql('postgres', <<'SQL', extra_params => [ '-U', 'guest_role' ]);
SET quota_manager.schedule_clock = '2035-01-01 00:00:00+00';
SELECT quota_manager.schedule_now() > now() + interval '1 year';
SQL
	is($out, 'f', 'the clock stays where it is');
	like($error, qr/permission denied to set parameter "quota_manager\.schedule_clock"/, 'and says so');
};

$node->stop;
done_testing();

sub refused
{
	my ($database, $name) = @_;
	my (undef, undef, $message) = $node->psql($database, 'CREATE EXTENSION quota_manager');

	like($message, qr/schema quota_manager is there already and not empty, or belongs to another role/, "refused: $name");
	return;
}

# Operators, functions, types and tables in public with the names that the
# extension uses.  Whatever runs one of them leaves a trace and an error.
sub hostile_objects
{
	my $sql = <<'SQL';
CREATE TABLE public.captured (what text);
CREATE FUNCTION public.capture(what text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured: %', what; END $$;
SQL
	my %arguments = (
		'=' => [qw(text name integer bigint boolean timestamptz numeric oid)],
		'<>' => [qw(text integer boolean numeric timestamptz oid)],
		'<' => [qw(timestamptz numeric integer bigint)],
		'<=' => [qw(timestamptz numeric integer bigint)],
		'>' => [qw(timestamptz numeric integer bigint)],
		'>=' => [qw(timestamptz numeric integer bigint)],
		'~' => ['text'],
		'!~' => ['text'],
		'@>' => ['text[]'],
		'||' => ['text']);
	foreach my $operator (sort keys %arguments)
	{
		foreach my $type (@{ $arguments{$operator} })
		{
			my $result = $operator eq '||' ? 'text' : 'boolean';
			(my $name = "op_" . unpack('H*', $operator) . "_$type") =~ s/\[\]/_list/;
			$sql .= "CREATE FUNCTION public.$name($type, $type) RETURNS $result LANGUAGE plpgsql AS \$\$ BEGIN RAISE EXCEPTION 'captured: $operator $type'; END \$\$;
				CREATE OPERATOR public.$operator (FUNCTION = public.$name, LEFTARG = $type, RIGHTARG = $type);\n";
		}
	}
	# The mixed ones that pg_catalog does not have exactly.
	foreach my $pair ([ 'numeric', 'integer', '<>' ], [ 'numeric', 'integer', '>' ], [ 'double precision', 'integer', '>' ], [ 'bigint', 'numeric', '>' ],
		[ 'timestamptz', 'timestamp', '<' ], [ 'jsonb', 'varchar', '->' ], [ 'double precision', 'integer', '*' ], [ 'numeric', 'integer', '*' ])
	{
		my ($left, $right, $operator) = @$pair;
		(my $name = "op_" . unpack('H*', $operator) . "_${left}_$right") =~ s/ /_/g;
		$sql .= "CREATE FUNCTION public.$name($left, $right) RETURNS boolean LANGUAGE plpgsql AS \$\$ BEGIN RAISE EXCEPTION 'captured: $left $operator $right'; END \$\$;
			CREATE OPERATOR public.$operator (FUNCTION = public.$name, LEFTARG = $left, RIGHTARG = $right);\n";
	}
	foreach my $function (
		'now()', 'clock_timestamp()', 'coalesce_(text)', 'lower(text)', 'length(text)', 'quote_ident(text)', 'nextval(regclass)', 'nextval(text)', 'to_regclass(text)',
		'pg_advisory_xact_lock(integer, integer)', 'schedule_now()', 'scan_begin()', 'gateway_of(text)', 'star_list(text)', 'vip_at_least(integer, bigint)',
		'balance_at(jsonb, text)', 'true(quota_manager_subject)', 'ceil(numeric)', 'ceil(double precision)', 'current_setting(text)', 'to_char(timestamp, text)')
	{
		my ($name, $types) = $function =~ /^(\w+)\((.*)\)$/ or die;
		next if $types eq 'quota_manager_subject';
		$sql .= "CREATE FUNCTION public.\"$name\"($types) RETURNS text LANGUAGE plpgsql AS \$\$ BEGIN RAISE EXCEPTION 'captured: $name'; END \$\$;\n";
	}
	foreach my $relation (qw(quota_strategy quota_execute quota_run quota_gateway quota_model quota_installation user_info user_balance balance_suspension known_balance subject
		pg_class pg_attribute pg_proc pg_namespace))
	{
		$sql .= "CREATE VIEW public.$relation AS SELECT public.capture('$relation') AS id;\n";
	}
	$sql .= "CREATE DOMAIN public.text AS pg_catalog.text CHECK (public.capture('text'));\nCREATE DOMAIN public.timestamptz AS pg_catalog.timestamptz CHECK (public.capture('timestamptz'));\n";
	return $sql;
}

# The same names in pg_temp.
sub temporary_objects
{
	return join '', map { "CREATE TEMPORARY TABLE $_ (id integer);\n" }
	  qw(quota_strategy quota_execute quota_run quota_gateway quota_model quota_installation user_info user_balance balance_suspension subject pg_class pg_attribute pg_proc
	  pg_extension);
}
