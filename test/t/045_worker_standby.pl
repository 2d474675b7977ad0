# On a standby nothing runs; a promotion takes over by itself.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;

my $gateway = QuotaTest::Workers::gateway();
my $primary = QuotaTest::Workers::cluster('primary', preload => 1, streaming => 1);

QuotaTest::Workers::database($primary, 'postgres', $gateway);
QuotaTest::Workers::users($primary, 'postgres', 3);
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

QuotaTest::Workers::strategy($primary, 'postgres', name => 'before');
QuotaTest::Workers::await_grants($primary, 'postgres', 'before', 3);
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'quota_manager%'}),
	'0', 'no worker runs on a standby');
foreach my $call ('SELECT quota_manager.start_workers()', 'SELECT quota_manager.stop_workers()', 'CALL quota_manager.tick()')
{
	my (undef, undef, $error) = $standby->psql('postgres', $call);

	like($error, qr/cannot .* on a standby server.*HINT:  Call it on the primary server/s, "$call is refused there");
}

$primary->stop('fast');
$standby->promote;
QuotaTest::Workers::await_worker($standby, 'postgres', 'courier');
pass('workers run after the promotion');
QuotaTest::Workers::strategy($standby, 'postgres', name => 'after');
QuotaTest::Workers::await_grants($standby, 'postgres', 'after', 3);
my %count;
$count{ $_->{idempotency_key} }++ foreach $gateway->applied;
is(scalar(keys %count), 6, 'and do the work');
is(scalar(grep { $_ > 1 } values %count), 0, 'once');

$standby->stop;
done_testing();
