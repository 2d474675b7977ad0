
# A server that does not preload the library: no role but a superuser puts a
# setting out of force, by what he gives before the library is loaded.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $keys = PostgreSQL::Test::Utils::tempdir;
my %in_file = (
	allowed_hosts => 'gateway.example',
	credential_directory => $keys,
	linger => '7s',
	max_attempts => 3,
	retry_base => '5s',
	retry_max => '1min',
	claim_batch => 16,
	after_promotion => 'continue',
	scan_interval => '10min',
	poll_interval => '2s',
	workers => 'off',
	worker_role => 'nobody',
	schedule_clock => '2030-01-01 00:00:00Z');
my %other = (
	allowed_hosts => 'evil.example',
	credential_directory => '/tmp',
	linger => '0',
	max_attempts => 1,
	retry_base => '1s',
	retry_max => '2s',
	claim_batch => 1,
	after_promotion => 'hold',
	scan_interval => '1s',
	poll_interval => '1s',
	workers => 'on',
	worker_role => 'anyone',
	schedule_clock => '2040-01-01 00:00:00Z');

# What only the configuration file can say.
my %of_file = map { $_ => 1 } qw(after_promotion scan_interval poll_interval workers worker_role);

my $node = PostgreSQL::Test::Cluster->new('settings');
$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', join '', map { "quota_manager.$_ = '$in_file{$_}'\n" } sort keys %in_file);
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION quota_manager;
	CREATE ROLE anyone LOGIN;
	CREATE ROLE other LOGIN;
	SELECT quota_manager.grant_access('anyone', 'admin'), quota_manager.grant_access('other', 'admin');
	CREATE DATABASE other});
$node->safe_psql('other', 'CREATE EXTENSION quota_manager');

