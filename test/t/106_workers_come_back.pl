# Workers that are terminated or killed: each is started again by itself within its back-off, with preload and without.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time usleep);

my $gateway = QuotaTest::Workers::gateway();
my $users = 3;

# A first failure is followed by a second of back-off, the launcher's by five; the rest is for a slow machine.
my $worker_seconds = 8;
my $launcher_seconds = 15;

foreach my $preload (1, 0)
{
	subtest $preload ? 'preloaded' : 'not preloaded' => sub {
		my $node = QuotaTest::Workers::cluster("comes_back_$preload", preload => $preload, settings => "restart_after_crash = on\nlog_min_messages = debug1\n");
		my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
		my $strategies = 0;

		QuotaTest::Workers::database($node, 'postgres', $gateway);
		QuotaTest::Workers::users($node, 'postgres', $users);
		$node->safe_psql('postgres', 'SELECT quota_manager.start_workers()') if !$preload;

		my $works = sub {
			my ($name) = @_;
			my $strategy = 's' . ++$strategies;

			QuotaTest::Workers::strategy($node, 'postgres', name => $strategy);
			QuotaTest::Workers::await_grants($node, 'postgres', $strategy, $users);
			pass($name);
		};
		my $pids = sub { return map { $_ => QuotaTest::Workers::await_worker($node, 'postgres', $_) } qw(launcher scheduler courier) };

		$works->('it works');
		foreach my $case ([ 'scheduler', 'courier' ], [ 'courier', 'scheduler' ])
		{
			my ($ended, $other) = @$case;
			my %before = $pids->();
			my $since = time;

			$node->safe_psql('postgres', "SELECT pg_terminate_backend($before{$ended})");
			QuotaTest::Workers::await_worker($node, 'postgres', $ended, $before{$ended});
			cmp_ok(time - $since, '<', $worker_seconds, "a terminated $ended is back within its back-off");
			is(QuotaTest::Workers::worker($node, 'postgres', $other), $before{$other}, "and the $other was left alone");
			is(QuotaTest::Workers::worker($node, 'postgres', 'launcher'), $before{launcher}, 'and the launcher');
			$works->("it works after the $ended was terminated");
		}

		my %before = $pids->();
		my $since = time;

		$node->safe_psql('postgres', "SELECT pg_terminate_backend($before{launcher})");
		QuotaTest::Workers::await_worker($node, 'postgres', 'launcher', $before{launcher});
		QuotaTest::Workers::await_worker($node, 'postgres', $_, $before{$_}) foreach qw(scheduler courier);
		cmp_ok(time - $since, '<', $launcher_seconds, 'a terminated launcher is back with its workers');
		is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'quota_manager%'}), '3', 'and nobody is left of those before');
		$works->('it works after the launcher was terminated');

		foreach my $kind (qw(scheduler courier))
		{
			my $old = QuotaTest::Workers::worker($node, 'postgres', $kind);
			my $mark = -s $node->logfile;
			my $until = time + 60;
			my $young;

			# found among the processes: the server shows it only once it has started
			$node->safe_psql('postgres', "SELECT pg_terminate_backend($old)");
			until ($young)
			{
				die "no $kind starts" if time > $until;
				($young) = grep { $_ != $old } split /\n/, qx(pgrep -P $postmaster -f 'quota_manager $kind');
				usleep(2_000);
			}
			kill KILL => $young;
			$node->wait_for_log(qr/terminated by signal 9.*database system is ready to accept connections/s, $mark);
			$works->("it works after the $kind was killed while it started");
		}
		is(QuotaTest::Workers::log_count($node, qr/PANIC|terminated by signal (?!9)/), 0, 'no other crash is in the log');

		if ($preload)
		{
			$node->safe_psql('postgres', 'SELECT quota_manager.stop_workers()');
			QuotaTest::Workers::await($node, 'postgres', q{SELECT count(pid) = 0 FROM quota_manager.worker_status WHERE kind <> 'launcher'});
			my $mark = -s $node->logfile;

			$node->restart;
			$node->wait_for_log(qr/quota_manager workers of database "postgres" are stopped/, $mark);
			unlike(substr(slurp_file($node->logfile), $mark), qr/starting background worker process "quota_manager courier/, 'where workers are stopped, none delivers for a moment');
		}
		$node->stop;
	};
}

done_testing();
