# From an older major of PostgreSQL to this one, by pg_dump and by pg_upgrade: everything is kept, nothing is granted or
# sent before resume('unchanged_since_dump'), then it goes on where it stopped, and nobody is paid twice.
#
# Needs an older major that has the extension installed: in QUOTA_MANAGER_OLDER, a folder with bin/pg_config in it, or
# where Debian puts it.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(add_gateway deliver statuses);
use QuotaTest::Mock;
use QuotaTest::ScanNode qw(contents sequences);
use Test::More;

# The major version of the servers in a folder, if quota_manager is installed there; 0 if not.
sub major_with_extension
{
	my ($folder) = @_;
	my $config = "$folder/bin/pg_config";
	my ($major) = -x $config ? qx{'$config' --version} =~ /^PostgreSQL (\d+)/ : (0);

	return 0 if !$major || !-x "$folder/bin/initdb";
	chomp(my $share = qx{'$config' --sharedir});
	return -e "$share/extension/quota_manager.control" ? $major : 0;
}

chomp(my $here = qx{pg_config --version});
my ($major) = $here =~ /(\d+)/;
my %older = map { $_ => major_with_extension($_) } $ENV{QUOTA_MANAGER_OLDER} // glob('/usr/lib/postgresql/*');
my ($folder) = sort { $older{$a} <=> $older{$b} } grep { $older{$_} && $older{$_} < $major } keys %older;
plan skip_all => "no PostgreSQL before $major that has quota_manager installed is here" if !$folder;
note "from PostgreSQL $older{$folder} to $major";

my $mock = QuotaTest::Mock->start(dialect => 'higress');
my @same = ('--encoding=UTF8', '--locale=C', '--no-sync');
my %amount = (once => 5, hourly => 1);

# The old server, with grants of which some are delivered and others wait.
my $old = PostgreSQL::Test::Cluster->new('old', install_path => $folder);
{
	# what it says of a build is said to servers of this major
	local $ENV{TEMP_CONFIG} = undef;
	$old->init(extra => \@same);
}
$old->append_conf('postgresql.conf', "timezone = 'UTC'\nquota_manager.default_strategy_state = active");
$old->start;
$old->safe_psql('postgres', 'CREATE EXTENSION quota_manager');
add_gateway($old, 'gateway', $mock, is_default => 'true');
$old->safe_psql('postgres', <<"SQL");
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 07:30:00+00';
INSERT INTO user_info (id, name) SELECT 'u' || n, '张三' FROM generate_series(1, 20) n;
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('once', 'single', $amount{once}, 'm', 'true()');
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('hourly', 'periodic', $amount{hourly}, 'm', '0 * * * *', 'true()');
SQL
scan_at($old, '08:00');
is(deliver($old), '40|0|0|0', 'the old server has delivered');
$old->safe_psql('postgres', q{INSERT INTO quota_manager.user_info (id) SELECT 'late' || n FROM generate_series(1, 5) n});
scan_at($old, '09:00');
is(statuses($old, 'gateway'), 'completed 40, pending 30', 'and leaves the rest to its successor');

my $rows = contents($old, 'postgres');
my $numbers = sequences($old, 'postgres');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
my $restored = new_server('restored');
$restored->start;
command_ok([ 'pg_dump', '--file', $dump, $old->connstr('postgres') ], 'pg_dump of the new major reads the old server');
command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $restored->connstr('postgres') ], 'and the new server takes it');
kept($restored, 'dump');
$restored->stop;

$old->stop;
SKIP:
{
	chomp(my $libraries = qx{pg_config --pkglibdir});
	skip 'pg_upgrade wants the library where PostgreSQL has its own', 1 if !-e "$libraries/quota_manager.so";

	my $new = new_server('new');
	my $sockets = $new->host;
	chdir PostgreSQL::Test::Utils::tempdir();
	command_ok(
		[
			'pg_upgrade', '--no-sync', '--old-datadir', $old->data_dir, '--new-datadir', $new->data_dir,
			'--old-bindir', "$folder/bin", '--new-bindir', bin_folder(), '--socketdir', $sockets,
			'--old-port', $old->port, '--new-port', $new->port
		],
		'pg_upgrade');
	$new->start;
	kept($new, 'pg_upgrade');

	$new->safe_psql('postgres', q{SELECT quota_manager.resume('unchanged_since_dump')});
	is(deliver($new), '30|0|0|0', 'the new server delivers what was left');
	$new->safe_psql('postgres', q{INSERT INTO quota_manager.user_info (id) VALUES ('newest')});
	scan_at($new, '10:00');
	deliver($new);
	my %paid;
	$paid{ $_->{user} } += $_->{amount} foreach $mock->applied;
	my %times;
	$times{$_}++ foreach values %paid;
	is_deeply(
		\%times,
		{ map { $amount{once} + $_->[0] * $amount{hourly} => $_->[1] } [ 3, 20 ], [ 2, 5 ], [ 1, 1 ] },
		'everybody is paid for each firing, and nobody twice');
	is(statuses($new, 'gateway'), 'completed ' . $mock->applied, 'what is completed was applied');
	is($new->safe_psql('postgres', q{SELECT extversion FROM pg_extension WHERE extname = 'quota_manager'}),
		$new->safe_psql('postgres', q{SELECT default_version FROM pg_available_extensions WHERE name = 'quota_manager'}),
		'it is the version that is installed');
	$new->stop;
}

done_testing();

# A server of this major that takes over from the old one: made alike, not started.
sub new_server
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	# From 18 on there are checksums unless one says no.
	$node->init(extra => [ @same, $major >= 18 ? '--no-data-checksums' : () ]);
	$node->append_conf('postgresql.conf', "timezone = 'UTC'");
	return $node;
}

sub bin_folder
{
	chomp(my $bin = qx{pg_config --bindir});
	return $bin;
}

# Runs what is due at an hour.
sub scan_at
{
	my ($node, $hour) = @_;

	$node->safe_psql('postgres', "SET quota_manager.schedule_clock = '2025-07-01 $hour:00+00'; SELECT count(*) FROM quota_manager.scan()");
	return;
}

# Everything is as it was, and stands still.
sub kept
{
	my ($node, $how) = @_;

	my (undef, undef, $error) = $node->psql('postgres', 'SELECT * FROM quota_manager.scan()');
	like($error, qr/ERROR:  this database is a copy/, "$how: no scan");
	(undef, undef, $error) = $node->psql('postgres', 'CALL quota_manager.deliver()');
	like($error, qr/ERROR:  this database is a copy/, "$how: no delivery");
	my $after = contents($node, 'postgres');
	is_deeply([ sort keys %$after ], [ sort keys %$rows ], "$how: the same tables");
	is($after->{$_}, $rows->{$_}, "$how: the rows of $_") foreach sort keys %$rows;
	is(sequences($node, 'postgres'), $numbers, "$how: the sequences");
	return;
}
