# Workers answer signals within a second, also while a gateway hangs.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time);

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('signals', preload => 1, settings => "log_min_messages = debug3\n");

QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', 3);
my $courier = QuotaTest::Workers::await_worker($node, 'postgres', 'courier');
my $scheduler = QuotaTest::Workers::worker($node, 'postgres', 'scheduler');

my $number = 0;

sub in_flight
{
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) > 0 FROM quota_manager.quota_execute WHERE status = 'processing'});
	return;
}

QuotaTest::Workers::within_a_second('SIGHUP, idle courier', sub { QuotaTest::Workers::seconds_to_reload($node, $courier) });
QuotaTest::Workers::within_a_second('SIGHUP, idle scheduler', sub { QuotaTest::Workers::seconds_to_reload($node, $scheduler) });

# There is nothing to cancel while the scheduler is idle.
$node->safe_psql('postgres', "SELECT pg_cancel_backend($scheduler)");
QuotaTest::Workers::seconds_to_reload($node, $scheduler);
is(QuotaTest::Workers::worker($node, 'postgres', 'scheduler'), $scheduler, 'pg_cancel_backend does not end an idle scheduler');

subtest 'deliveries hang' => sub {
	$gateway->fault('hang', match => 'write');
	QuotaTest::Workers::strategy($node, 'postgres', name => 'hangs');
	in_flight();
	QuotaTest::Workers::within_a_second('SIGHUP, courier whose gateway hangs', sub { QuotaTest::Workers::seconds_to_reload($node, $courier) });
	is(QuotaTest::Workers::worker($node, 'postgres', 'courier'), $courier, 'it goes on');
	QuotaTest::Workers::within_a_second(
		'SIGTERM, courier whose gateway hangs',
		sub {
			$courier = QuotaTest::Workers::await_worker($node, 'postgres', 'courier');
			QuotaTest::Workers::strategy($node, 'postgres', name => 'again' . $number++);
			in_flight();
			my $since = time;
			$node->safe_psql('postgres', "SELECT pg_terminate_backend($courier)");
			return QuotaTest::Workers::seconds_to_end($courier, $since);
		});
	$gateway->mend;
	QuotaTest::Workers::await_worker($node, 'postgres', 'courier', $courier);
	QuotaTest::Workers::await($node, 'postgres',
		q{SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE status IN ('pending', 'processing')});
	pass('it comes back and goes on with what was not sent');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_execute WHERE status NOT IN ('completed', 'in_doubt')}),
		'0', 'what was in flight is in doubt, the rest completed');
	my %applied;
	$applied{ $_->{idempotency_key} }++ foreach $gateway->applied;
	is(scalar(grep { $_ > 1 } values %applied), 0, 'nothing was sent twice');
};

subtest 'balances hang, of users of whom nothing is open or in doubt' => sub {
	$node->safe_psql('postgres', q{INSERT INTO quota_manager.user_info (id) SELECT 'new' || n FROM generate_series(1, 3) n});
	$gateway->fault('hang', match => 'query');
	QuotaTest::Workers::strategy($node, 'postgres', name => 'refill', condition => 'and(match-user("new1", "new2", "new3"), quota-le("m", 1000))');
	my $asking = q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'quota_manager scheduler' AND state = 'active' AND xact_start IS NULL};
	QuotaTest::Workers::await($node, 'postgres', $asking);
	QuotaTest::Workers::within_a_second('SIGHUP, scheduler whose gateway hangs',
		sub { QuotaTest::Workers::seconds_to_reload($node, QuotaTest::Workers::worker($node, 'postgres', 'scheduler')) });
	QuotaTest::Workers::within_a_second(
		'SIGTERM, scheduler whose gateway hangs',
		sub {
			$scheduler = QuotaTest::Workers::await_worker($node, 'postgres', 'scheduler');
			QuotaTest::Workers::await($node, 'postgres', $asking);
			my $since = time;
			$node->safe_psql('postgres', "SELECT pg_terminate_backend($scheduler)");
			return QuotaTest::Workers::seconds_to_end($scheduler, $since);
		});
	$courier = QuotaTest::Workers::worker($node, 'postgres', 'courier');
	$gateway->mend;
	QuotaTest::Workers::await_worker($node, 'postgres', 'scheduler', $scheduler);
	QuotaTest::Workers::await_grants($node, 'postgres', 'refill', 3);
	pass('it comes back and reads them');
};

# A lock on a table does not keep the courier from ending either.
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE quota_manager.quota_gateway, quota_manager.quota_run');
$courier = QuotaTest::Workers::await_worker($node, 'postgres', 'courier');
QuotaTest::Workers::await($node, 'postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = $courier AND wait_event_type = 'Lock'");
my $since = time;
$node->safe_psql('postgres', "SELECT pg_terminate_backend($courier)");
cmp_ok(QuotaTest::Workers::seconds_to_end($courier, $since), '<', 2, 'SIGTERM, courier that waits for a lock');
$locker->query_safe('ROLLBACK');
$locker->quit;

# The whole server.
$gateway->fault('hang');
QuotaTest::Workers::strategy($node, 'postgres', name => 'last');
in_flight();
$since = time;
$node->stop('fast');
cmp_ok(time - $since, '<', 3, 'the server stops fast while a gateway hangs');

done_testing();
