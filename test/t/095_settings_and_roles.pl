# What others have set, made or been given does not change who is granted, nor as whom code of others runs: settings of a
# database, roles that are superusers in disguise, tables and functions in a schema that others own.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('settings', preload => 1, settings => 'max_worker_processes = 24');
my $root = "$FindBin::RealBin/../..";

# Settings that change what a query returns: what a database sets for its sessions does not reach scans.
# A plan by an index is what the first of them is about.
my %hostile = (
	enable_seqscan => 'off',
	gin_fuzzy_search_limit => 2,
	transform_null_equals => 'on',
	standard_conforming_strings => 'off',
	array_nulls => 'off',
	timezone => 'Pacific/Kiritimati',
	datestyle => 'German',
	intervalstyle => 'sql_standard',
	extra_float_digits => '-15',
	bytea_output => 'escape',
	xmloption => 'document',
	default_text_search_config => 'pg_catalog.english');
my %condition = (
	star => 'github-star("zgsm")',
	'no org' => 'no-org()',
	slash => 'slash("a\b")',
	nulls => 'nulls()',
	day => 'registered-on("2025-01-01")',
	german => 'german()',
	interval => 'interval-text("-1 days +02:03:00")',
	float => 'float-text("0.1234567890123456")',
	bytes => 'bytes-text("\x00")',
	content => 'content()',
	word => 'word("running")');
# Users who meet each of them where nothing is set; %hostile changes every answer but one's own.
my %granted = (map({ $_ => 200 } keys %condition), 'no org' => 0);

