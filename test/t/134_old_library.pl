
# The library of 1.0.0 while a newer one is installed: a server that has it loaded, an update before the restart, and a
# library that was put back.  Whatever is done in whatever order, people are told what to do and nothing is paid twice.
#
# The library is built from the sources of 1.0.0: QUOTA_MANAGER_OLD_SOURCE is a folder with them, otherwise they are taken
# from the history of the repository that this file is in, or of QUOTA_MANAGER_HISTORY.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use File::Copy qw(copy);
use File::Path qw(make_path);
use File::Spec;
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(begin_session ask_session end_session);
use QuotaTest::Workers;
use Test::More;

my $commit = '5e6a3e3';
my $root = "$FindBin::RealBin/../..";
my ($lib) = run_command([ 'pg_config', '--pkglibdir' ]);
my ($share) = run_command([ 'pg_config', '--sharedir' ]);
my $place = PostgreSQL::Test::Utils::tempdir();
my $old = old_library();

plan skip_all => 'the sources of 1.0.0 are not at hand (git history, QUOTA_MANAGER_OLD_SOURCE), or not for this PostgreSQL' if !$old;
plan skip_all => 'the library is not built here' if !-e "$root/quota_manager.so";

# Where the servers look for the extension: the scripts of now, and a library that is replaced as packages do it.
make_path("$place$lib", "$place$share/extension");
copy($_, "$place$share/extension") or die "$_: $!" foreach glob("$root/quota_manager.control"), glob("$root/sql/quota_manager--*.sql");
put($old);

my ($settings) = run_command([ 'postgres', '--describe-config' ]);
my $where = "dynamic_library_path = '$place$lib:\$libdir'\n"
  . ($settings =~ /^extension_destdir\t/m ? "extension_destdir = '$place'\n" : "extension_control_path = '$place$share:\$system'\n");
my ($version) = slurp_file("$root/quota_manager.control") =~ /default_version = '(.*)'/;
my $too_old = qr/ERROR:  the library of quota_manager that this server runs is older than version 1\.1\.0\n.*HINT:  .*restart the server/s;
my $differ = qr/extension quota_manager in database "postgres" is at version \Q$version\E, the library is 1\.0\.0/;
my $update = 'ALTER EXTENSION quota_manager UPDATE';

preloaded();
not_preloaded();
done_testing();

# The new package is installed, and the server was not restarted.
sub preloaded
{
	my $gateway = QuotaTest::Workers::gateway();
	my $node = QuotaTest::Workers::cluster('preloaded', preload => 1, settings => $where . "quota_manager.scan_interval = 1s\n");
	my ($error, $mark);

	QuotaTest::Workers::database($node, 'postgres', $gateway, version => '1.0.0');
	QuotaTest::Workers::strategy($node, 'postgres', name => 'all');
	more_users($node, $gateway, 10, 'the old library');

	put("$root/quota_manager.so");
	(undef, undef, $error) = $node->psql('postgres', $update);
	like($error, $too_old, 'an update before the restart is refused');
	is(sql_version($node), '1.0.0', 'nothing has changed');
	more_users($node, $gateway, 20, 'the old library goes on');

	$node->restart;
	more_users($node, $gateway, 30, 'the new library with the old SQL');
	$node->safe_psql('postgres', $update);
	is(sql_version($node), $version, 'after the restart it is updated');
	more_users($node, $gateway, 40, 'the new library with the new SQL');

	# The package is put back.
	$node->stop;
	put($old);
	$mark = -s $node->logfile;
	$node->start;
	$node->wait_for_log($differ, $mark);
	$node->safe_psql('postgres', q{INSERT INTO quota_manager.user_info (id) SELECT 'user' || i FROM generate_series(41, 50) i});
	foreach my $call ('CALL quota_manager.tick()', 'CALL quota_manager.deliver()', 'SELECT quota_manager.start_workers()')
	{
		(undef, undef, $error) = $node->psql('postgres', $call);
		like($error, qr/ERROR:  $differ\n.*HINT:  .*restart/s, "the old library with the new SQL: $call");
	}
	# It may work, or lack something: not more than once for anybody.
	$node->psql('postgres', 'SELECT * FROM quota_manager.scan()') foreach 1 .. 2;
	is(scalar $gateway->applied, 40, 'nothing is sent');

	put("$root/quota_manager.so");
	$node->restart;
	QuotaTest::Workers::await_grants($node, 'postgres', 'all', 50);
	once_each($gateway, 50, 'the new library is there again');
	$node->stop;
	return;
}

