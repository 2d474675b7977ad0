
# What an operator who knows the documentation alone met: answers that were wrong or told half, and errors that did not say
# what to do.

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
my $node = scan_node('operator_trial');
my $url = $mock->url;

sub sql { return $node->safe_psql('postgres', join(";\n", 'SET search_path = quota_manager', @_)); }

sub said { return QuotaTest::ScanNode::said($node, @_); }

sql(<<"SQL");
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('g', 'zgsm', '$url', true);
INSERT INTO quota_model VALUES ('m', 'g'), ('n', 'g');
INSERT INTO user_info (id, vip) SELECT 'u' || n, n % 2 FROM generate_series(1, 10) n;
INSERT INTO quota_strategy (name, type, amount, model, condition, state) VALUES
	('odd', 'single', 5, 'm', 'is-vip(1)', 'active'), ('all', 'single', 7, 'n', 'true()', 'active');
SQL

subtest 'a reversal goes on with what had to wait, and says so' => sub {
	sql(q{SELECT scan('odd')});
	$mock->fault(kind => 'apply_cut_off', match => 'grant', user => 'u1', count => 1);
	sql('CALL deliver()', 'SELECT scan()', 'CALL deliver()');

	my $id = sql(q{SELECT grant_id FROM troubled_grant WHERE status = 'in_doubt'});

	sql(q{SELECT reverse_strategy('odd', 'by mistake')}, 'CALL deliver()');
	sql(qq{SELECT resolve($id, true, 'in their log')}, 'CALL deliver()');
	is(sql(q{SELECT DISTINCT regexp_replace(cause, '\d+', 'N') FROM grant_list WHERE strategy = 'odd' AND revision = 1}), 'reversal of grant N: by mistake', 'in the list of grants');
	is(sql(qq{SELECT cause FROM grant_list WHERE user_id = 'u1' AND strategy = 'odd' AND revision = 1}), "reversal of grant $id: by mistake", 'also of the one that waited');
	is(sql(q{SELECT what FROM why('u1', 'odd') WHERE kind = 'reversal'}), 'taken back 5 of m, by postgres: by mistake', 'in the story of the user');
	like(sql(q{SELECT note FROM user_page('u1') WHERE section = 'grant' AND value = '-5 of m'}), qr/^odd, reversal of grant $id: by mistake: /, 'and on their page');
	is(sql(q{SELECT count(DISTINCT run_id), count(DISTINCT r.reversal_id) FROM quota_execute e JOIN quota_run r ON r.id = e.run_id WHERE revision = 1}), '2|1', 'two runs of one reversal');
};

subtest 'totals are those of the strategies, however their grants were reversed' => sub {
	sql(q{SELECT reverse_grants(ARRAY(SELECT id FROM quota_execute WHERE revision = 0 AND user_id IN ('u2', 'u3')), 'both of them')}, 'CALL deliver()');
	sql(q{SELECT undo_reversal(1, 'right after all')}, 'CALL deliver()');
	sql(q{SELECT reverse_run((SELECT max(id) FROM quota_run), 'wrong after all')}, 'CALL deliver()');

	my $totals = 'SELECT strategy, model, sum(granted), sum(amount) FROM grant_totals GROUP BY 1, 2 ORDER BY 1';
	my $grants = 'SELECT s.name, e.model, count(*), sum(e.amount) FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id GROUP BY 1, 2 ORDER BY 1';

	is(sql($totals), sql($grants), 'as of the grants');
	is(sql(q{SELECT DISTINCT strategy IS NULL OR model IS NULL FROM grant_totals}), 'f', 'and none are of nobody');
	is(sql('SELECT sum(failed), sum(in_doubt), sum(undelivered_runs) FROM grant_totals'), '0|0|0', 'all are settled');
	$mock->fault(kind => 'refuse', match => 'grant', count => 1);
	sql(q{SELECT reverse_grants(ARRAY(SELECT id FROM quota_execute WHERE user_id = 'u4' AND revision = 0), 'refused')}, 'CALL deliver()');
	is(sql(q{SELECT strategy, failed FROM grant_totals WHERE failed > 0}), 'all|1', 'what the gateway refused is counted with its strategy');
	is(sql($totals), sql($grants), 'and in the sums');
};

subtest 'a reversal that was undone is seen to be' => sub {
	is(sql('SELECT id, undone_id, undone_by FROM reversal_status WHERE undone_id IS NOT NULL OR undone_by IS NOT NULL ORDER BY id'), "1||3\n3|1|", 'by both of them');
};

subtest 'a status is said once' => sub {
	my ($why) = sql(q{SELECT why FROM trouble_list});

	like($why, qr/\bHTTP 400\b/, 'what the gateway answered');
	is(() = $why =~ /HTTP \d+/g, 1, 'with its status once') or diag($why);
};

