
# Users, balances, grants and decisions can be distributed over servers by user: no statement, key or function of ours is in
# the way.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node add_gateway);
use QuotaTest::Statements;
use Test::More;

my $node = scan_node('distributed');
my $rules = QuotaTest::Statements->new($node);
my %columns = %QuotaTest::Statements::distributed;
my $tables = join ', ', map { "'quota_manager.$_'::regclass" } sort keys %columns;

sub rows { return [ split /\n/, $node->safe_psql('postgres', $_[0]) ]; }

# The rules see what they are for.
my $grants = 'quota_manager.quota_execute';
foreach my $bad (
	[ c => 'SELECT EXISTS (SELECT FROM quota_manager.quota_run r)', 'selects no column' ],
	[ plpgsql => 'PERFORM FROM quota_manager.quota_run r', 'selects no column' ],
	[ c => "UPDATE $grants AS e SET update_time = clock_timestamp()", 'calls clock_timestamp() in a change' ],
	[ plpgsql => "IF random() < 1 THEN UPDATE $grants e SET doubt_time = coalesce(e.doubt_time, now())", 'calls now() in a change' ],
	[ plpgsql => "WITH d AS (SELECT random()) DELETE FROM quota_manager.user_balance", 'calls random() in a change' ],
	[ c => 'UPDATE quota_manager.user_info SET access_time = CURRENT_TIMESTAMP', 'has the time of the statement in a change' ],
	[ c => 'INSERT INTO quota_manager.user_balance AS b (user_id, gateway) VALUES ($1, $2)', 'leaves read_time to its default, a volatile one' ],
	[ sql => "SELECT e.id FROM $grants e WHERE e.gateway = \$1", 'is an SQL function that knows its parameter too late' ],
	[ c => "SELECT r.id FROM quota_manager.quota_run r CROSS JOIN LATERAL (SELECT e.* FROM $grants e OFFSET 0) e", 'joins each row of a table to a part of another' ],
	[ c => 'SELECT u FROM unnest($1) u(id) WHERE NOT EXISTS (SELECT 1 FROM quota_manager.known_balance k WHERE k.user_id = u.id)',
		'asks for each row of a function whether there is one elsewhere' ],
	[ plpgsql => "PERFORM 1 FROM $grants e WHERE e.id = ANY (ids) FOR UPDATE", 'locks rows of more than one user' ])
{
	my ($language, $statement, $fault) = @$bad;

	is(join('; ', $rules->faults($statement, $language)), $fault, "a rule sees: $fault");
}

subtest 'not one statement breaks them' => sub {
	my %seen;
	foreach my $source ($rules->sources)
	{
		my @faults;

		$seen{ $source->{language} }++;
		foreach my $statement ($rules->statements($source))
		{
			$seen{"$1 $2"}++ if $statement =~ /\b(INSERT INTO|UPDATE|DELETE FROM) quota_manager\.(\w+)/;
			# The planner sees through this one, wherever it stands: what it is given is known by then.
			push @faults, grep { $source->{name} !~ /^(?:quota_api\.preview|quota_internal\.source_users)/ || !/too late/ } $rules->faults($statement, $source->{language});
		}
		is(join('; ', @faults), '', "$source->{language}: $source->{name}");
	}
	foreach my $some ('c', 'plpgsql', 'sql', 'view', 'UPDATE quota_execute', 'INSERT INTO quota_execute', 'UPDATE user_balance', 'INSERT INTO user_balance',
		'DELETE FROM user_balance', 'INSERT INTO grant_decision')
	{
		ok($seen{$some}, "read: $some");
	}
};

# What is shipped to another server as a function is a query there: "RETURN (SELECT ...)" is none.
is_deeply(rows(q{SET search_path = ''; SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace IN (SELECT n.oid FROM pg_namespace n WHERE n.nspname ~ '^quota_')
	AND p.prosqlbody IS NOT NULL AND pg_get_function_sqlbody(p.oid) ~ '^\s*RETURN' AND pg_get_function_sqlbody(p.oid) ~ 'FROM\s+\(*quota_manager\.' ORDER BY 1}),
	[], 'no body is a value that is read from a table');

