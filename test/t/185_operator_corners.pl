
# Corners where what operators do meets: a reversal that failed, or was deleted by retain(), and what is said of it; proof of
# reversals that is deleted by hand.

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Mock;
use QuotaTest::ScanNode qw(scan_node);
use Test::More;

my $mock = QuotaTest::Mock->start(dialect => 'zgsm');
my $node = scan_node('operator_corners', "quota_manager.delete_proof = off\n");
my $url = $mock->url;

sub sql { return $node->safe_psql('postgres', join(";\n", 'SET search_path = quota_manager', @_)); }

sub said { return QuotaTest::ScanNode::said($node, @_); }

sub at { return "SET quota_manager.schedule_clock = '$_[0]'" }

# Lets all grants and runs be so old.
sub age
{
	my ($days) = @_;

	sql('SET quota_manager.delete_proof = on',
		"UPDATE quota_execute SET create_time = create_time - interval '$days days', update_time = update_time - interval '$days days'",
		"UPDATE quota_run SET start_time = start_time - interval '$days days', finish_time = finish_time - interval '$days days'");
	return;
}

sql(<<"SQL");
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('g', 'zgsm', '$url', true);
INSERT INTO quota_model VALUES ('m', 'g'), ('n', 'g');
INSERT INTO user_info (id, vip) SELECT 'u' || n, n % 2 FROM generate_series(1, 10) n;
INSERT INTO quota_strategy (name, type, amount, model, condition, state) VALUES ('gift', 'single', 10, 'm', 'true()', 'active');
SQL

subtest 'a reversal that failed awaits nobody once another one has taken its place' => sub {
	sql(q{SELECT scan('gift')}, 'CALL deliver()');
	$mock->fault(kind => 'refuse', match => 'grant', user => 'u1', count => 1);
	sql(q{SELECT reverse_grants(ARRAY(SELECT id FROM quota_execute WHERE user_id IN ('u1', 'u2')), 'by mistake')}, 'CALL deliver()');
	like(sql('SELECT awaits_you, what_to_do FROM trouble_list'), qr/^t\|repair the cause, then SELECT quota_manager\.retry\(\d+, 'why'\)$/, 'it can be retried');
	is(sql('SELECT failed, await_you FROM trouble_counts'), '1|1', 'and is counted');
	sql(q{SELECT reverse_grants(ARRAY(SELECT id FROM quota_execute WHERE user_id = 'u1' AND revision = 0), 'once more')}, 'CALL deliver()');
	like(said('SELECT retry(id) FROM trouble_list'), qr/^ERROR:  grant \d+ cannot be retried\nDETAIL:  It is failed, and followed by revision 2\.$/m, 'not any more');
	is(sql('SELECT awaits_you, what_to_do FROM trouble_list'), 'f|nothing: revision 2 of the grant has taken its place', 'which is said');
	is(sql('SELECT failed, await_you FROM trouble_counts'), '1|0', 'in the counts, too');
};

