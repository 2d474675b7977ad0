# Twenty thousand strategies: what is done to all of them in one transaction does not run out of the server's table of locks.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('many');
my $count = 20_000;

$node->init(extra => [ '-E', 'UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', "max_connections = 10\nautovacuum = off\nstatement_timeout = '120s'\nquota_manager.default_strategy_state = active");
$node->start;
$node->safe_psql('postgres', qq{
	CREATE EXTENSION quota_manager;
	INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('gateway', 'higress', 'http://127.0.0.1:9', true);
	INSERT INTO quota_manager.user_info (id) VALUES ('ada');
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition)
		SELECT 's' || n, 'periodic', 1, 'm', '0 0 1 1 *', 'true()' FROM generate_series(1, $count - 1000) n;
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)
		SELECT 'single' || n, 'single', 1, 'm', 'true()' FROM generate_series(1, 1000) n});

# Succeeds, and holds few locks of ours afterwards.
sub does
{
	my ($name, $statement) = @_;
	my ($status, $out, $err) = $node->psql('postgres', qq{
		BEGIN;
		$statement;
		SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
		COMMIT}, on_error_stop => 1);

	is($status, 0, "$name: done") or diag $err;
	cmp_ok((split /\n/, $out)[-1], '<=', 260, "$name: with few locks");
	return $out;
}

my $session = $node->background_psql('postgres');
my $edited = q{UPDATE quota_manager.quota_strategy SET title = 'x' WHERE id =};

does('an update of all', q{UPDATE quota_manager.quota_strategy SET title = 'all'});
# Two at a time.
$session->query_safe('BEGIN');
$session->query_safe(q{UPDATE quota_manager.quota_strategy SET title = 'odd' WHERE id % 2 = 1});
does('an update of half of them beside one of the others', q{SET statement_timeout = '60s'; UPDATE quota_manager.quota_strategy SET title = 'even' WHERE id % 2 = 0});
# Who edits so many keeps out all scans.
my (undef, undef, $err) = $node->psql('postgres', q{SET lock_timeout = '100ms'; SELECT quota_manager.scan('single1')});
like($err, qr/canceling statement due to lock timeout/, 'a scan waits for an edit of very many');
$session->query_safe('COMMIT');
# Who scans all locks all in the end, and edits wait.
does('a scan of all', q{SELECT count(*) FROM quota_manager.scan()});
is($node->safe_psql('postgres', 'SELECT count(*) FROM quota_manager.quota_execute'), 1000, 'a scan of all: everything was granted');
$session->query_safe('BEGIN');
$session->query_safe('SELECT count(*) FROM quota_manager.scan()');
(undef, undef, $err) = $node->psql('postgres', "SET lock_timeout = '100ms'; $edited 19999");
like($err, qr/NOTICE:  waiting for a scan of strategy "single999" to end.*ERROR:  canceling statement due to lock timeout/s, 'an edit of any waits for a scan of all');
$session->query_safe('COMMIT');
$node->safe_psql('postgres', "$edited 19999");

subtest 'a copy is resumed' => sub {
	$node->safe_psql('postgres', 'UPDATE quota_manager.quota_installation SET system_identifier = 1');
	does('resume()', q{SELECT quota_manager.resume('may_have_run')});
	does('an import', q{SELECT count(*) FROM quota_manager.import_grants($$SELECT 'single' || n, 'eve', now() FROM generate_series(1, 1000) n$$)});
	does('a deletion of all that can be', q{DELETE FROM quota_manager.quota_strategy WHERE type = 'periodic'});
	is($node->safe_psql('postgres', 'SELECT count(*) FROM quota_manager.quota_strategy'), 1000, 'they are gone');
};

$session->quit;
$node->stop;
done_testing();
