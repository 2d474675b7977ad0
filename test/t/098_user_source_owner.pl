# A user source is trusted because of who owns it: whoever makes another relation of the same name is not.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('source_owner');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';

$node->init(extra => [ '-E', 'UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', 'quota_manager.default_strategy_state = active');
$node->start;
$node->safe_psql('postgres', q{
	CREATE ROLE crm; CREATE ROLE mallory; CREATE ROLE scanner LOGIN;
	CREATE EXTENSION quota_manager;
	SELECT quota_manager.grant_access('scanner', 'worker');
	INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('gateway', 'higress', 'http://127.0.0.1:9', true);
	CREATE SCHEMA site; GRANT USAGE ON SCHEMA site TO PUBLIC; GRANT CREATE ON SCHEMA site TO crm, mallory;
	CREATE TABLE site.customer (uid text); GRANT SELECT ON site.customer TO crm, mallory;
	INSERT INTO site.customer VALUES ('')});

# Makes the view, as a role.
sub make_view
{
	my ($role, $user) = @_;

	$node->safe_psql('postgres', qq{
		DROP VIEW IF EXISTS site.people;
		SET ROLE $role;
		CREATE VIEW site.people AS SELECT c.uid || '$user' AS id, NULL::text AS github_star, 1 AS vip, NULL::text AS org,
			NULL::timestamptz AS register_time, NULL::timestamptz AS access_time FROM site.customer c;
		GRANT SELECT ON site.people TO scanner});
	return;
}

# Runs a new strategy for everybody as the role of workers; returns who was granted, and the error.
my $strategies = 0;
sub scan
{
	my ($database) = @_;
	my $name = 's' . ++$strategies;

	return $node->safe_psql($database // 'postgres', qq{
		SET client_min_messages = error;
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('$name', 'single', 1, 'm', 'true()');
		SET ROLE scanner;
		DO \$\$BEGIN PERFORM quota_manager.scan('$name'); END\$\$;
		RESET ROLE;
		SELECT (SELECT string_agg(e.user_id, ',') FROM quota_manager.quota_execute e WHERE e.strategy_id = s.id), r.reason
			FROM quota_manager.quota_strategy s LEFT JOIN quota_manager.quota_run r ON r.strategy_id = s.id WHERE s.name = '$name'});
}

my $refused = sub {
	my ($by, $before) = @_;

	return qr/^\|user source site\.people belongs to role "$by" now, not to "$before" \(It was made anew, given away, or restored as another role/;
};

make_view('crm', 'ann');
$node->safe_psql('postgres', q{SELECT quota_manager.set_user_source('site.people')});
is(scan(), 'ann|', 'users of the view are granted');

subtest q{the view goes, and comes back as another's} => sub {
	make_view('mallory', 'mallory');
	like(scan(), $refused->('mallory', 'crm'), 'a view that somebody else has made is not read');
	my (undef, undef, $err) = $node->psql('postgres', q{SELECT quota_internal.missing_source_rights('site.people', 'scanner'::regrole)});
	like($err, qr/HINT:  If it is to be read, the owner of the extension confirms it: SELECT quota_manager\.set_user_source\('site\.people'\)\./, 'the hint says how to confirm it');
	make_view('crm', 'bob');
	is(scan(), 'bob|', 'one that its owner has made again is');
	$node->safe_psql('postgres', 'ALTER VIEW site.people OWNER TO mallory');
	like(scan(), $refused->('mallory', 'crm'), 'one that was given away is not');
	$node->safe_psql('postgres', q{SELECT quota_manager.set_user_source('site.people')});
	is(scan(), 'bob|', 'until that is confirmed');
};

subtest 'a restored one is the same as long as its owner is' => sub {
	$node->safe_psql('postgres', 'ALTER VIEW site.people OWNER TO crm');
	$node->safe_psql('postgres', q{SELECT quota_manager.set_user_source('site.people')});
	is(scan(), 'bob|', 'given back and confirmed');
	$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dumped');
	foreach my $case ([ 'same', [] ], [ 'other', ['--no-owner'] ])
	{
		my ($database, $options) = @$case;

		$node->safe_psql('postgres', "CREATE DATABASE $database");
		$node->command_ok([ 'pg_restore', '--no-comments', @$options, '-d', $node->connstr($database), $dump ], "restored: $database owner");
		$node->safe_psql($database, q{SELECT quota_manager.grant_access('scanner', 'worker'); SELECT quota_manager.resume('unchanged_since_dump')});
	}
	is(scan('same'), 'bob|', 'a restored view is read where its owner is the same');
	$node->safe_psql('other', 'ALTER VIEW site.people OWNER TO mallory');
	like(scan('other'), $refused->('mallory', 'crm'), 'and not where it is another');
	$node->safe_psql('other', q{SELECT quota_manager.set_user_source('site.people')});
	is(scan('other'), 'bob|', 'until that is confirmed');
};

subtest 'user_info needs no owner' => sub {
	$node->safe_psql('postgres', q{SELECT quota_manager.set_user_source()});
	is($node->safe_psql('postgres', 'SELECT user_source IS NULL AND user_source_owner IS NULL FROM quota_manager.quota_installation'), 't', 'nothing is kept of a user source that is given up');
	is(scan(), '|', 'users are those of user_info');
};

$node->stop;
done_testing();