subtest 'a reversal is of the grants that there are, each once' => sub {
	my $what = sub { return sql("SELECT count(*) FROM reverse_grants($_[0], 'named so')", 'SELECT what FROM reversal_status ORDER BY id DESC LIMIT 1') =~ s/^\d+\n//r };
	my ($third, $fourth) = split /\n/, sql(q{SELECT id FROM quota_execute WHERE user_id IN ('u3', 'u4') ORDER BY id});

	is($what->("ARRAY[$third, $third, NULL, 999999]"), "grant $third", 'one that is named twice');
	is($what->("ARRAY[[$fourth], [$third]]"), '2 grants', 'in an array of arrays');
	is(sql(q{SELECT count(*) FROM reverse_grants('{}', 'none')}), 0, 'none');
	sql('CALL deliver()');
};

subtest 'what proves that grants were reversed is not deleted by hand' => sub {
	like(said('DELETE FROM quota_run WHERE strategy_id IS NULL'),
		qr/^ERROR:  rows of quota_manager\.quota_run cannot be deleted: what reversals take back and give again would not be sent\nDETAIL:  .+\nHINT:  .+$/, 'the runs of reversals');
	like(said('DELETE FROM quota_execute WHERE revision > 0'),
		qr/^ERROR:  grants that reverse others cannot be deleted without them: these would be taken back once more\nDETAIL:  Among them are 5 of strategy "gift"\.\nHINT:  .+$/, 'what takes back');
	sql('BEGIN; SET LOCAL quota_manager.delete_proof = on; DELETE FROM quota_execute WHERE revision > 0; DELETE FROM quota_run WHERE strategy_id IS NULL; ROLLBACK');
	ok(1, 'but where it is meant');
	sql(q{BEGIN; UPDATE quota_strategy SET state = 'archived'; DELETE FROM quota_execute WHERE revision > 0; DELETE FROM quota_run; ROLLBACK});
	ok(1, 'or the strategy is archived');
};

subtest 'what retain() has deleted is told, not passed over' => sub {
	sql(at('2026-11-01 07:00:00+00'), q{INSERT INTO quota_strategy (name, type, periodic_expr, amount, model, condition, state) VALUES ('daily', 'periodic', '0 8 * * *', 5, 'n', 'true()', 'active')},
		at('2026-11-01 08:00:01+00'), q{SELECT scan('daily')}, 'CALL deliver()');

	my $run = sql(q{SELECT max(run_id) FROM quota_execute WHERE model = 'n'});
	my $reversal = (split /\|/, sql(q{SELECT * FROM reverse_strategy('daily', 'wrong')}, 'CALL deliver()'))[0];

	is(said("SELECT * FROM preview_reversal(reversal_id => $reversal)"), '', 'nothing is said while they are there');
	is(said("SELECT * FROM preview_reversal(run_id => $run)"), '', 'nor of the run');
	age(100);
	is(sql(at('2026-12-20 07:00:00+00'), q{CALL retain('30 days', 'daily')}), '20|0|0|', 'the grants are deleted, with what took them back');

	my %ask = ("reversal $reversal" => [ "preview_reversal(reversal_id => $reversal)", "undo_reversal($reversal, 'right')" ],
		"run $run" => [ "preview_reversal(run_id => $run)", "reverse_run($run, 'again')" ]);

	foreach my $what (sort keys %ask)
	{
		foreach my $call (@{ $ask{$what} })
		{
			my $text = said("SELECT * FROM $call");

			like($text, qr/^NOTICE:  10 of the grants of $what are not here\nDETAIL:  They are left as they are\. retain\(\) deletes grants that are old/, $call);
			is(() = $text =~ /NOTICE/g, 1, 'once');
		}
	}
	foreach my $call (q{preview_reversal(strategy => 'daily')}, q{reverse_strategy('daily', 'again')}, q{preview_reversal(strategy => 'daily', version => 1)})
	{
		like(said("SELECT * FROM $call"), qr/^NOTICE:  strategy "daily" has no grants(?: as version 1)?\nDETAIL:  Those that retain\(\) has deleted cannot be taken back\.\nHINT:  See SELECT user_id, grants, amount, last_time FROM quota_manager\.pruned_grant WHERE strategy_id = \d+\.$/m, $call);
	}
};

subtest 'the cause of what takes back is found without a read of its whole reversal' => sub {
	sql(q{INSERT INTO user_info (id, vip) SELECT 'many' || n, 9 FROM generate_series(1, 2000) n},
		q{INSERT INTO quota_strategy (name, type, amount, model, condition, state) VALUES ('many', 'single', 1, 'm', 'is-vip(9)', 'active')}, q{SELECT scan('many')}, 'CALL deliver()',
		q{SELECT reverse_strategy('many', 'all')}, 'ANALYZE');

	my @answer = split /\n/, sql('BEGIN', q{SELECT cause ~ '^reversal of grant \d+: all$' FROM grant_list WHERE user_id = 'many77' AND revision = 1},
		q{SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname = 'quota_reversal_item'}, 'ROLLBACK');

	is($answer[0], 't', 'what it takes back');
	cmp_ok($answer[1], '<', 100, "$answer[1] rows were read");
};

subtest 'a page about the user of a grant reads what is about that user' => sub {
	sql(q{SELECT count(*) FROM gateway_query('many77')}, q{INSERT INTO grant_decision (grant_id, strategy_id, revision, user_id, scheduled_time, gateway, action, status_before, status_after, role, session_role, note)
			SELECT n, 1, 0, 'many' || n, '-infinity', 'g', 'cancel', 'pending', 'cancelled', 'me', 'me', '' FROM generate_series(1, 5000) n},
		q{INSERT INTO gateway_call (role, action, gateway, user_id, amount, reason, outcome) SELECT 'me', 'delta', 'g', 'many' || n, 1, 'r', 'applied' FROM generate_series(1, 5000) n}, 'ANALYZE');

	my @answer = split /\n/, sql('BEGIN', q{SELECT count(DISTINCT section) FROM (SELECT user_id FROM quota_execute WHERE user_id = 'many77' LIMIT 1) e, LATERAL user_page(e.user_id)},
		q{SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname IN ('grant_decision', 'gateway_call', 'user_balance', 'user_info')}, 'ROLLBACK');

	cmp_ok($answer[0], '>', 4, 'it has all sections');
	cmp_ok($answer[1], '<', 100, "$answer[1] rows were read");
	@answer = split /\n/, sql('BEGIN', q{SELECT count(*) > 0 FROM (SELECT user_id FROM quota_execute WHERE user_id = 'many77' LIMIT 1) e, LATERAL why(e.user_id, 'many')},
		q{SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname IN ('grant_decision', 'user_info')}, 'ROLLBACK');
	is($answer[0], 't', 'why() answers, too');
	cmp_ok($answer[1], '<', 100, "$answer[1] rows were read");
	sql(q{DELETE FROM grant_decision WHERE role = 'me'}, q{DELETE FROM gateway_call WHERE reason = 'r'});
};

subtest 'reversals are listed without a count of what each of them did' => sub {
	my @answer = split /\n/, sql('BEGIN', q{SELECT id, what FROM reversal_status ORDER BY id DESC LIMIT 1},
		q{SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname IN ('quota_reversal_item', 'quota_execute')}, 'ROLLBACK');

	like($answer[0], qr/^\d+\|strategy "many"$/, 'the last one');
	is($answer[1], 0, 'nothing of what it did was read');

	sql(q{INSERT INTO quota_run (state, start_time, finish_time, reversal_id) SELECT 'done', now(), now(), 1000000 + n FROM generate_series(1, 3000) n}, 'ANALYZE quota_run', 'CALL deliver()');
	@answer = split /\n/, sql('BEGIN', q{SELECT delivered FROM reversal_status ORDER BY id DESC LIMIT 1},
		q{SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname = 'quota_run'}, 'ROLLBACK');
	is($answer[0], 2000, 'what is delivered of it');
	cmp_ok($answer[1], '<', 100, "runs of other reversals are not read: $answer[1]");
	sql('SET quota_manager.delete_proof = on', 'DELETE FROM quota_run WHERE reversal_id > 1000000');
};

subtest 'what many grants lack is said as what one lacks' => sub {
	sql(at('2027-01-01 07:00:00+00'), q{INSERT INTO quota_strategy (name, type, periodic_expr, amount, model, condition, state, max_exec_per_user) VALUES ('capped', 'periodic', '0 8 * * *', 3, 'n', 'is-vip(1)', 'active', 1)},
		at('2027-01-01 08:00:01+00'), q{SELECT scan('capped')}, q{SELECT cancel(array_agg(e.id), 'no') FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id WHERE s.name = 'capped'},
		at('2027-01-02 08:00:01+00'), q{SELECT scan('capped')});

	my $cancelled = q{SELECT array_agg(e.id) FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id WHERE s.name = 'capped' AND status = 'cancelled'};

	like(said("SELECT reinstate(($cancelled), 'yes')"), qr/^WARNING:  \d+ of \d+ grants were left as they are\nDETAIL:  They are: \d+ cancelled, and its user has reached max_exec_per_user since\.\nHINT:  Raise max_exec_per_user of its strategy first\.$/m, 'a limit');
	like(said("SELECT reinstate(($cancelled)[1], 'yes')"), qr/^HINT:  Raise max_exec_per_user of its strategy first\.$/m, 'as of one');
	like(said('SELECT retry(array_agg(id)) FROM trouble_list WHERE NOT awaits_you'), qr/^HINT:  Only the last revision of a grant changes; /m, 'a later revision');
	is(said('SELECT retry(ARRAY[]::bigint[])'), '', 'nothing of none');
};

subtest 'a pause that ends with its strategy says what is sent' => sub {
	sql(q{SELECT pause_strategy('capped', 'wrong')});
	like(said(q{BEGIN; UPDATE quota_strategy SET state = 'archived' WHERE name = 'capped'; ROLLBACK}),
		qr/^NOTICE:  pending grants of strategy "capped" are sent now\nDETAIL:  .*\nHINT:  If they are not to be: SELECT \* FROM quota_manager\.reverse_strategy\('capped', 'why'\); or /, 'where some are pending');
	sql(q{SELECT reverse_strategy('capped', 'wrong')});
	is(said(q{UPDATE quota_strategy SET state = 'archived' WHERE name = 'capped'}), '', 'and nothing where none is');
};

subtest 'a pause of a strategy does not hold its reversals' => sub {
	$mock->fault(kind => 'refuse', match => 'grant', count => 1);
	sql(q{SELECT reverse_grants(ARRAY(SELECT id FROM quota_execute WHERE user_id = 'u5' AND model = 'm' AND revision = 0), 'refused')}, q{SELECT pause_strategy('gift', 'while it is')}, 'CALL deliver()');
	like(sql('SELECT what_to_do FROM trouble_list WHERE awaits_you'), qr/^repair the cause, then SELECT quota_manager\.retry\(\d+, 'why'\)$/, 'so what failed of it can be retried');
	sql('SELECT retry(id) FROM trouble_list WHERE awaits_you', 'CALL deliver()');
	is(sql('SELECT count(*) FROM trouble_list WHERE awaits_you'), 0, 'and is sent');
};

subtest 'a new ceiling counts a day from its first midnight' => sub {
	# In Havana clocks are set back from 1 to 0 on that day.
	my $counted = sub { return sql(at($_[0]), q{INSERT INTO quota_ceiling (period, max_grants, on_excess, time_zone) VALUES ('day', 100000, 'cut', 'America/Havana')},
		'SELECT grants > 0, period_start FROM ceiling_status', 'DELETE FROM quota_ceiling') };

	sql(q{UPDATE quota_execute SET create_time = now() - interval '20 min'});
	is($counted->('2026-11-01 04:30:00+00'), 't|2026-11-01 05:00:00+00', 'half an hour after the first one');
	is($counted->('2026-11-01 04:10:00+00'), 'f|2026-11-01 05:00:00+00', 'not what was granted before it');
	is($counted->('2026-11-01 05:10:00+00'), 't|2026-11-01 05:00:00+00', 'after the second one');
	is($counted->('2026-11-02 05:10:00+00'), 'f|2026-11-02 05:00:00+00', 'not on the next day');
};

$node->stop;
done_testing();
