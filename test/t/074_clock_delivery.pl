# The wall clock is set back and ahead, by an hour and by ten years, while a gateway is closed, misconfigured, asks for a
# pause, or is paced: it is asked again, and what is pending is sent, when that would have been.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Clock;
use QuotaTest::Workers;
use Test::More;

my $gateway = QuotaTest::Workers::gateway();
my $clock = QuotaTest::Clock->new('2026-06-01 08:00:00');
my $node = $clock->with(
	sub {
		QuotaTest::Workers::cluster('delivery', preload => 1,
			settings => "quota_manager.retry_base = 100ms\nquota_manager.retry_max = 1s\nquota_manager.scan_interval = 1s\n");
	});
my $users = 5;
my $hour = 3600;
my $years = 10 * 365 * 24 * $hour;

QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', $users);
foreach my $step (
	[ 'back by an hour', -$hour ],
	[ 'ahead by an hour', $hour ],
	[ 'back by ten years', -$years ],
	[ 'ahead by ten years', $years ])
{
	my ($what, $seconds) = @$step;

	meets('closed', $what, $seconds, q{SELECT state = 'closed' AND next_probe_time IS NOT NULL FROM quota_manager.quota_gateway}, status => 429, match => 'any');
	meets('misconfigured', $what, $seconds, q{SELECT state = 'misconfigured' FROM quota_manager.quota_gateway}, status => 403, match => 'any');
	meets('asked to wait', $what, $seconds, q{SELECT count(*) > 0 FROM quota_manager.quota_execute WHERE status = 'pending' AND last_status = 429}, status => 429, match => 'write');

	# A rate limit goes on.
	$node->safe_psql('postgres', 'UPDATE quota_manager.quota_gateway SET rate_limit = 2');
	QuotaTest::Workers::strategy($node, 'postgres', name => "paced $what");
	QuotaTest::Workers::await($node, 'postgres', qq{SELECT count(*) >= 1 FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
		WHERE s.name = 'paced $what' AND e.status = 'completed'});
	$clock->advance($seconds);
	QuotaTest::Workers::await_grants($node, 'postgres', "paced $what", $users);
	$node->safe_psql('postgres', 'UPDATE quota_manager.quota_gateway SET rate_limit = NULL');
	pass("$what: a paced gateway goes on");
}
$node->stop;
done_testing();

# Lets a gateway meet trouble, sets the clock, and mends it.
sub meets
{
	my ($name, $what, $seconds, $condition, %fault) = @_;

	$gateway->fault('status', %fault);
	QuotaTest::Workers::strategy($node, 'postgres', name => "$name $what");
	QuotaTest::Workers::await($node, 'postgres', $condition);
	$clock->advance($seconds);
	$gateway->mend;
	QuotaTest::Workers::await($node, 'postgres', q{SELECT state = 'open' FROM quota_manager.quota_gateway});
	QuotaTest::Workers::await($node, 'postgres', qq{
		SELECT count(*) = $users AND count(*) FILTER (WHERE e.status IN ('pending', 'processing')) = 0 FROM quota_manager.quota_execute e
		JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name = '$name $what'});
	pass("$what while $name: it is tried again and everything is sent");
	return;
}
