# What proves that somebody was paid is not lost by a slip: TRUNCATE, DELETE and changes of keys are refused for everybody, the
# owner and superusers included, unless quota_manager.delete_proof is on; and what drops, restores or retains goes on working.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node add_gateway);
use QuotaTest::Wait qw(wait_until becomes_true);
use Test::More;

my $node = scan_node('guards', "quota_manager.delete_proof = off\nwal_level = logical\nmax_wal_senders = 5\nmax_replication_slots = 5\n");

sub sql { return $node->safe_psql('postgres', "SET search_path = quota_manager; $_[0]") }

# What a statement says.
sub says
{
	my ($statement) = @_;
	my (undef, undef, $err) = $node->psql('postgres', "SET search_path = quota_manager; $statement", extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	return $err;
}

# How much proof there is.
my @tables = qw(quota_execute quota_run bulk_call pruned_grant quota_reversal quota_reversal_item quota_strategy_version);

sub proof { return sql('SELECT ' . join ', ', map { "(SELECT count(*) FROM $_)" } @tables) }

add_gateway($node, 'postgres');
sql(q{
	CREATE ROLE keeper LOGIN;
	GRANT USAGE ON SCHEMA quota_manager TO keeper;
	INSERT INTO user_info (id) SELECT 'u' || n FROM generate_series(1, 20) n;
	INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('once', 'single', 5, 'm', 'true()');
	INSERT INTO quota_strategy (name, type, amount, model, condition, periodic_expr) VALUES ('daily', 'periodic', 5, 'm', 'true()', '0 8 * * *');
	SET quota_manager.schedule_clock = '2030-01-01 07:00:00+00';
	SELECT count(*) FROM scan();
	SET quota_manager.schedule_clock = '2030-01-01 08:00:30+00';
	SELECT count(*) FROM scan();
	UPDATE quota_execute SET status = 'completed' WHERE user_id < 'u15';
	SELECT quota_internal.recount_grants();
	SELECT count(*) FROM reverse_grants(ARRAY(SELECT id FROM quota_execute ORDER BY id LIMIT 3), 'wrong');
	INSERT INTO pruned_grant VALUES (1, 'u1', 'gateway', 1, 1, 5, now(), 0, 0);
	INSERT INTO bulk_call (key, user_id, value, reason, gateway, state) VALUES ('k', 'u1', 5, 'r', 'gateway', 'applied')});
my $proof = proof();

subtest 'TRUNCATE' => sub {
	foreach my $table (@tables)
	{
		like(says("TRUNCATE $table"), qr/ERROR:  55000: table quota_manager\.$table cannot be truncated: .+\nDETAIL:  .*\nHINT:  .*To do it all the same, set quota_manager\.delete_proof to on before\./, $table);
	}
	like(says("TRUNCATE user_balance, quota_execute, quota_run CASCADE"), qr/cannot be truncated: users would be paid again/, 'several at once');
	sql(q{GRANT TRUNCATE ON quota_execute TO keeper});
	my (undef, undef, $err) = $node->psql('postgres', 'TRUNCATE quota_manager.quota_execute', connstr => $node->connstr('postgres') . ' user=keeper');
	like($err, qr/cannot be truncated: users would be paid again/, 'a role with the right to truncate');
	is(proof(), $proof, 'nothing is gone');
	sql('BEGIN; SET LOCAL quota_manager.delete_proof = on; TRUNCATE ' . join(', ', @tables) . '; ROLLBACK');
	ok(1, 'all of it, if that is meant');
	sql('BEGIN; CREATE TEMP TABLE kept AS TABLE bulk_call; SET LOCAL quota_manager.delete_proof = on; DELETE FROM bulk_call; SET LOCAL quota_manager.delete_proof = off; TRUNCATE bulk_call; ROLLBACK');
	ok(1, 'and a table that is empty');
};

subtest 'DELETE' => sub {
	foreach my $table (grep { !/^(?:quota_execute|pruned_grant)$/ } @tables)
	{
		like(says("DELETE FROM $table"), qr/ERROR:  55000: rows of quota_manager\.$table cannot be deleted: .+/, $table);
	}
	like(says('DELETE FROM quota_execute'), qr/grants of single strategies cannot be deleted: their users would be paid again/, 'quota_execute');
	like(says(q{DELETE FROM quota_strategy WHERE name = 'once'}), qr/strategy "once" has grants and cannot be deleted/, 'quota_strategy');
	sql("DELETE FROM $_ WHERE false") foreach @tables;
	is(proof(), $proof, 'nothing is gone');
	sql(q{BEGIN; UPDATE quota_strategy SET archived = true; DELETE FROM quota_run; ROLLBACK});
	ok(1, 'runs of archived strategies');
	sql(q{INSERT INTO quota_strategy (name, type, amount, model, condition, state) VALUES ('draft', 'single', 5, 'm', 'true()', 'draft')});
	sql(q{DELETE FROM quota_strategy WHERE name = 'draft'});
	sql(q{INSERT INTO quota_strategy (id, name, type, amount, model, condition, state) VALUES (3, 'again', 'single', 5, 'm', 'true()', 'draft'); DELETE FROM quota_strategy WHERE name = 'again'});
	ok(1, 'a strategy without grants comes and goes, and another one takes its number');
};

subtest 'keys' => sub {
	my %key = (quota_execute => { strategy_id => 9, user_id => q{'x'}, scheduled_time => 'now()', revision => 9 },
		quota_run => { strategy_id => 9, scheduled_time => 'now()' }, bulk_call => { key => q{'x'}, user_id => q{'x'} });

	foreach my $table (sort keys %key)
	{
		foreach my $column (sort keys %{ $key{$table} })
		{
			like(says("UPDATE $table SET $column = $key{$table}{$column} WHERE ctid = (SELECT min(ctid) FROM $table)"),
				qr/ERROR:  55000: keys of quota_manager\.$table cannot be changed: .+/, "$table.$column");
		}
		sql("UPDATE $table SET " . join(', ', map { "$_ = $_" } sort keys %{ $key{$table} }));
	}
	sql(q{BEGIN; SET LOCAL quota_manager.delete_proof = on; UPDATE quota_execute SET revision = revision + 5; ROLLBACK});
	ok(1, 'what stays the same, or is meant, may be written');
};

subtest 'nobody is paid again' => sub {
	is(sql(q{SET quota_manager.schedule_clock = '2030-01-01 08:01:00+00'; SELECT coalesce(sum(granted), 0) FROM scan()}), 0, 'a scan grants nothing');
};

subtest 'a trigger on another table says no' => sub {
	like(says(q{CREATE TABLE public.other (a int); CREATE TRIGGER t BEFORE TRUNCATE ON public.other EXECUTE FUNCTION quota_internal.keep_proof(); TRUNCATE public.other}),
		qr/ERROR:  42809: this trigger is for the tables of quota_manager that keep proof only/, 'wrong_object_type');
};

subtest 'dump and restore, in parallel, over what is there, and of data alone' => sub {
	my $dump = PostgreSQL::Test::Utils::tempdir . '/dump';
	my $dumped = proof();

	$node->command_ok([ 'pg_dump', '-Fd', '-d', $node->connstr('postgres'), '-f', $dump ], 'dumped');
	$node->safe_psql('postgres', 'CREATE DATABASE restored');
	foreach my $how ([ '-j', '3' ], [ '-j', '3', '--clean', '--if-exists' ], [ '--clean', '--if-exists', '--single-transaction' ])
	{
		$node->command_ok([ 'pg_restore', '--exit-on-error', @{$how}, '-d', $node->connstr('restored'), $dump ], "pg_restore @{$how}");
		is($node->safe_psql('restored', 'SELECT ' . join ', ', map { "(SELECT count(*) FROM quota_manager.$_)" } @tables), $dumped, "pg_restore @{$how}: all is there");
	}
	$node->safe_psql('restored', 'DROP EXTENSION quota_manager CASCADE');
	ok(1, 'DROP EXTENSION');
	$node->safe_psql('restored', 'CREATE EXTENSION quota_manager');
	$node->command_ok([ 'pg_restore', '--exit-on-error', '--data-only', '-n', 'quota_manager', '-t', 'bulk_call', '-d', $node->connstr('restored'), $dump ], 'data alone');
};

subtest 'a subscriber does what its publisher does' => sub {
	my $database = 'subscriber';

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION quota_manager');
	$node->safe_psql('postgres', q{CREATE PUBLICATION p FOR TABLE quota_manager.bulk_call; SELECT pg_create_logical_replication_slot('s', 'pgoutput')});
	$node->safe_psql($database, 'CREATE SUBSCRIPTION s CONNECTION ' . "'" . ($node->connstr('postgres') =~ s/'/''/gr) . "'" . q{ PUBLICATION p WITH (create_slot = false, slot_name = 's')});
	wait_until($node, 'SELECT count(*) = 1 FROM quota_manager.bulk_call', database => $database);
	sql('SET quota_manager.delete_proof = on; TRUNCATE bulk_call');
	ok(becomes_true($node, 'SELECT count(*) = 0 FROM quota_manager.bulk_call', database => $database), 'TRUNCATE is replicated');
	$node->safe_psql($database, 'DROP SUBSCRIPTION s');
};

subtest 'retain() deletes what it may' => sub {
	sql(q{SET quota_manager.schedule_clock = '2030-01-01 08:02:00+00'; SET quota_manager.delete_proof = on;
		UPDATE quota_run SET scheduled_time = scheduled_time - interval '10 years', finish_time = now() - interval '5 years' WHERE scheduled_time IS NOT NULL;
		UPDATE quota_execute SET scheduled_time = scheduled_time - interval '10 years', status = 'completed', update_time = now() - interval '5 years', create_time = now() - interval '5 years' WHERE scheduled_time > '-infinity'});
	like(sql(q{CALL retain('1 year')}), qr/^[1-9]\d*\|/, 'with the setting off');
};

$node->stop;
done_testing();