subtest 'what is reversed is there' => sub {
	like(said(q{SELECT * FROM reverse_strategy('odd', 'x', version => 99)}),
		qr/^NOTICE:  strategy "odd" has granted nothing as version 99\nHINT:  See SELECT version, changes FROM quota_manager\.strategy_history\('odd'\)\.$/m, 'no such version');
	like(said(q{SELECT * FROM preview_reversal(strategy => 'odd', firing => '2020-01-01 00:00+00')}), qr/^NOTICE:  strategy "odd" has granted nothing for the firing of 2020-01-01/m, 'no such firing');
	is(said(q{SELECT * FROM preview_reversal(strategy => 'odd')}), '', 'nothing is said where there is something');
};

subtest 'slips' => sub {
	my @slips = (
		[ q{SELECT restart_schedule(NULL)}, 'ERROR:  the strategy must be given' ],
		[ q{SELECT restart_schedule('odd')}, qr/^ERROR:  strategy "odd" has no schedule\nDETAIL:  It is single: / ],
		[ q{SELECT release_balances('nosuch', 'x')}, qr/^ERROR:  gateway "nosuch" does not exist\nHINT:  See SELECT name FROM quota_manager\.quota_gateway\.$/ ],
		[ q{SELECT gateway_query('u1', 'nosuch')}, qr/^ERROR:  gateway "nosuch" does not exist\nHINT:  See SELECT name FROM quota_manager\.quota_gateway\.$/ ],
		[ q{SELECT gateway_delta('u1', 0.0000001, 'x')}, qr/^ERROR:  amount 0\.0000001 cannot be sent to gateway "g"\nDETAIL:  The dialect zgsm takes numbers with at most 6 decimals / ],
		[ q{SELECT * FROM upcoming(n => 2147483647)}, qr/^ERROR:  the number of firings must be between 1 and 10000\nHINT:  / ],
		[ q{SELECT resolve(999999, true)}, qr/^ERROR:  grant 999999 does not exist\nHINT:  See SELECT id, / ],
		[ q{INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('h', 'zgsm', 'http://localhost', true)},
			qr/^ERROR:  gateway "g" is the default already\nDETAIL:  .*\nHINT:  To let "h" take its place, first UPDATE quota_manager\.quota_gateway SET is_default = false WHERE name = 'g'\.$/ ],
		[ q{UPDATE quota_strategy SET amount = 1e300 WHERE name = 'odd'}, qr/^ERROR:  amount 10{56}\.\.\. of strategy "odd" cannot be delivered to gateway "g"\nDETAIL:  / ],
		[ q{BEGIN READ ONLY; SELECT pause_all()}, qr/^ERROR:  everything is paused only in a transaction that can write\nDETAIL:  This transaction is read-only\.\nHINT:  Begin it READ WRITE/ ],
		[ q{BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT scan()}, qr/\nHINT:  Begin the transaction with ISOLATION LEVEL READ COMMITTED\.$/ ]);

	foreach my $slip (@slips)
	{
		my ($statement, $expected) = @$slip;

		like(said($statement), ref $expected ? $expected : qr/^\Q$expected\E$/, $statement);
	}
};

subtest 'names have room in an index, whoever writes them' => sub {
	my $long = q{(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 300) n)};

	like(said(qq{INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ($long, 'single', 1, 'm', 'true()')}), qr/^ERROR:  the name of a strategy has 9600 bytes\nDETAIL:  At most 2600/, 'a new strategy');
	like(said(qq{UPDATE quota_strategy SET name = $long WHERE name = 'odd'}), qr/^ERROR:  the name of a strategy has 9600 bytes/, 'another name');
	like(said(q{INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES (repeat('x', 2601), 'single', 1, 'm', 'true()')}), qr/^ERROR:  the name of a strategy has 2601 bytes/, 'also one that would be compressed');
	like(said(qq{INSERT INTO quota_gateway (name, dialect, base_url) VALUES ($long, 'zgsm', 'http://localhost')}), qr/^ERROR:  the name of a gateway has 9600 bytes/, 'a gateway');
	is(said(q{INSERT INTO quota_strategy (name, type, amount, model, condition, version, schedule_since, create_time, state, enabled) VALUES (repeat('x', 2700), 'single', 1, 'm', 'true()', 1, now(), '2020-01-01', 'draft', false)}), '',
		'a strategy that is restored keeps its name');
};

subtest 'a pause of everything is told to who runs strategies' => sub {
	sql(q{SELECT pause_all('find out first')});
	foreach my $call ('SELECT scan()', 'CALL tick()', 'CALL deliver()')
	{
		like(said($call), qr/^NOTICE:  everything is paused since .* by postgres: find out first\nDETAIL:  Nothing is (?:run|sent) until quota_manager\.unpause_all\(\)\.$/, $call);
	}
	sql('SELECT unpause_all()');
	is(said('CALL tick()'), '', 'and not when it has ended');
};

