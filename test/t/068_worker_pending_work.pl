# One pair of slots for two databases, of which one has pending work without end: the other has its time slice, and making
# room for it puts nothing in doubt.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time);

my $slow = QuotaTest::Workers::gateway();
my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('pending_work', preload => 1, settings => "quota_manager.max_workers = 2\n");

# Each answer takes longer than SIGTERM would wait, so some are always on their way.
$slow->fault('slow', match => 'write', delay_ms => 900);
QuotaTest::Workers::database($node, 'postgres', $slow);
$node->safe_psql('postgres', 'UPDATE quota_manager.quota_gateway SET rate_limit = 20');
QuotaTest::Workers::users($node, 'postgres', 5000);
QuotaTest::Workers::strategy($node, 'postgres', name => 'endless');
my $completed = q{(SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'completed')};
QuotaTest::Workers::await($node, 'postgres', "$completed > 0");

# While no other database waits, it keeps its slots.
my $courier = QuotaTest::Workers::worker($node, 'postgres', 'courier');
$node->safe_psql('postgres', 'CREATE DATABASE other');
QuotaTest::Workers::database($node, 'other', $gateway);
QuotaTest::Workers::users($node, 'other', 5);
QuotaTest::Workers::strategy($node, 'other', name => 'short');
my $since = time;
QuotaTest::Workers::await_grants($node, 'other', 'short', 5);
cmp_ok(time - $since, '<', 30, sprintf 'the other database has its time slice (after %.1f s)', time - $since);

subtest 'it gets its slots back, and goes on' => sub {
	my $before = $node->safe_psql('postgres', "SELECT $completed");
	isnt(QuotaTest::Workers::await_worker($node, 'postgres', 'courier', $courier), $courier, 'the first one is back');
	QuotaTest::Workers::await($node, 'postgres', "$completed > $before");
	pass('and goes on');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_execute WHERE doubt_time IS NOT NULL}), '0', 'making room put nothing in doubt');
	is(QuotaTest::Workers::log_count($node, qr/PANIC|FATAL:  (?!terminating)|terminated by signal/), 0, 'no crash is in the log');

	$node->stop;
	my %keys;
	$keys{ $_->{idempotency_key} }++ foreach $slow->applied;
	is(scalar(grep { $_ > 1 } values %keys), 0, 'nothing was sent twice');
};
done_testing();