# Loads the library twice, as a role with options of the connection; what it
# said, and what settings and an address are then.
sub load
{
	my (%how) = @_;
	my $user = $how{user} ? " user=$how{user}" : '';
	my $question = $how{question} // q{quota_internal.setting('max_attempts'), quota_internal.check_base_url('http://evil.example')};

	local $ENV{PGOPTIONS} = $how{options} // '';
	my ($status, $out, $err) = $node->psql($how{database} // 'postgres', "SELECT $question; SELECT $question",
		extra_params => [ '-v', 'VERBOSITY=verbose' ], connstr => $node->connstr($how{database} // 'postgres') . $user, on_error_stop => 0);
	return ($out, $err);
}

# Both times it is an error that names the setting.
sub refused
{
	my ($setting, $name, %how) = @_;
	my ($out, $err) = load(%how);
	my @errors = $err =~ /ERROR:  55P02: quota_manager cannot be loaded: the value of "quota_manager\.\Q$setting\E" was refused/g;

	is($out, '', "$name: nothing is answered");
	is(scalar @errors, 2, "$name: refused, and again") or diag $err;
	like($err, qr/HINT:  Leave it to the configuration file/, "$name: with what to do");
	return;
}

my $not_allowed = 'its host is not in quota_manager.allowed_hosts';
my ($out, $err) = load(user => 'anyone');
is($out, "3|$not_allowed\n3|$not_allowed", 'as the configuration file says');

subtest 'the options of the connection' => sub {
	foreach my $setting (sort keys %other)
	{
		my $value = $other{$setting} =~ s/ /\\ /gr;

		refused($setting, "any role, $setting", user => 'anyone', options => "-c quota_manager.$setting=$value");
		next if $of_file{$setting};
		($out, $err) = load(options => "-c quota_manager.$setting=$value", question => "quota_internal.setting('$setting')");
		is($out, "$other{$setting}\n$other{$setting}", "a superuser, $setting");
		is($err, '', "a superuser, $setting: no error");
	}
	refused('after_promotion', 'a superuser, what only the file can say', options => '-c quota_manager.after_promotion=hold');
	refused('max_attempts', 'a superuser, a value that it cannot have', options => '-c quota_manager.max_attempts=0');
	refused('allowed_hosts', 'a superuser, an entry that nobody can read', options => '-c quota_manager.allowed_hosts=a:b');
	refused('allowed_hosts', 'any role, however it is written', user => 'anyone', options => '-c Quota_Manager.Allowed_Hosts=');
	refused('allowed_hosts', 'any role, several', user => 'anyone', options => '--quota_manager.allowed_hosts=x -c quota_manager.pinned_statistics=on');
	($out, $err) = load(user => 'anyone', options => '-c quota_manager.pinned_statistics=on', question => q{quota_internal.setting('pinned_statistics')});
	is($out, "on\non", 'any role, what any role may set');
};

# What is shown without the library does not decide either.
($out, $err) = load(user => 'anyone', options => '-c quota_manager.scan_interval=1', question => 'count(*) FROM quota_manager.strategy_due');
like($err, qr/cannot be loaded/, 'a view that asks for a setting');

# SET, before the library is loaded: the value of the file holds.
is( $node->safe_psql('postgres', q{SET quota_manager.allowed_hosts = ''; SET quota_manager.max_attempts = 1;
		SELECT quota_internal.setting('max_attempts'), quota_internal.check_base_url('http://evil.example') IS NULL},
		connstr => $node->connstr('postgres') . ' user=anyone'), "3|f", 'SET by any role, before the library is loaded');

subtest 'ALTER ROLE and ALTER DATABASE, by a superuser: what can be set there is; what cannot is not passed over' => sub {
	$node->safe_psql('postgres', q{
		ALTER ROLE anyone SET quota_manager.max_attempts = 4;
		ALTER ROLE other SET quota_manager.max_attempts = 0;
		ALTER DATABASE other SET quota_manager.after_promotion = 'hold'});
	($out, $err) = load(user => 'anyone');
	is($out, "4|$not_allowed\n4|$not_allowed", 'ALTER ROLE by a superuser');
	refused('max_attempts', 'ALTER ROLE to what it cannot be', user => 'other');
	refused('after_promotion', 'ALTER DATABASE of what only the file can say', database => 'other');
	$node->safe_psql('postgres', 'ALTER DATABASE other RESET quota_manager.after_promotion');
	($out, $err) = load(database => 'other');
	is($out, "3|$not_allowed\n3|$not_allowed", 'reset, it works');
};

subtest 'who was given the right to set it may' => sub {
	$node->safe_psql('postgres', q{
		ALTER ROLE other RESET quota_manager.max_attempts;
		GRANT SET ON PARAMETER quota_manager.allowed_hosts TO other});
	($out, $err) = load(user => 'other', options => '-c quota_manager.allowed_hosts=evil.example:80');
	is($out, "3|\n3|", 'GRANT SET ON PARAMETER');
	refused('max_attempts', 'GRANT SET ON PARAMETER, another', user => 'other', options => '-c quota_manager.max_attempts=1');
};

# A value of the file that nobody can read is not passed over either.
$node->append_conf('postgresql.conf', "quota_manager.allowed_hosts = 'https//gateway.example'");
$node->reload;
refused('allowed_hosts', 'a mistake in the configuration file');
$node->append_conf('postgresql.conf', "quota_manager.allowed_hosts = 'gateway.example'\nshared_preload_libraries = 'quota_manager'");
$node->restart;

subtest 'preloaded, PostgreSQL itself refuses all of that, and such a file' => sub {
	foreach my $setting (sort keys %other)
	{
		my $value = $other{$setting} =~ s/ /\\ /gr;

		($out, $err) = load(user => 'anyone', options => "-c quota_manager.$setting=$value");
		like($err, qr/FATAL:.*(?:permission denied to set parameter|cannot be changed)/, "preloaded, $setting");
	}
	$node->append_conf('postgresql.conf', "quota_manager.allowed_hosts = 'https//gateway.example'");
	$node->stop;
	is($node->start(fail_ok => 1), 0, 'preloaded, a mistake in the configuration file: the server does not start');
	like(slurp_file($node->logfile), qr/FATAL:  quota_manager cannot be loaded: the value of "quota_manager\.allowed_hosts" was refused/, 'it says why');
};

done_testing();
