
=pod

=head1 NAME

QuotaTest::CrashPoints - a cluster whose processes die where they are told to

=head1 DESCRIPTION

  my $node = crash_cluster('name', "quota_manager.claim_batch = 32\n");
  arm($node, 'claim_made', skip => 2);      # or action => 'stall'
  await_hit($node, 'claim_made');           # it is dead and the server has noticed, or it stands still
  release($node, 'claim_made');             # what stands still goes on

The cluster runs a build of its own, with the places that src/common/crash_point.h
names; C<make prove> makes it and says where it is in QUOTA_MANAGER_CRASH_BUILD.

=cut

package QuotaTest::CrashPoints;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use PostgreSQL::Test::Utils;
use QuotaTest::Wait qw(wait_until wait_for happens);
use QuotaTest::Workers;

our @EXPORT_OK = qw(crash_cluster crash_points arm await_hit release);

# Lines of configuration that have everyone load that build and no other.
sub _settings
{
	my $root = $ENV{QUOTA_MANAGER_CRASH_BUILD}
	  // die "QUOTA_MANAGER_CRASH_BUILD is not set: run this test by make prove\n";
	my ($folder) = run_command([ 'pg_config', '--pkglibdir' ]);
	my ($share) = run_command([ 'pg_config', '--sharedir' ]);
	my ($settings) = run_command([ 'postgres', '--describe-config' ]);
	my $library = "$root$folder/quota_manager.so";

	-e $library or die "there is no $library: run this test by make prove\n";
	# Workers name the library without a path, functions name it in $libdir: for these there is a setting
	# of Debian's, and one of PostgreSQL's own from 18 on.
	my $where = "dynamic_library_path = '$root$folder:\$libdir'\n";
	return $where . "extension_destdir = '$root'\n" if $settings =~ /^extension_destdir\t/m;
	return $where . "extension_control_path = '$root$share:\$system'\n"
	  if $settings =~ /^extension_control_path\t/m;
	die "this PostgreSQL cannot load an extension from elsewhere\n";
}

# A running cluster of that build, its workers preloaded.
sub crash_cluster
{
	my ($name, $settings) = @_;

	return QuotaTest::Workers::cluster($name, preload => 1,
		settings => "restart_after_crash = on\n" . _settings() . $settings);
}

# The names of all places, in the order in which a grant comes along.
sub crash_points
{
	my ($node) = @_;

	return split /,/, $node->safe_psql('postgres', 'SHOW quota_manager.crash_points');
}

# The file that the process makes that is hit.
sub _file
{
	my ($node, $point) = @_;

	return $node->data_dir . "/quota_manager.crash_point.$point";
}

# Per cluster: where its log ended before whoever comes to the armed place dies; undef: it only stalls.
my %log_at;

# Waits until the postmaster has noticed a death: until then it lets others in, whom it ends with all the rest.
sub _await_notice
{
	my ($node, $from) = @_;

	wait_for('the postmaster notices', sub { slurp_file($node->logfile, $from) =~ /all server processes terminated; reinitializing/ });
	return;
}

# Arms a place, and no other any more. When this returns, whatever happens next is seen by processes that
# know: the postmaster tells them before it lets the session in that sees the new setting.
sub arm
{
	my ($node, $point, %option) = @_;
	my $action = $option{action} // 'kill';
	my $value = join ':', $point, $option{skip} // 0, $action;
	my $log = -s $node->logfile;

	unlink _file($node, $point);
	QuotaTest::Workers::set($node, 'quota_manager.crash_point', $value);
	wait_until($node, 'SHOW quota_manager.crash_point', result => $value);
	# who came there meanwhile does not count
	if ($action eq 'kill' && -e _file($node, $point))
	{
		_await_notice($node, $log);
		wait_until($node, 'SHOW quota_manager.crash_point', result => $value);
		$log = -s $node->logfile;
	}
	$log_at{ $node->name } = $action eq 'kill' ? $log : undef;
	unlink _file($node, $point);
	return;
}

# Waits until a place was hit; returns whether it was, within so many seconds.
sub await_hit
{
	my ($node, $point, $timeout) = @_;
	my $log = $log_at{ $node->name };

	return 0 if !happens(sub { -e _file($node, $point) }, $timeout);
	_await_notice($node, $log) if defined $log;
	return 1;
}

# Lets go of who stands still at a place.
sub release
{
	my ($node, $point) = @_;

	unlink _file($node, $point) or die "nobody stands at $point";
	return;
}

1;
