# The courier is killed in the middle of a batch: nothing is sent twice, nothing
# is lost without a visible state.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('crash', preload => 1, settings => "restart_after_crash = on\n");
my $users = 300;

QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', $users);

subtest 'some are applied and answered, some applied without an answer, some not at all' => sub {
	$gateway->fault('apply_hang', match => 'write', user => "user$_", count => 1) foreach 20, 21, 22;
	$gateway->fault('hang', match => 'write', user => "user$_", count => 1) foreach 30, 31;
	QuotaTest::Workers::strategy($node, 'postgres', name => 'once');
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) > 0 FROM quota_manager.quota_execute WHERE status = 'completed'});
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) > 0 FROM quota_manager.quota_execute WHERE status = 'processing'});

	my $courier = QuotaTest::Workers::worker($node, 'postgres', 'courier');
	kill KILL => $courier;
	$node->wait_for_log(qr/terminated by signal 9/);
	QuotaTest::Workers::await_worker($node, 'postgres', 'courier', $courier);
	pass('the workers come back after a crash');
	QuotaTest::Workers::await($node, 'postgres',
		q{SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE status IN ('pending', 'processing')});

	my %state = map { split /\|/ } split /\n/,
	  $node->safe_psql('postgres', 'SELECT user_id, status FROM quota_manager.quota_execute');
	my %sent;
	$sent{ $_->{user} }++ foreach $gateway->applied;
	is(scalar(keys %state), $users, 'every grant is there');
	is(scalar(grep { $_ > 1 } values %sent), 0, 'none was applied twice');
	is(scalar(grep { $state{$_} eq 'completed' && !$sent{$_} } keys %state), 0, 'what is completed was applied');
	is(scalar(grep { $state{$_} ne 'completed' && $state{$_} ne 'in_doubt' } keys %state), 0, 'the others are in doubt');
	ok((grep { $_ eq 'in_doubt' } values %state) > 0, 'some are');
	is(scalar(grep { $sent{$_} && !exists $state{$_} } keys %sent), 0, 'nothing was applied that was not granted');
};

# A courier with requests in flight, and a scheduler that reads balances, do not outlive the postmaster: they would
# keep the server from being started again.
$gateway->mend;
$gateway->fault('hang', match => 'any');
QuotaTest::Workers::strategy($node, 'postgres', name => 'hangs');
QuotaTest::Workers::await($node, 'postgres',
	q{SELECT count(*) > 0 FROM quota_manager.quota_execute WHERE status = 'processing'});
$node->safe_psql('postgres', q{INSERT INTO quota_manager.user_info (id) VALUES ('new')});
QuotaTest::Workers::strategy($node, 'postgres', name => 'asks', condition => 'and(match-user("new"), quota-le("m", 1))');
QuotaTest::Workers::await($node, 'postgres',
	q{SELECT count(*) = 1 FROM quota_manager.worker_status WHERE kind = 'scheduler' AND state = 'active' AND activity LIKE 'reading balances%'});
my $took = QuotaTest::Workers::kill_postmaster($node);
cmp_ok($took, '<', 5, sprintf 'nothing outlives the postmaster (%.1f s)', $took);

$node->stop;
done_testing();
