# Drafts and versions of strategies: that they outlive a dump and an update from 1.0.0, that an update pays nobody, and that
# versions and their differences are what they are by an oracle, for random edits.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node);
use QuotaTest::Seed;
use Test::More;

my $seed = QuotaTest::Seed::start(160);
my $node = scan_node('strategy_states', "quota_manager.default_strategy_state = draft\n");


sub sql { my ($database, @statements) = @_; return $node->safe_psql($database, join "; ", 'SET search_path = quota_manager', @statements) }
sub pick { return $_[ rand @_ ] }

sub database
{
	my ($name, $version) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION quota_manager' . ($version ? " VERSION '$version'" : ''));
	sql($name, q{INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('g', 'zgsm', 'http://gateway.invalid', true)},
		q{INSERT INTO user_info (id, vip) SELECT 'u' || n, n FROM generate_series(1, 9) n}) if $version || $name ne 'copy';
	return;
}

# What a dump brings into a new database, and what psql says meanwhile.
sub restored
{
	my ($from, $to) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir . '/dump.sql';
	my ($out, $err);

	$node->command_ok([ 'pg_dump', '-d', $node->connstr($from), '-f', $file ], "$from is dumped");
	$node->safe_psql('postgres', "CREATE DATABASE $to");
	(undef, $out, $err) = $node->psql($to, "\\i $file");
	return $err;
}

my $strategies = q{SELECT name, state, enabled, archived, version, edit_note FROM quota_strategy ORDER BY name};
my $versions = q{SELECT strategy_id, version, change_time, role, note, definition FROM quota_strategy_version ORDER BY 1, 2};

subtest 'a new strategy grants nothing until it is active' => sub {
	database('fresh');
	my ($code, $out, $err) = $node->psql('fresh', q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('slip', 'single', 500, 'm', 'true()')});

	like($err, qr/^psql:.*NOTICE:  strategy "slip" is a draft: it grants nothing yet\nHINT:  See who would get it with SELECT \* FROM quota_manager.preview\('slip'\);/, 'which is said');
	is(sql('fresh', q{SELECT count(*) FROM scan()}), 0, 'a scan does not run it');
	is(sql('fresh', q{CALL tick(NULL, NULL)}), '0|0', 'nor does tick()');
	sql('fresh', q{UPDATE quota_strategy SET state = 'active', edit_note = 'reviewed'});
	is(sql('fresh', q{SELECT granted FROM scan()}), 9, 'once it is active it grants');
	sql('fresh', q{INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('draft', 'single', 5, 'm', 'true()')},
		q{INSERT INTO quota_strategy (name, type, amount, model, condition, state) VALUES ('paused', 'single', 5, 'm', 'true()', 'paused')},
		q{INSERT INTO quota_strategy (name, type, amount, model, condition, archived) VALUES ('archived', 'single', 5, 'm', 'true()', true)});
};

subtest 'a dump has states and versions' => sub {
	my $err = restored('fresh', 'copy');

	unlike($err, qr/ERROR|draft/, 'it is restored without a word') or diag $err;
	is(sql('copy', $strategies), sql('fresh', $strategies), 'states are as they were');
	is(sql('copy', $versions), sql('fresh', $versions), 'and so are versions');
	sql('copy', q{UPDATE quota_strategy SET amount = 6 WHERE name = 'draft'});
	is(sql('copy', q{SELECT version, changes FROM strategy_history('draft')}), "1|draft: 5 of m for true()\n2|amount: 5 -> 6", 'edits go on from there');
};

