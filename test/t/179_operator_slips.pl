# Who asks about conditions that others have written; an undo of a reversal whose grants are not all to be seen; triggers
# of ours on tables of others; and the slips of operators: each error says what was wrong.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node add_gateway);
use Test::More;

my $node = scan_node('operator_slips');

sub sql { return $node->safe_psql('postgres', join(";\n", @_)); }

# The answer of a session as a role, or its error with its SQLSTATE.
sub as
{
	my ($role, $statements) = @_;
	my ($code, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSET SESSION AUTHORIZATION $role; SET search_path = quota_manager; $statements");

	return $code == 0 ? $out : $err =~ /ERROR:\s+(.*)/ ? "ERROR: $1" : $err;
}

add_gateway($node, 'postgres');
sql(<<'SQL');
CREATE ROLE viewer; CREATE ROLE operator; CREATE ROLE heir; CREATE ROLE mallory;
SELECT quota_manager.grant_access('viewer', 'viewer'), quota_manager.grant_access('operator', 'operator'), quota_manager.grant_access('heir', 'viewer');
GRANT postgres TO heir;
INSERT INTO quota_manager.user_info (id, vip) SELECT 'user' || n, n % 4 FROM generate_series(1, 20) n;
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('vip', 'single', 5, 'm', 'is-vip(2)');
SQL

subtest 'conditions that others have written' => sub {
	sql(<<'SQL');
GRANT USAGE ON SCHEMA quota_manager TO mallory; GRANT USAGE, CREATE ON SCHEMA quota_condition TO mallory;
SET ROLE mallory;
CREATE FUNCTION quota_condition.own_check(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS
$$ BEGIN RAISE NOTICE 'runs as %', current_user; RETURN true; END $$;
GRANT EXECUTE ON FUNCTION quota_condition.own_check TO PUBLIC;
RESET ROLE;
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('theirs', 'single', 5, 'm', 'is-vip(2)');
UPDATE quota_manager.quota_strategy SET condition = 'or(is-vip(3), own-check())' WHERE name = 'theirs';
SQL
	foreach my $call (q{SELECT count(*) FROM explain_match('user1', 'theirs')}, q{SELECT count(*) FROM explain_match_text('user1', condition => 'own-check()')},
		q{SELECT count(*) FROM funnel('theirs')}, q{SELECT count(*) FROM diff('theirs')}, q{SELECT gained FROM diff_counts('theirs')},
		q{SELECT what FROM why('user1', 'theirs') WHERE what ~ 'condition now'})
	{
		my $reason = qr/code that others have written is not run as role "(\w+)", which/;
		# A story is told, but for that.
		my $refused = $call =~ /why/ ? qr/^whether the user meets the condition now is not known: $reason/ : qr/ERROR: 42501: $reason/;

		like(as('postgres', $call), $refused, "a superuser runs none: $call");
		like(as('heir', $call), $refused, 'nor who can become one');
		like(as('viewer', $call), qr/^(?:\d+|the user meets the condition now.*)$/, 'others run it as themselves');
		my ($code, $out, $err) = $node->psql('postgres', "SET ROLE viewer; SET search_path = quota_manager; $call");
		is($code, 0, 'and so does a superuser who has become one of them') or diag($err);
		unlike($err, qr/runs as postgres/, 'as that role');
	}
	like(as('postgres', q{SELECT * FROM quota_api.explain('theirs', 'user1')}), qr/^ERROR: 42501: code that others have written is not run as role/, 'the API says so as well');
	like(as('postgres', q{SELECT count(*) FROM explain_match('user1', condition => 'and(is-vip(1), quota-le("m", 3), not(true()), belong-to("x"), github-star("y"))')}), qr/^\d+$/,
		'what is built in is explained to a superuser');
	is(as('postgres', q{SELECT holds FROM funnel(condition => 'is-vip(2)')}), 10, 'and counted');
	sql(q{DELETE FROM quota_manager.quota_strategy WHERE name = 'theirs'});
};

subtest 'an undo is of what the role may see' => sub {
	sql(q{SELECT quota_manager.scan('vip')});
	is(as('postgres', q{SELECT outcome, grants FROM reverse_run((SELECT max(id) FROM quota_run), 'by mistake')}), 'cancelled|10', 'all grants are taken back');
	sql('ALTER TABLE quota_manager.quota_execute ENABLE ROW LEVEL SECURITY', q{CREATE POLICY site ON quota_manager.quota_execute TO operator USING (user_id <> 'user2')});
	like(as('operator', q{SELECT * FROM undo_reversal((SELECT max(id) FROM quota_reversal), 'back')}), qr/^ERROR: 42501: reversal \d+ is also of grants that role "operator" may not see/, 'a hidden grant is not decided about');
	is(sql(q{SELECT DISTINCT status FROM quota_manager.quota_execute}), 'cancelled', 'nothing has happened');
	sql('DROP POLICY site ON quota_manager.quota_execute', 'ALTER TABLE quota_manager.quota_execute DISABLE ROW LEVEL SECURITY');
	is(as('operator', q{SELECT outcome, grants FROM undo_reversal((SELECT max(id) FROM quota_reversal), 'back')}), 'pending again|10', 'who sees them all undoes it');
};

subtest 'triggers of ours on tables of others' => sub {
	sql('CREATE TABLE other (id integer, name text, state text)', q{INSERT INTO other VALUES (1, 'gateway', 'active')});
	foreach my $function (qw(record_pause forget_paused_gateway forget_ceilings))
	{
		sql("CREATE TRIGGER ours AFTER DELETE ON other FOR EACH ROW EXECUTE FUNCTION quota_internal.$function()");
		like(as('postgres', 'DELETE FROM public.other'), qr/^ERROR: 42809: this trigger is for quota_manager\.\w+ only/, "$function() refuses");
		sql('DROP TRIGGER ours ON other');
	}
};

subtest 'slips' => sub {
	my @slips = (
		[ q{SELECT * FROM preview_reversal(run_id => 999999)}, '42704: run 999999 does not exist' ],
		[ q{SELECT * FROM preview_reversal(reversal_id => 999999)}, '42704: reversal 999999 does not exist' ],
		[ q{SELECT * FROM preview_reversal(run_id => 1, version => 2)}, '22023: a firing or a version is of a strategy' ],
		[ q{SELECT * FROM strategy_history(NULL)}, '22004: the strategy must be given' ],
		[ q{SELECT * FROM diff(NULL)}, '22004: the strategy must be given' ],
		[ q{SELECT * FROM why('user1', NULL)}, '22004: the strategy must be given' ],
		[ q{CALL retain('178000000 years')}, '22023: runs and grants are kept for at most 1000 years, not for 178000000 years' ],
		[ q{SELECT * FROM retain_preview('178000000 years')}, '22023: runs and grants are kept for at most 1000 years, not for 178000000 years' ]);

	is(as('postgres', $_->[0]), "ERROR: $_->[1]", $_->[0]) foreach @slips;
};

done_testing();
