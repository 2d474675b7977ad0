
# A courier whose gateway accepts and never answers, at whatever point, holds
# nothing in the database, and does what it is told at once.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node start_workers add_gateway grant statuses);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until);
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time);

my $node = delivery_node('hang', <<'CONF');
shared_preload_libraries = 'quota_manager'
log_min_messages = debug3
quota_manager.linger = 0
CONF
start_workers($node);

# The system accepts connections to it, nobody reads or writes.
my $silent = IO::Socket::INET->new(Listen => 128, LocalAddr => '127.0.0.1') or die "cannot listen: $!";
my $silent_at = '127.0.0.1:' . $silent->sockport;

# Where the courier is when it hangs: columns of the gateway, the mock's fault,
# how to tell that it is there, and what becomes of grants in flight when it is
# told to end.
my %hang = (
	'a delta' => {
		gateway => { base_url => "http://$silent_at" },
		is_there => q{count(*) FILTER (WHERE status = 'processing') > 0},
		becomes => 'in_doubt' },
	'the TLS handshake' => {
		gateway => { base_url => "https://$silent_at" },
		is_there => q{count(*) FILTER (WHERE status = 'processing') > 0},
		becomes => 'pending' },
	'a reply that drips' => {
		gateway => {},
		fault => { kind => 'drip', match => 'delta', delay_ms => 2000 },
		is_there => q{count(*) FILTER (WHERE status = 'processing') > 0},
		becomes => 'in_doubt' },
	'a health check' => {
		gateway => {},
		fault => { kind => 'hang', match => 'query' },
		first_fault => { kind => 'reset', match => 'delta' },
		is_there => q{count(*) FILTER (WHERE status = 'in_doubt') > 0},
		becomes => 'in_doubt' },
	'the reading before a grant' => {
		gateway => { doubt_policy => 'reconcile', sole_writer => 'true' },
		fault => { kind => 'hang', match => 'query' },
		is_there => q{count(*) FILTER (WHERE status = 'processing') > 0},
		becomes => 'pending' },
	'the reading that proves' => {
		gateway => { doubt_policy => 'reconcile', sole_writer => 'true' },
		first_fault => { kind => 'reset', match => 'delta' },
		then => { kind => 'hang', match => 'query' },
		is_there => q{count(*) FILTER (WHERE status = 'in_doubt') > 0},
		becomes => 'in_doubt' });

# What a process does now, and what it holds.
my $courier_is = q{FROM pg_stat_activity WHERE backend_type = 'quota_manager courier'};

# Waits until the courier waits for its gateway.
sub await_hang
{
	my ($gateway, $is_there) = @_;

	QuotaTest::Workers::await($node, 'postgres',
		"SELECT $is_there FROM quota_manager.quota_execute WHERE gateway = '$gateway'");
	QuotaTest::Workers::await($node, 'postgres', "SELECT count(*) = 1 $courier_is AND wait_event_type = 'Extension'");
	return QuotaTest::Workers::worker($node, 'postgres', 'courier');
}

my $number = 0;
foreach my $where (sort keys %hang)
{
	my $case = $hang{$where};
	my $gateway = 'g' . ++$number;
	my $mock = QuotaTest::Mock->start(dialect => 'higress');
	my $courier;

	$mock->fault(count => 1, %{ $case->{first_fault} }) if $case->{first_fault};
	$mock->fault(count => 1000000, %{ $case->{fault} }) if $case->{fault};
	add_gateway($node, $gateway, $mock, max_connections => 4, request_timeout => '10 min', %{ $case->{gateway} });
	grant($node, $gateway, 1, map { "user$_" } 1 .. 20);
	if ($case->{then})
	{
		wait_until($node, qq{SELECT count(*) > 0 FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = 'in_doubt'});
		$mock->fault(count => 1000000, %{ $case->{then} });
	}
	$courier = await_hang($gateway, $case->{is_there});

	subtest "$where: it polls for work each second, for a moment" => sub {
		my ($samples, $waiting, $holding, $long) = (0, 0, 0, 0);
		my $until = time + 1.5;
		while (time < $until || $waiting == 0)
		{
			my ($waits, $holds, $is_long) = split /\|/, $node->safe_psql('postgres', qq{
				SELECT wait_event_type = 'Extension',
					backend_xmin IS NOT NULL OR backend_xid IS NOT NULL OR xact_start IS NOT NULL
					OR EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype NOT IN ('advisory', 'virtualxid')),
					coalesce(clock_timestamp() - xact_start > '500 ms', false)
				FROM pg_stat_activity a WHERE pid = $courier});

			$samples++;
			$waiting++ if $waits eq 't';
			$holding++ if $waits eq 't' && $holds eq 't';
			$long++ if $is_long eq 't';
		}
		is($long, 0, "$where: it has no transaction that lasts");
		cmp_ok($holding, '<=', $waiting / 20, "$where: while it waits it has no snapshot, no transaction id and no lock on rows or tables");
		note "$where: waited in $waiting of $samples samples, held something in $holding";

		is( $node->safe_psql('postgres', q{
				SET lock_timeout = '5s';
				SELECT count(*) > 0 FROM (SELECT FROM quota_manager.quota_execute FOR UPDATE) x;
				BEGIN; LOCK TABLE quota_manager.quota_execute, quota_manager.quota_run, quota_manager.quota_gateway; COMMIT}),
			't', "$where: others can lock grants, and tables");
		$node->safe_psql('postgres', q{
			INSERT INTO quota_manager.user_info (id) SELECT 'dead' || n FROM generate_series(1, 100) n;
			DELETE FROM quota_manager.user_info});
		my ($status, $out, $err) = $node->psql('postgres', 'VACUUM VERBOSE quota_manager.user_info');
		like($err, qr/100 removed, 0 remain, 0 are dead but not yet removable/, "$where: VACUUM removes what died since");
		($status, $out, $err) = $node->psql('postgres', 'VACUUM VERBOSE quota_manager.quota_execute');
		like($err, qr/ 0 are dead but not yet removable/, "$where: also of the grants");

		QuotaTest::Workers::within_a_second("$where: it reads its settings", sub { QuotaTest::Workers::seconds_to_reload($node, $courier) });
		QuotaTest::Workers::within_a_second(
			"$where: it does not keep a database from being dropped",
			sub {
				$node->safe_psql('postgres', 'CREATE DATABASE dropped');
				my $since = time;
				$node->safe_psql('postgres', 'DROP DATABASE dropped');
				return time - $since;
			});
		is(QuotaTest::Workers::worker($node, 'postgres', 'courier'), $courier, "$where: it still hangs");

		QuotaTest::Workers::within_a_second(
			"$where: it ends when told to",
			sub {
				$courier = await_hang($gateway, $case->{is_there});
				my $since = time;
				$node->safe_psql('postgres', "SELECT pg_terminate_backend($courier)");
				return QuotaTest::Workers::seconds_to_end($courier, $since);
			});
		is( $node->safe_psql('postgres', qq{
				SELECT bool_or(status = '$case->{becomes}'), bool_and(status IN ('$case->{becomes}', 'pending', 'processing', 'completed'))
				FROM quota_manager.quota_execute WHERE gateway = '$gateway'}),
			't|t', "$where: what was in flight is $case->{becomes} then");
	};

	# The next one has nothing to do there.
	$node->safe_psql('postgres', qq{
		UPDATE quota_manager.quota_run SET undelivered = false;
		UPDATE quota_manager.quota_execute SET status = 'cancelled' WHERE gateway = '$gateway'});
	QuotaTest::Workers::await_worker($node, 'postgres', 'courier', $courier);
}

$node->stop;
done_testing();