subtest 'what is asked about two grants does not read those between them' => sub {
	sql(q{INSERT INTO user_info (id, vip) SELECT 'many' || n, 9 FROM generate_series(1, 3000) n},
		q{INSERT INTO quota_strategy (name, type, amount, model, condition, state) VALUES ('many', 'single', 1, 'm', 'is-vip(9)', 'active')}, q{SELECT scan('many')});

	my $read = 'SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname = \'quota_execute\'';
	my $grants = q{SELECT min(e.id), max(e.id) FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id WHERE s.name = 'many'};
	my ($first, $last) = split /\|/, sql($grants);

	foreach my $call ("cancel(ARRAY[$first, $last]::bigint[])", "reverse_grants(ARRAY[$first, $last], 'two')")
	{
		my $tuples = (split /\n/, sql('BEGIN', "SELECT count(*) FROM $call", $read, 'ROLLBACK'))[-1];

		cmp_ok($tuples, '<', 200, "$call read $tuples rows");
	}
};

subtest 'what a condition is joined with' => sub {
	like(said(q{SELECT 'is-vip(1) && is-vip(2)'::condition}), qr/^HINT:  Conditions are joined with and, or, not; /m, 'not &&');
	like(said(q{SELECT 'is-vip(1) = 2'::condition}), qr/^HINT:  Conditions are calls, as is-vip\(2\); /m, 'nor is anything compared');
};

subtest 'what the pages show' => sub {
	my @pages = qw(strategies preview explain ceilings brakes undo lint views);
	my %shown;

	$node->safe_psql('postgres', 'CREATE DATABASE pages');
	$node->safe_psql('postgres', 'ALTER DATABASE pages SET quota_manager.default_strategy_state = draft');
	$node->safe_psql('pages', 'CREATE EXTENSION quota_manager');
	$node->safe_psql('pages', <<"SQL");
SET search_path = quota_manager; SET quota_manager.lint_on_write = off;
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('main', 'zgsm', '$url', true), ('g', 'zgsm', '$url', false), ('claude', 'zgsm', '$url', false);
INSERT INTO quota_model VALUES ('gpt-4', 'main'), ('o3', 'main'), ('m', 'g');
INSERT INTO user_info (id, vip, github_star) SELECT 'u' || n, n % 4, 'zgsm' FROM generate_series(1, 40) n;
INSERT INTO user_info (id, org) VALUES ('bob', 'home');
INSERT INTO quota_strategy (name, type, periodic_expr, amount, model, condition, state) VALUES
	('vip-once', 'single', NULL, 20, 'gpt-4', 'is-vip(2)', 'active'), ('welcome', 'single', NULL, 50, 'gpt-4', 'is-vip(0)', 'active'),
	('loyal', 'single', NULL, 5, 'gpt-4', 'and(is-vip(2), or(github-star("zgsm"), belong-to("lab")), quota-le("gpt-4", 10))', 'active'),
	('daily', 'periodic', '0 8 * * *', 5, 'm', 'is-vip(1)', 'active'), ('campaign', 'single', NULL, 5, 'm', 'false()', 'active'), ('stars', 'single', NULL, 5, 'm', 'false()', 'active');
CREATE SCHEMA site;
CREATE TABLE site.victim AS SELECT 'u' || n AS user_id, 5 AS lost FROM generate_series(1, 9) n;
SELECT scan();
SQL
	foreach my $page (@pages)
	{
		my $text = slurp_file("$FindBin::RealBin/../../docs/$page.md");

		while ($text =~ /^```sql\n(?<block>.*?)^```\n(?<rest>.*?)(?=^```sql|\z)/gms)
		{
			my ($block, $rest) = ($+{block}, $+{rest} =~ s/^## .*//msr);
			my @headers = map { s/\s+/ /gr } "$block\n$rest" =~ /^ *(\S[^\n]*)\n[ -]*-[-+]*-\n/gm;
			my $typed = join "\n\n", grep { !/\A[^\n]*\n[ -]*-[-+]*-$/m } split /\n\n+/, $block;
			my ($first) = grep { !/^--/ } split /\n/, $typed;
			my ($code, $out, $err) = $node->psql('pages', "SET search_path = quota_manager;\n$typed", on_error_stop => 0, extra_params => [ '-P', 'format=aligned', '-P', 'tuples_only=off' ]);
			my $printed = join "\n", '', map { s/^\s+|\s+$//gr =~ s/\s+/ /gr } split /\n/, $out;

			is(join("\n", grep { !/^psql:.*ERROR:/ || index($text, s/^psql:<stdin>:\d+: //r) < 0 } grep { /ERROR:/ } split /\n/, $err), '', "$page: $first");
			foreach my $header (@headers)
			{
				like($printed, qr/\n\Q$header\E\n/, "$page: has columns $header") or diag("$typed\n$printed");
			}
			foreach my $line ("$block\n$rest" =~ /^ *((?:ERROR|WARNING|NOTICE):  .*?) *$/gm)
			{
				ok(index($err, $line) >= 0, "$page: $line") or diag("$typed\n$err");
			}
		}
	}
};

done_testing();