sub database
{
	my ($name) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $name");
	QuotaTest::Workers::database($node, $name, $gateway);
	$node->safe_psql($name, q{
		INSERT INTO quota_manager.user_info (id, name, github_star, register_time)
			SELECT 'user' || n, 'running', 'zgsm,other' || n, '2025-01-01 23:00:00+00' FROM generate_series(1, 200) n;
		VACUUM ANALYZE quota_manager.user_info;
		CREATE FUNCTION quota_condition.no_org(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS 'BEGIN RETURN s.org = NULL; END';
		CREATE FUNCTION quota_condition.slash(s quota_manager.subject, t text) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS $$BEGIN RETURN t = 'a\b'; END$$;
		CREATE FUNCTION quota_condition.nulls(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS $$BEGIN RETURN ('{' || 'NULL' || '}')::text[] = ARRAY[NULL]::text[]; END$$;
		CREATE FUNCTION quota_condition.registered_on(s quota_manager.subject, t text) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS $$BEGIN RETURN s.register_time::date = t::date; END$$;
		CREATE FUNCTION quota_condition.german(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS $$BEGIN RETURN s.register_time::text LIKE '2025%'; END$$;
		CREATE FUNCTION quota_condition.interval_text(s quota_manager.subject, t text) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS $$BEGIN RETURN pg_catalog.make_interval(days => -1, hours => 2, mins => 3)::text = t; END$$;
		CREATE FUNCTION quota_condition.float_text(s quota_manager.subject, t text) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS $$BEGIN RETURN t::float8::text = t; END$$;
		CREATE FUNCTION quota_condition.bytes_text(s quota_manager.subject, t text) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS $$BEGIN RETURN pg_catalog.decode('00', 'hex')::text = t; END$$;
		CREATE FUNCTION quota_condition.content(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS $$BEGIN RETURN ('no ' || 'document')::xml IS NOT NULL; END$$;
		CREATE FUNCTION quota_condition.word(s quota_manager.subject, t text) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS $$BEGIN RETURN pg_catalog.to_tsvector(s.name)::text = '''' || t || ''':1'; END$$;
		SELECT quota_manager.grant_access('quota_worker', 'worker')});
	$node->safe_psql('postgres', "ALTER DATABASE $name SET $_ = '$hostile{$_}'") foreach sort keys %hostile;
	foreach my $name_of_strategy (sort keys %condition)
	{
		$node->safe_psql($name, sprintf q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)
			VALUES ('%s', 'single', 5, 'm', $c$%s$c$)}, $name_of_strategy, $condition{$name_of_strategy});
	}
	return;
}

sub check_grants
{
	my ($name, $way) = @_;

	foreach my $strategy (sort keys %condition)
	{
		is( $node->safe_psql($name, qq{
				SELECT r.state, r.granted, r.reason FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id
				WHERE s.name = '$strategy'}),
			"done|$granted{$strategy}|", "$way, settings of the database: $strategy");
	}
	return;
}

QuotaTest::Workers::set($node, 'quota_manager.workers', 'off');
database('called');
$node->safe_psql('called', 'SET ROLE quota_worker; CALL quota_manager.tick()');
check_grants('called', 'tick()');
database('scanned');
$node->safe_psql('scanned', 'SET ROLE quota_worker; SELECT quota_manager.scan()');
check_grants('scanned', 'scan()');
database('worked');
QuotaTest::Workers::set($node, 'quota_manager.workers', 'on');
QuotaTest::Workers::await($node, 'worked', sprintf 'SELECT count(*) = %d FROM quota_manager.quota_run', scalar keys %condition);
check_grants('worked', 'workers');

my %danger;
subtest 'roles that are superusers in disguise' => sub {
	$node->safe_psql('postgres', q{
		CREATE ROLE boss SUPERUSER; CREATE ROLE middle; CREATE ROLE maker CREATEROLE;
		CREATE ROLE super LOGIN SUPERUSER; CREATE ROLE member LOGIN NOINHERIT; GRANT boss TO middle; GRANT middle TO member;
		CREATE ROLE creator LOGIN CREATEROLE; CREATE ROLE creators LOGIN; GRANT maker TO creators;
		CREATE ROLE programs LOGIN; GRANT pg_execute_server_program TO programs;
		CREATE ROLE writer LOGIN; GRANT pg_write_server_files TO writer; CREATE ROLE reader LOGIN; GRANT pg_read_server_files TO reader;
		CREATE ROLE harmless LOGIN; GRANT pg_monitor TO harmless;
		CREATE EXTENSION quota_manager});
	my $before_16 = $node->safe_psql('postgres', 'SHOW server_version_num') < 160000;
	%danger = (
		super => 'is a superuser',
		member => 'is a member of role "boss", which is a superuser',
		programs => 'is a member of role "pg_execute_server_program", which reaches the files or programs of the server',
		writer => 'is a member of role "pg_write_server_files", which reaches the files or programs of the server',
		reader => 'is a member of role "pg_read_server_files", which reaches the files or programs of the server',
		$before_16 ? (creator => 'may create roles', creators => 'is a member of role "maker", which may create roles') : ());
	foreach my $role (sort keys %danger)
	{
		my $mark = -s $node->logfile;

		QuotaTest::Workers::set($node, 'quota_manager.worker_role', $role);
		$node->wait_for_log(qr/quota_manager workers do not run: role "$role" of quota_manager.worker_role \Q$danger{$role}\E\n/, $mark);
		pass("workers do not run as a role that $danger{$role}");
		my (undef, undef, $err) = $node->psql('postgres', 'SELECT quota_manager.start_workers()');
		like($err, qr/workers cannot run: role "$role" of quota_manager.worker_role \Q$danger{$role}\E\n.*HINT:  Conditions call functions that others have written/,
			'and start_workers() says so');
		is($node->safe_psql('postgres', qq{SELECT quota_internal.role_danger('$role'::regrole)}), $danger{$role}, 'as do jobs of pg_cron');
	}
	is($node->safe_psql('postgres', q{SELECT quota_internal.role_danger('harmless'::regrole) IS NULL}), 't', 'other roles may');
	# Nor do they run code of others by hand: it has the rights of the workers' role, or is refused.
	QuotaTest::Workers::set($node, 'quota_manager.workers', 'off');
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type ~ 'quota_manager (scheduler|courier)'});
	$node->safe_psql('postgres', q{
		INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('gateway', 'higress', 'http://127.0.0.1:9', true);
		INSERT INTO quota_manager.user_info (id) VALUES ('ada');
		SELECT quota_manager.grant_access('quota_worker', 'worker');
		CREATE FUNCTION quota_condition.run_as(s quota_manager.subject, who text) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS 'BEGIN RETURN current_user = who; END';
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)
			SELECT r.rolname || w, 'single', 1, 'm', format('run-as("%s")', CASE w WHEN '' THEN r.rolname ELSE 'quota_worker' END)::quota_manager.condition
			FROM pg_roles r, (VALUES (''), (' as worker')) w (w) WHERE r.rolcanlogin AND r.rolname NOT IN ('postgres', 'mallory')});
	# For sessions that begin afterwards.
};
sub set_worker_role
{
	my ($role) = @_;

	QuotaTest::Workers::set($node, 'quota_manager.worker_role', $role);
	QuotaTest::Workers::await($node, 'postgres', "current_setting('quota_manager.worker_role') = '$role'");
	return;
}

foreach my $role (sort keys %danger, 'harmless')
{
	$node->safe_psql('postgres', qq{SELECT quota_manager.grant_access('$role', 'operator')});
	set_worker_role('super');
	my $refused = $node->safe_psql('postgres', qq{SET ROLE $role; SELECT error ~ 'code that others have written is not run as role "$role"' FROM quota_manager.scan('$role')});
	set_worker_role('quota_worker');
	my $as_worker = $node->safe_psql('postgres', qq{SET ROLE $role; SELECT granted FROM quota_manager.scan('$role as worker')});
	is("$refused|$as_worker", $danger{$role} ? 't|1' : '|0', "$role runs code of others as " . ($danger{$role} ? 'the workers do, or not' : 'itself'));
}