my $offset;
subtest 'a condition is asked where the user is' => sub {
	is_deeply(rows(q{SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'quota_condition'::regnamespace
		AND pg_get_function_sqlbody(p.oid) ~ '\mFROM\M' ORDER BY 1}), [], 'no condition function reads a table');
	add_gateway($node, 'postgres');
	$node->safe_psql('postgres', q{INSERT INTO quota_manager.quota_model VALUES ('served', 'gateway');
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('low', 'single', 1, 'm', 'quota-le("served", 5) or not(quota-le("m", 1))')});
	is($node->safe_psql('postgres', q{SELECT quota_internal.bound_condition(condition) FROM quota_manager.quota_strategy}),
		'or(balance-le("gateway", 5), not(balance-le("gateway", 1)))', 'a condition names gateways when it goes into a statement');
	$node->append_conf('postgresql.conf', q{
	session_preload_libraries = 'auto_explain'
	auto_explain.log_min_duration = 0
	auto_explain.log_nested_statements = on
	auto_explain.log_verbose = on
	});
	$node->restart;
	$offset = -s $node->logfile;
	$node->safe_psql('postgres', q{INSERT INTO quota_manager.user_info (id) VALUES ('u1'), ('u2'); INSERT INTO quota_manager.user_balance (user_id, gateway, balance) VALUES ('u1', 'gateway', 1)});
	is($node->safe_psql('postgres', q{SELECT granted, unknown_balance, error FROM quota_manager.scan()}), '1|1|', 'a scan by balances');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_strategy s, quota_manager.undecided(s.id)}), 1, 'and whom it leaves undecided');
	my $log = slurp_file($node->logfile, $offset);
	like($log, qr/balance_at\([^\n]*'gateway'/, 'plans of ours name the gateway');
	unlike($log, qr/balance_for\(/, 'none of them looks it up');
};

# Tables that are distributed together have one collation of the user; ours is another, for speed, and can be chosen.
SKIP:
{
	skip 'no collation that orders otherwise', 4
	  if $node->safe_psql('postgres', q{SELECT count(*) FROM pg_collation WHERE collname = 'en-x-icu'}) eq '0';
	$node->safe_psql('postgres', q{CREATE DATABASE collated; ALTER DATABASE collated SET quota_install.user_collation = 'en-x-icu'});
	$node->safe_psql('collated', 'CREATE EXTENSION quota_manager');
	is($node->safe_psql('collated', q{SELECT string_agg(DISTINCT attcollation::regcollation::text, ' ') FROM pg_attribute WHERE attrelid = ANY (ARRAY['quota_manager.quota_execute', 'quota_api.executions']::regclass[])
		AND attname = 'user_id'}), '"en-x-icu"', 'another collation of the user');
	add_gateway($node, 'collated');
	$node->safe_psql('collated', q{
		CREATE RULE elsewhere AS ON DELETE TO quota_manager.quota_execute DO ALSO NOTIFY elsewhere;
		INSERT INTO quota_manager.user_info (id) VALUES ('u1'), ('u2');
		UPDATE quota_manager.quota_strategy SET enabled = false;
		INSERT INTO quota_manager.user_info (id, vip) SELECT v || n, n FROM generate_series(1, 3000) n, unnest('{a,A,b,_,B}'::text[]) v;
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('some', 'single', 1, 'm', 'not(is-vip(1500))'),
			('capped', 'single', 1, 'm', 'true()'), ('all', 'single', 1, 'm', 'true()');
		UPDATE quota_manager.quota_strategy SET max_exec_per_user = 1 WHERE name = 'capped'});
	$offset = -s $node->logfile;
	my $scan = q{SELECT string_agg(concat_ws(' ', s.strategy, s.granted, s.already_granted, s.capped, s.error), ', ' ORDER BY s.strategy) FROM quota_manager.scan() s};
	is($node->safe_psql('collated', $scan), 'all 15002 0 0, capped 15002 0 0, some 7497 0 0', 'another collation: a first scan');
	my @inserts = slurp_file($node->logfile, $offset) =~ /(INSERT INTO quota_manager\.quota_execute [^\n]*)/g;
	is_deeply([ map { $rules->faults($_, 'c') } @inserts ], [], scalar(@inserts) . ' INSERTs of grants leave nothing to a default');
	$node->safe_psql('collated', q{UPDATE quota_manager.quota_strategy SET condition = 'or(true(), is-vip(7))' WHERE name IN ('some', 'all', 'capped')});
	is($node->safe_psql('collated', $scan), 'all 0 15002 0, capped 0 15002 0, some 7505 7497 0', 'another collation: another one meets the grants in their order');
}

subtest 'keys and what else a distributed table has' => sub {
	is_deeply(rows(qq{SELECT x.indexrelid::regclass FROM pg_index x WHERE x.indrelid IN ($tables) AND x.indisunique
		AND NOT EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = x.indrelid AND a.attname = CASE WHEN a.attrelid = 'quota_manager.user_info'::regclass THEN 'id' ELSE 'user_id' END
			AND a.attnum = ANY (x.indkey))}), [], 'each key has the user');
	is_deeply(rows(qq{SELECT c.conname FROM pg_constraint c WHERE c.contype = 'f' AND (c.conrelid IN ($tables) OR c.confrelid IN ($tables))}), [], 'no foreign key');
	is_deeply(rows(qq{SELECT t.tgrelid::regclass || ' ' || t.tgname FROM pg_trigger t WHERE t.tgrelid IN ($tables) AND NOT t.tgisinternal ORDER BY t.tgrelid::regclass::text, t.tgname}),
		[ 'quota_manager.quota_execute count_deleted',
			'quota_manager.quota_execute count_truncated', 'quota_manager.quota_execute keep_key',
			'quota_manager.quota_execute keep_truncated_proof', 'quota_manager.user_info check_user',
			'quota_manager.user_info keep_user_id', 'quota_manager.user_info set_update_time' ],
		'the triggers are those that the docs say to drop');
};

$node->stop;
done_testing();