# The library is loaded by whoever needs it: old and new ones meet.
sub not_preloaded
{
	my $gateway = QuotaTest::Workers::gateway();
	my ($node, $session, $error);

	put($old);
	$node = QuotaTest::Workers::cluster('not_preloaded', settings => $where . "quota_manager.scan_interval = 1s\n");
	QuotaTest::Workers::database($node, 'postgres', $gateway, version => '1.0.0');
	QuotaTest::Workers::strategy($node, 'postgres', name => 'all');
	$node->safe_psql('postgres', 'SELECT quota_manager.start_workers()');
	more_users($node, $gateway, 10, 'not preloaded: the old library');
	$session = begin_session($node);
	ask_session($session, q{SELECT quota_manager.schedule_now()});

	put("$root/quota_manager.so");
	more_users($node, $gateway, 20, 'not preloaded: the old library goes on');
	is(ask_session($session, qq{DO \$\$ BEGIN $update; EXCEPTION WHEN object_not_in_prerequisite_state THEN RAISE NOTICE '%', SQLERRM; END \$\$; SELECT extversion
		FROM pg_extension WHERE extname = 'quota_manager'}), '1.0.0', 'not preloaded: a session with the old library cannot update');

	# Who connects now has the new one.  The workers are those of the old one, and end.
	my $mark = -s $node->logfile;
	$node->safe_psql('postgres', $update);
	$node->wait_for_log($differ, $mark);
	$node->wait_for_log(qr/a quota_manager worker runs another version of the library than \Q$version\E\n.*\n.*HINT: .*Restart the server/, $mark);
	is(ask_session($session, q{DO $$ BEGIN PERFORM quota_manager.start_workers(); EXCEPTION WHEN object_not_in_prerequisite_state THEN RAISE NOTICE '%', SQLERRM; END $$;
		SELECT 'refused'}), 'refused', 'not preloaded: a session with the old library starts no workers');
	more_users($node, $gateway, 30, 'not preloaded: workers are back with the new library');
	end_session($session);
	$node->stop;
	return;
}

# The library of 1.0.0; undef: there is none to be had.
sub old_library
{
	my $folder = $ENV{QUOTA_MANAGER_OLD_SOURCE};
	my $build = "$place/build";
	my $archive = "$place/old.tar";

	make_path($build);
	if ($folder)
	{
		system_or_bail('cp', '-R', "$folder/.", $build);
	}
	else
	{
		my $history = $ENV{QUOTA_MANAGER_HISTORY} // $root;

		return if !grep { -x "$_/git" } File::Spec->path;
		return if !run_log([ 'git', '-c', "safe.directory=$history", '-C', $history, 'archive', '-o', $archive, $commit, 'Makefile', 'quota_manager.control', 'src', 'sql' ]);
		system_or_bail('tar', '-xf', $archive, '-C', $build);
	}
	return "$build/quota_manager.so" if run_log([ 'make', '-s', '-j2', '-C', $build, 'with_llvm=no', 'quota_manager.so' ]);
	# It was made for PostgreSQL 15.
	die '1.0.0 does not build' if check_pg_config('#define PG_MAJORVERSION "15"');
	return;
}

# Replaces the library as packages do: those who have the file open keep what was in it.
sub put
{
	my ($library) = @_;
	my $target = "$place$lib/quota_manager.so";

	copy($library, "$target.new") or die "$library: $!";
	chmod 0755, "$target.new" or die $!;
	rename "$target.new", $target or die $!;
	return;
}

sub sql_version
{
	my ($node) = @_;

	return $node->safe_psql('postgres', q{SELECT extversion FROM pg_extension WHERE extname = 'quota_manager'});
}

# Ten more users come; waits until there are so many who have got their grant.
sub more_users
{
	my ($node, $gateway, $count, $name) = @_;

	$node->safe_psql('postgres', "INSERT INTO quota_manager.user_info (id) SELECT 'user' || i FROM generate_series($count - 9, $count) i");
	QuotaTest::Workers::await_grants($node, 'postgres', 'all', $count);
	once_each($gateway, $count, $name);
	return;
}

sub once_each
{
	my ($gateway, $count, $name) = @_;
	my %times;

	$times{ $_->{user} }++ foreach $gateway->applied;
	is(join(' ', scalar(keys %times), grep { $_ != 1 } values %times), $count, "$name: $count users, once each");
	return;
}
