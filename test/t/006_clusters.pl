# What the tests' library does in a cheaper way is what PostgreSQL's programs do: a statement without psql, a cluster
# without initdb.  And what it reads of a gateway as lines is what the gateway says in JSON.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Mock;
use QuotaTest::Template;
use QuotaTest::Wire;
use Test::More;

my @nodes = map { PostgreSQL::Test::Cluster->new($_) } 'one', 'other';

$_->init(extra => [ '-E', 'UTF8', '--locale=C' ]) foreach @nodes;
my $node = $nodes[0];
$node->start;

# What a text prints, its errors and its exit code.
sub by_wire { return QuotaTest::Wire::ask($node, 'postgres', $_[0]) }

sub by_psql
{
	my ($code, $out, $error) = $node->psql('postgres', $_[0]);

	# where in the statement an error is, only psql says
	return ($out, $error =~ s/^(?:LINE \d+: .*\n *\^\n?)//gmr =~ s/\n\z//r, $code);
}

subtest 'the same as psql prints' => sub {
	foreach my $text (
		'SELECT 1', ' SELECT 1;; SELECT 2 ; ', "SELECT 1, NULL, '', true;\nSELECT 'a|b', E'c'", 'SELECT', 'SELECT FROM generate_series(1, 3)', 'VALUES (1), (2)', q{SELECT 'a;b', "?column?" FROM (SELECT 1) x; SELECT ';'},
		q{SELECT $$a;'b$$, $x$c$$;d$x$; SELECT 3}, "SELECT 1 -- one; two '\n; SELECT /* three; \" */ 2", "-- SELECT 1;\nSELECT 2", q{SELECT 'it''s', 'back\slash'},
		q{SELECT (ARRAY[1, 2, 3])[1:2], 'x'::text, 1::int}, 'PREPARE p AS SELECT $1::int; EXECUTE p(7)', 'SHOW application_name', 'SELECT current_user, current_database()', "SELECT 'größer', length('größer')",
		'CREATE TABLE t (i int); INSERT INTO t VALUES (1) RETURNING i; TABLE t; DROP TABLE t', 'BEGIN; SELECT 1; ROLLBACK; SHOW transaction_isolation', "DO \$do\$ BEGIN RAISE NOTICE 'told; twice'; RAISE WARNING 'warned' USING HINT = 'go', DETAIL = 'on'; END \$do\$; SELECT 2",
		'CREATE RULE r AS ON INSERT TO pg_temp.x DO ALSO (SELECT 1; SELECT 2)', 'EXPLAIN (COSTS OFF) SELECT 1', "SELECT repeat('x', 100000)", "SELECT E'two\\nlines'",
		"SELECT 1;\nSELECT\n1/0; SELECT 2", 'SELECT 1; SELECT nothing', "\n\nSELECT 1 +", "DO \$\$ BEGIN RAISE 'no' USING HINT = 'h', DETAIL = 'd'; END \$\$", 'SET nothing.at_all = 1; SHOW nothing.at_all', q{SELECT 1; DO $$ BEGIN RAISE NOTICE 'x'; PERFORM 1/0; END $$},
		'CREATE PROCEDURE pg_temp.both() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$; CALL pg_temp.both(); SELECT 1')
	{
		my @wire = by_wire($text);

		ok(@wire, "it is not left to psql: $text");
		is_deeply(\@wire, [ by_psql($text) ], 'and what it says is the same') or diag explain \@wire;
	}
};

subtest 'with settings of the environment' => sub {
	local @ENV{qw(PGOPTIONS PGTZ PGAPPNAME PGCLIENTENCODING)} = ('-c work_mem=7MB -c geqo_seed=0.5', 'Asia/Tokyo', 'named', 'LATIN1');
	my $text = q{SHOW work_mem; SHOW geqo_seed; SHOW timezone; SHOW application_name; SHOW client_encoding; SELECT chr(228)};

	is_deeply([ by_wire($text) ], [ by_psql($text) ], 'they hold');
	local $ENV{PGSSLMODE} = 'disable';
	is_deeply([ by_wire($text) ], [], 'what only libpq knows is left to it');
};

subtest 'what is left to psql' => sub {
	foreach my $text ('\echo 1', "SELECT 1 \\g\n", q{SELECT E'it\'s;'}, 'COPY (SELECT 1) TO STDOUT', 'LISTEN x', q{SELECT :'USER'}, 'SELECT :"USER"', 'SELECT :DBNAME',
		'CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END', q{SELECT 'open}, 'SELECT "open', '/* /* ; */ ; */ SELECT 1', '', ' -- nothing')
	{
		is_deeply([ by_wire($text) ], [], $text);
	}
	is_deeply([ QuotaTest::Wire::ask($node, 'no such database', 'SELECT 1') ], [], 'a session that is not to be had');
	is($node->safe_psql('postgres', "\\echo 1\nSELECT 2"), "1\n2", 'and safe_psql() asks it');
};

subtest 'safe_psql()' => sub {
	is($node->safe_psql('postgres', 'SELECT 1; SELECT 2'), "1\n2", 'returns what is printed');
	ok(!eval { $node->safe_psql('postgres', 'SELECT 1; SELECT nothing'); 1 }, 'dies of an error');
	like($@, qr/^error running SQL: 'psql:<stdin>:1: ERROR:  column "nothing" does not exist.*while running/s, 'and says which');
	ok(!eval { $node->safe_psql('postgres', 'SELECT pg_terminate_backend(pg_backend_pid()); SELECT 1'); 1 }, 'dies with the session');
	like($@, qr/terminating connection due to administrator command/, 'and says why');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'}), 1, 'a session is gone when its call returns');
};

subtest 'two clusters' => sub {
	my @identifiers = map { /^Database system identifier: +(\d+)$/m } map { (run_command([ 'pg_controldata', $_->data_dir ]))[0] } @nodes;

	is(@identifiers, 2, 'have identifiers');
	isnt($identifiers[0], $identifiers[1], 'which differ');
	$nodes[1]->start;
	is($nodes[1]->safe_psql('postgres', 'SELECT system_identifier FROM pg_control_system()'), $identifiers[1], 'and that of its control file is the cluster\'s');
	$nodes[1]->restart;
	my $plain = PostgreSQL::Test::Utils::tempdir() . '/plain';
	command_ok([ 'initdb', '-N', '-A', 'trust', '-E', 'UTF8', '--locale=C', '-D', $plain ], 'initdb makes another');
	foreach my $file (qw(postgresql.conf pg_hba.conf PG_VERSION))
	{
		(my $given = slurp_file($nodes[1]->data_dir . "/$file")) =~ s/\n# Added by PostgreSQL::Test::Cluster.*//s;
		is($given, slurp_file("$plain/$file"), "and they have the same $file");
	}
	$nodes[1]->stop;
};

subtest 'what a gateway has applied' => sub {
	my $mock = QuotaTest::Mock->start(dialect => 'zgsm', key => 'k');
	my $http = HTTP::Tiny->new;

	foreach my $user ('ada', "gr\xc3\xb6\xc3\x9fe", 'back\slash\N', "tab\tand\nline", '\N')
	{
		foreach my $key ({}, { 'Idempotency-Key' => 'k ' . length $user })
		{
			my $reply = $http->post_form($mock->url . '/v1/chat/completions/quota/delta', { user_id => $user, value => 5 }, { headers => { 'x-admin-key' => 'k', %$key } });

			is($reply->{status}, 200, 'it takes a change');
		}
	}
	is_deeply([ $mock->applied ], decode_json($http->get($mock->url . '/mock/applied')->{content}), 'is read as it is');
	is(scalar(() = $mock->applied(from => 4)), 7, 'from any change on');
};

$node->stop;
done_testing();