# The README's five minutes, where others own schema public and have made there what is named.
my $readme = slurp_file("$root/README.md");
my ($sql) = $readme =~ /## Five minutes.*?```sql\n(.*?)```/s or die 'the README has no five minutes';
$node->safe_psql('postgres', 'CREATE ROLE mallory LOGIN; CREATE DATABASE five_minutes');
$node->safe_psql('five_minutes', 'ALTER SCHEMA public OWNER TO mallory');
$node->safe_psql('five_minutes', q{
	CREATE TABLE public.caught (who text, what text); GRANT INSERT ON public.caught TO PUBLIC;
	CREATE FUNCTION public.catch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.caught VALUES (current_user, TG_RELID::regclass); RETURN NEW; END$$;
	CREATE FUNCTION public.scan() RETURNS text LANGUAGE sql AS $$INSERT INTO public.caught VALUES (current_user, 'scan'); SELECT 'x'$$;
	CREATE FUNCTION public.upcoming() RETURNS TABLE (strategy text, local_time text, time_zone text, note text) LANGUAGE sql
		AS $$INSERT INTO public.caught VALUES (current_user, 'upcoming'); SELECT 'x', 'x', 'x', 'x'$$;
	CREATE PROCEDURE public.deliver() LANGUAGE sql AS $$INSERT INTO public.caught VALUES (current_user, 'deliver')$$;
	CREATE TABLE public.quota_gateway (name text, dialect text, base_url text, credential text, is_default boolean);
	CREATE TABLE public.user_info (id text, github_star text, vip integer, org text);
	CREATE TABLE public.quota_strategy (name text, type text, amount numeric, model text, periodic_expr text, time_zone text, condition text);
	CREATE TRIGGER catch BEFORE INSERT ON public.quota_gateway FOR EACH ROW EXECUTE FUNCTION public.catch();
	CREATE TRIGGER catch BEFORE INSERT ON public.user_info FOR EACH ROW EXECUTE FUNCTION public.catch();
	CREATE TRIGGER catch BEFORE INSERT ON public.quota_strategy FOR EACH ROW EXECUTE FUNCTION public.catch();},
	connstr => $node->connstr('five_minutes') . ' user=mallory');
QuotaTest::Workers::set($node, 'quota_manager.workers', 'off');
$node->safe_psql('five_minutes', "CREATE EXTENSION quota_manager; CREATE ROLE five; SELECT quota_manager.grant_access('five', 'admin')");
like($sql, qr/\\getenv gateway GATEWAY\n/, 'the README takes the gateway from the environment');
local $ENV{GATEWAY} = $gateway->{url};
$node->safe_psql('five_minutes', $sql);
is($node->safe_psql('five_minutes', 'SELECT count(*) FROM public.caught'), 0, 'who follows the README runs no code of others');
is($node->safe_psql('five_minutes', 'SELECT count(*) FROM quota_manager.quota_strategy'), 1, 'and it works');
foreach my $file ('README.md', glob("$root/docs/*.md"), glob("$root/examples/*"))
{
	unlike(slurp_file($root =~ m{^/} && $file =~ m{^/} ? $file : "$root/$file"), qr/search_path\s*(?:=|TO)[^;\n]*\bpublic\b/i,
		"$file advises no search_path with public");
}

subtest 'what no index has room for is refused by name, and nothing else' => sub {
	my $long = q{(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 100) n)};
	foreach my $case (
		[ 'an organisation', "(id, org) VALUES ('long', $long)", qr/the organisation of user "long" has 3200 bytes/ ],
		[ 'a project', "(id, github_star) VALUES ('long', 'a,' || $long || ',b')", qr/a project that user "long" starred has more than 2600 bytes/ ],
		[ 'many projects', "(id, github_star) SELECT 'many', string_agg(md5(n::text), ',') FROM generate_series(1, 10000) n", undef ],
		[ 'the longest', "(id, org, github_star) SELECT 'longest', left(l, 2600), 'a,' || left(l, 2600) FROM $long l(l)", undef ])
	{
		my ($name, $values, $refusal) = @$case;
		my ($status, undef, $err) = $node->psql('five_minutes', "INSERT INTO quota_manager.user_info $values");

		if ($refusal)
		{
			like($err, $refusal, "$name that is too long is refused by name");
		}
		else
		{
			is($status, 0, "$name: stored") or diag $err;
		}
	}
};

subtest 'a list of 100 MB can be cancelled, and takes memory in proportion' => sub {
	foreach my $list (q{repeat('abc,', 26214400)}, q{repeat(' ', 104857600)}, q{repeat(', ', 52428800)})
	{
		my ($status, undef, $err) = $node->psql('five_minutes', "SET statement_timeout = '100ms'; SELECT cardinality(quota_manager.star_list(l)) FROM (SELECT $list OFFSET 0) x (l)");
		like($err, qr/canceling statement due to statement timeout/, "$list: cancelled");
	}
	my $kilobytes = $node->safe_psql('five_minutes', q{
		SELECT cardinality(quota_manager.star_list(repeat('abc,', 26214400))) = 26214400;
		SELECT (regexp_match(pg_read_file('/proc/' || pg_backend_pid() || '/status'), 'VmHWM:\s*(\d+)'))[1]});
	like($kilobytes, qr/^t\n\d+$/, 'a list of 100 MB is read');
	cmp_ok((split /\n/, $kilobytes)[1], '<', 1200 * 1024, 'in less than 1.2 GB');
};

$node->stop;
done_testing();