subtest 'an update from 1.0.0' => sub {
	database('old', '1.0.0');
	sql('old', q{INSERT INTO quota_strategy (name, type, amount, model, condition, enabled, archived) VALUES ('off', 'single', 5, 'm', 'true()', false, false),
		('gone', 'single', 5, 'm', 'true()', true, true), ('on', 'single', 5, 'm', 'is-vip(5)', true, false)}, q{UPDATE quota_strategy SET amount = 7 WHERE name = 'on'});
	my $err = restored('old', 'old_copy');

	sql('old', q{SELECT FROM scan()});
	my $before = sql('old', q{SELECT name, version, update_time, schedule_since FROM quota_strategy ORDER BY name});
	my $grants = sql('old', q{SELECT count(*) FROM quota_execute});

	sql('old', 'ALTER EXTENSION quota_manager UPDATE');
	is(sql('old', $strategies), "gone|archived|t|t|1|\noff|paused|f|f|1|\non|active|t|f|2|", 'states follow what was enabled and archived');
	is(sql('old', q{SELECT name, version, update_time, schedule_since FROM quota_strategy ORDER BY name}), $before, 'and it is no edit');
	is(sql('old', q{SELECT changed_by, version, changes FROM strategy_history('on')}), 'not known|2|active: 7 of m for is-vip(5)', 'the version that is there is kept');
	is(sql('old', q{SELECT coalesce(sum(granted), 0) FROM scan()}, q{SELECT count(*) FROM quota_execute}), "0\n$grants", 'nobody is paid again');
	sql('old', q{UPDATE quota_strategy SET condition = 'is-vip(6)' WHERE name = 'on'});
	is(sql('old', q{SELECT * FROM diff('on')}), 'u5|lost', 'and what edits change is said');
	is(sql('old', q{INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('new', 'single', 5, 'm', 'true()') RETURNING state}), 'draft', 'new strategies are drafts');

	is($err, '', 'a dump of 1.0.0 is restored');
	is(sql('old_copy', q{SELECT name, state FROM quota_strategy ORDER BY name}), "gone|archived\noff|paused\non|active", 'with its states');
	is(sql('old_copy', q{SELECT count(*) FROM quota_strategy_version}), 0, 'and no versions');
	sql('old_copy', q{UPDATE quota_strategy SET amount = 8 WHERE name = 'on'});
	is(sql('old_copy', q{SELECT version, changes FROM strategy_history('on')}), "2|active: 7 of m for is-vip(5)\n3|amount: 7 -> 8", 'which the first edit begins');
};

# The oracle keeps each row as it was, and evaluates both conditions for all users.
subtest "random edits (QUOTA_MANAGER_SEED=$seed)" => sub {
	sql('fresh', q{CREATE TABLE public.oracle (version integer, state text, amount numeric, condition condition, note text)},
		q{INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('random', 'single', 1, 'm', 'true()')},
		q{INSERT INTO public.oracle SELECT version, state, amount, condition, NULL FROM quota_strategy WHERE name = 'random'});
	foreach (1 .. 60)
	{
		my $note = pick('NULL', map { "'$_'" } 'a', 'b');
		my %change = (amount => int(1 + rand 5), condition => pick(map { "'is-vip(" . int(rand 11) . ")'" } 1 .. 3), pick(([ state => pick(map { "'$_'" } qw(active paused archived)) ], [ enabled => pick('true', 'false') ],
			[ archived => pick('true', 'false') ]))->@*);
		my @columns = grep { rand() < 0.6 } sort keys %change;
		my $noted = rand() < 0.5;

		push @columns, 'title' if !@columns;
		$change{title} = "'t'";
		sql('fresh', 'UPDATE quota_strategy SET ' . join(', ', (map { "$_ = $change{$_}" } @columns), $noted ? "edit_note = $note" : ()) . q{ WHERE name = 'random'},
			'INSERT INTO public.oracle SELECT version, state, amount, condition, ' . ($noted ? $note : 'NULL') . q{ FROM quota_strategy WHERE name = 'random'});
	}
	is(sql('fresh', q{SELECT version, v.definition ->> 'state', (v.definition ->> 'amount')::numeric, v.definition ->> 'condition', note FROM quota_strategy_version v
			WHERE strategy_id = (SELECT id FROM quota_strategy WHERE name = 'random') ORDER BY version}),
		sql('fresh', q{SELECT version, state, amount, condition, note FROM public.oracle ORDER BY version}), 'every version is kept as it was');
	is(sql('fresh', q{SELECT count(*) FROM quota_strategy WHERE (archived, enabled AND NOT archived) <> (state = 'archived', state = 'active')}), 0, 'states and flags are in step');
	my $wrong = sql('fresh', q{
		SELECT a.version, b.version FROM public.oracle a JOIN public.oracle b ON b.version % 4 = a.version % 7,
			LATERAL (SELECT array_agg(user_id || ' ' || change ORDER BY user_id) AS said FROM diff('random', a.version, b.version)) d,
			LATERAL (SELECT array_agg(s.id || CASE WHEN s @@ b.condition THEN ' gained' ELSE ' lost' END ORDER BY s.id) AS true FROM subject s
				WHERE (s @@ a.condition) <> (s @@ b.condition)) o,
			LATERAL diff_counts('random', a.version, b.version) c
		WHERE d.said IS DISTINCT FROM o.true OR c.gained + c.lost <> coalesce(cardinality(o.true), 0)
			OR c.kept <> (SELECT count(*) FROM subject s WHERE s @@ a.condition AND s @@ b.condition)});

	is($wrong, '', 'and any two differ as the oracle says');
};

$node->stop;
done_testing();
