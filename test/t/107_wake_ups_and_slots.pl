# A wake-up request that comes while a scheduler ends, and a database whose delivery worker broke once, where worker slots
# are short: both are served as others are.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use QuotaTest::Workers;
use Test::More;

my $gateway = QuotaTest::Workers::gateway();

# The least back-off of a database that is not served is ten seconds: a lost request would wait for that.
my $lost_ms = 8_000;

subtest 'workers are started while those before are about to end' => sub {
	my $node = QuotaTest::Workers::cluster('wake_ups', preload => 1);

	QuotaTest::Workers::database($node, 'postgres', $gateway);
	QuotaTest::Workers::await_worker($node, 'postgres', 'scheduler');
	$node->safe_psql(
		'postgres', <<'EOS');
CREATE TABLE start_time (ms numeric);
CREATE FUNCTION await_scheduler(running bool) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + interval '60 s';
BEGIN
	LOOP
		PERFORM pg_stat_clear_snapshot();
		EXIT WHEN running = EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'quota_manager scheduler');
		IF clock_timestamp() > until THEN
			RAISE EXCEPTION 'no change of the scheduler within a minute';
		END IF;
	END LOOP;
END $$;
CREATE PROCEDURE stop_and_start(rounds int) LANGUAGE plpgsql AS $$
DECLARE
	begun timestamptz;
BEGIN
	FOR i IN 1 .. rounds LOOP
		PERFORM quota_manager.stop_workers();
		COMMIT;
		PERFORM await_scheduler(false);
		PERFORM quota_manager.start_workers();
		COMMIT;
		begun := clock_timestamp();
		PERFORM await_scheduler(true);
		INSERT INTO start_time VALUES (extract(epoch FROM clock_timestamp() - begun) * 1000);
		COMMIT;
	END LOOP;
END $$;
EOS
	$node->safe_psql('postgres', 'CALL stop_and_start(12)');
	cmp_ok($node->safe_psql('postgres', 'SELECT round(max(ms)) FROM start_time'), '<', $lost_ms, 'no request is lost')
	  or diag($node->safe_psql('postgres', 'SELECT string_agg(round(ms)::text, $$ $$) FROM start_time'));
	$node->stop;
};

subtest 'a delivery worker broke once, and worker slots are short' => sub {
	# a launcher, and three workers for two databases
	my $node = QuotaTest::Workers::cluster('short_of_slots', preload => 1, settings => <<'CONF');
max_worker_processes = 4
max_logical_replication_workers = 0
max_parallel_workers = 0
CONF
	my $users = 2;

	QuotaTest::Workers::database($node, 'postgres', $gateway);
	QuotaTest::Workers::users($node, 'postgres', $users);
	my $courier = QuotaTest::Workers::await_worker($node, 'postgres', 'courier');

	$node->safe_psql('postgres', "SELECT pg_terminate_backend($courier)");
	QuotaTest::Workers::await_worker($node, 'postgres', 'courier', $courier);
	$node->safe_psql('postgres', 'CREATE DATABASE two');
	QuotaTest::Workers::database($node, 'two', $gateway);
	QuotaTest::Workers::users($node, 'two', $users);
	foreach my $round (1 .. 3)
	{
		foreach my $database (qw(postgres two))
		{
			QuotaTest::Workers::strategy($node, $database, name => "s$round");
			QuotaTest::Workers::await_grants($node, $database, "s$round", $users);
			pass("grants of $database are delivered, time $round");
		}
	}
	$node->stop;
};

done_testing();
