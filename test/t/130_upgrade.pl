
# ALTER EXTENSION UPDATE from 1.0.0: the catalogues are those of a fresh install.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Catalogue qw(catalogue differences);
use QuotaTest::ScanNode qw(scan_node);
use Test::More;

my $node = scan_node('upgrade');
my $version = $node->safe_psql('postgres', q{SELECT extversion FROM pg_extension WHERE extname = 'quota_manager'});
my $fresh = catalogue($node, 'postgres');

cmp_ok(scalar keys %$fresh, '>', 500, 'the catalogues tell of ' . keys(%$fresh) . ' objects');

$node->safe_psql('postgres', 'CREATE DATABASE plain');
$node->safe_psql('plain', q{CREATE EXTENSION quota_manager VERSION '1.0.0'});
$node->safe_psql('plain', 'ALTER EXTENSION quota_manager UPDATE');
is($node->safe_psql('plain', q{SELECT extversion FROM pg_extension WHERE extname = 'quota_manager'}), $version, "updated to $version");
same_catalogue('plain', catalogue($node, 'plain'), 'an updated database has the catalogue of a fresh one');

# The comparison can fail, and says what differs.
foreach my $change (
	[ 'ALTER EXTENSION quota_manager DROP VIEW quota_manager.known_balance', qr/^view quota_manager.known_balance: missing after the update$/m ],
	[ 'ALTER EXTENSION quota_manager ADD FUNCTION public.stray()', qr/^function public.stray\(\): there after the update only$/m ],
	[ 'COMMENT ON TABLE quota_manager.user_info IS $$other$$', qr/^table quota_manager.user_info, comment\n  after the update: other\n  in a fresh one:   \w/m ],
	[ 'COMMENT ON COLUMN quota_manager.user_info.vip IS NULL', qr/^table quota_manager.user_info, comment vip\n  after the update: \(none\)\n/m ],
	[ 'ALTER TABLE quota_manager.user_info ALTER vip SET DEFAULT 7', qr/^default value for quota_manager.user_info.vip: there after the update only$/m ],
	[ 'ALTER TABLE quota_manager.quota_gateway ALTER max_connections SET DEFAULT 7', qr/^default value for quota_manager.quota_gateway.max_connections, definition\n  after the update: 7\n/m ],
	[ 'ALTER TABLE quota_manager.user_info ADD stray int', qr/^column stray of table quota_manager.user_info: there after the update only$/m ],
	[ 'ALTER TABLE quota_manager.user_info SET (fillfactor = 99)', qr/^table quota_manager.user_info, reloptions\n/m ],
	[ 'ALTER TABLE quota_manager.quota_model DISABLE TRIGGER wake_workers', qr/^trigger wake_workers on quota_manager.quota_model, tgenabled\n  after the update: D\n/m ],
	[ 'DROP TRIGGER wake_workers ON quota_manager.quota_run', qr/^trigger wake_workers on quota_manager.quota_run: missing/m ],
	[ 'ALTER FUNCTION quota_manager.scan(text) COST 7', qr/^function quota_manager.scan\(.*\), procost\n  after the update: 7\n/m ],
	[ 'ALTER FUNCTION quota_manager.scan(text) SET work_mem = 64', qr/^function quota_manager.scan\(.*\), definition\n/m ],
	[ 'GRANT SELECT (vip) ON quota_manager.user_info TO PUBLIC', qr/^column vip of table quota_manager.user_info, rights\n  after the update: PUBLIC: SELECT /m ],
	[ 'GRANT EXECUTE ON FUNCTION quota_manager.scan(text) TO PUBLIC', qr/^function quota_manager.scan\(.*\), rights\n/m ],
	[ 'DROP INDEX quota_manager.user_info_github_star', qr/^index quota_manager.user_info_github_star: missing/m ],
	[ 'CREATE POLICY stray ON quota_manager.user_info USING (vip > 0)', qr/^policy stray on quota_manager.user_info: there after/m ],
	[ 'ALTER SEQUENCE quota_manager.quota_run_id_seq CACHE 7', qr/^sequence quota_manager.quota_run_id_seq, seqcache\n/m ],
	[ 'ALTER TABLE quota_manager.quota_model OWNER TO stranger', qr/^table quota_manager.quota_model, relowner\n/m ],
	[ 'ALTER DEFAULT PRIVILEGES IN SCHEMA quota_manager GRANT SELECT ON TABLES TO stranger', qr/^schema quota_manager, default rights\n/m ],
	[ q{UPDATE pg_extension SET extcondition[1] = 'WHERE false' WHERE extname = 'quota_manager'}, qr/^extension quota_manager, is dumped /m ])
{
	my ($statement, $pattern) = @$change;

	like(join("\n", differences(changed($statement), $fresh)), $pattern, "the comparison sees: $statement");
}

$node->stop;
done_testing();

# What the catalogues of the updated database say after a statement, which is rolled back.
sub changed
{
	my ($statement) = @_;

	return catalogue($node, 'plain', "BEGIN; CREATE ROLE stranger; CREATE FUNCTION public.stray() RETURNS int LANGUAGE sql RETURN 1; $statement");
}

# Compares what is known of a database with a fresh one.
sub same_catalogue
{
	my ($database, $found, $name) = @_;
	my @differences = differences($found, $fresh);

	is(scalar @differences, 0, $name) or diag(join "\n", @differences);
	return;
}
