
# Outages under load: whatever a gateway does not do any more, few grants are in doubt, and two seconds after it does
# it again they are delivered.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node start_workers add_gateway grant);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until becomes_true);
use Test::More;
use Time::HiRes qw(time);

my $connections = 16;
my $seconds = $ENV{QUOTA_MANAGER_LONG} ? 30 : 3;
my $rounds = $ENV{QUOTA_MANAGER_LONG} ? 2 : 1;

my $node = delivery_node('outages', "shared_preload_libraries = 'quota_manager'\n");
start_workers($node);
$node->safe_psql('postgres', q{ALTER SYSTEM RESET quota_manager.poll_interval});
$node->reload;

my $user = 0;

# New grants arrive.
sub arrive
{
	my ($count) = @_;

	grant($node, 'gateway', 1, map { 'user' . ++$user } 1 .. $count);
	return;
}

# How many grants have a status.
sub count_of
{
	my ($status) = @_;

	return $node->safe_psql('postgres', "SELECT count(*) FROM quota_manager.quota_execute WHERE status = '$status'");
}

subtest 'what ceases, and how it comes back' => sub {
	my %outage = (
		'accepts no connection' => [ sub { $_[0]->stop }, sub { $_[0]->restart } ],
		'accepts and does not answer' => [ sub { $_[0]->fault(kind => 'hang', match => 'any', count => 0) } ],
		'reads and cannot write' => [ sub { $_[0]->fault(kind => 'status', status => 503, match => 'write', count => 0) } ],
		'reads, and writes without saying so' => [ sub { $_[0]->fault(kind => 'apply_status', status => 500, match => 'write', count => 0) } ],
		'reads, and hangs when it is to write' => [ sub { $_[0]->fault(kind => 'hang', match => 'write', count => 0) } ]);

	foreach my $dialect ('higress', 'zgsm')
	{
		my $mock = QuotaTest::Mock->start(dialect => $dialect, key => 'key');

		add_gateway($node, 'gateway', $mock, max_connections => $connections, request_timeout => '2 s');
		foreach my $name (sort keys %outage)
		{
			my ($begin, $end) = @{ $outage{$name} };
			my @recoveries;
			my $most = 0;

			foreach my $round (1 .. $rounds)
			{
				$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run');
				# in the middle of a load
				arrive(3000);
				wait_until($node, q{SELECT count(*) > 200 FROM quota_manager.quota_execute WHERE status = 'completed'});
				$begin->($mock);
				my $until = time + $seconds;
				arrive(20) while time < $until;

				# it returns, and what it has applied until then is not looked at
				($end // sub { $_[0]->reset })->($mock);
				my $returned = time;
				arrive(1);
				while ($mock->delivered == 0 && time - $returned < 30)
				{
				}
				push @recoveries, time - $returned;
				ok(becomes_true($node, q{SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE status IN ('pending', 'processing')}),
					"$dialect $name: all is settled afterwards");
				my $in_doubt = count_of('in_doubt');
				$most = $in_doubt if $in_doubt > $most;
				is(count_of('failed'), 0, "$dialect $name: nothing fails");
			}
			@recoveries = sort { $a <=> $b } @recoveries;
			cmp_ok($most, '<=', $connections + 3, "$dialect $name: few are in doubt");
			cmp_ok($recoveries[-1], '<=', 2, "$dialect $name: it is noticed within two seconds");
			note sprintf '%s %s for %d s, %d times: at most %d in doubt; delivered again after %.2f s (median), %.2f s (longest)',
			  $dialect, $name, $seconds, $rounds, $most, $recoveries[ @recoveries / 2 ], $recoveries[-1];
		}
		$node->safe_psql('postgres', q{
			TRUNCATE quota_manager.quota_execute, quota_manager.quota_run;
			DELETE FROM quota_manager.quota_gateway;
			DELETE FROM quota_manager.quota_credential});
		$mock->stop;
	}
};

$node->stop;
done_testing();
