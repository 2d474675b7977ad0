
# Gateways that are down, refuse us, or ask to come back later: nothing is
# lost, nothing fails that is not at fault, and all arrives once it can.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver deliver_all statuses delivered_once log_part);
use QuotaTest::Mock;
use Test::More;

my $node = delivery_node('outage', <<'CONF');
quota_manager.retry_base = 1ms
quota_manager.retry_max = 2ms
CONF

sub state_of
{
	my ($name) = @_;

	return $node->safe_psql('postgres', qq{
		SELECT state, state_reason IS NULL, next_probe_time IS NULL
		FROM quota_manager.quota_gateway WHERE name = '$name'});
}

foreach my $dialect ('higress', 'zgsm')
{
	my $mock = QuotaTest::Mock->start(dialect => $dialect, key => 'right');
	my $gateway = "the-$dialect";
	my ($counts, $from);

	my @lines;
	subtest "$dialect: down, more often than attempts are allowed" => sub {
		add_gateway($node, $gateway, $mock);
		$mock->stop;
		grant($node, $gateway, 4, map { "user$_" } 1 .. 300);
		$from = -s $node->logfile;
		like(deliver($node), qr/^0\|0\|0\|\d+$/, "$dialect down: nothing is delivered");
		is(state_of($gateway), 'closed|f|f', "$dialect down: the gateway is closed");
		deliver($node) foreach 1 .. 15;
		is(statuses($node, $gateway), 'pending 300', "$dialect down: nothing fails, however long it lasts");
		is( $node->safe_psql('postgres', qq{
				SELECT max(attempts), max(claim_number) <= 1, count(*) FILTER (WHERE claim_number > 0) <= 256
				FROM quota_manager.quota_execute WHERE gateway = '$gateway'}),
			'0|t|t', "$dialect down: a closed gateway is only asked, and no attempt is used up");
		@lines = log_part($node, $from) =~ /LOG:  (gateway "$gateway" is .*)/g;
		is(scalar(@lines), 1, "$dialect down: it is logged once");
		like($lines[0], qr/is closed: \S/, "$dialect down: with the reason");
	};

	subtest "$dialect: back" => sub {
		$mock->restart;
		is(deliver($node), '300|0|0|0', "$dialect back: all is delivered");
		is(state_of($gateway), 'open|t|t', "$dialect back: the gateway is open");
		is(delivered_once($node, $gateway, $mock, "$dialect back"), 300, "$dialect back: each once");
	};

	subtest "$dialect: a wrong key, then the right one" => sub {
		$mock->reset;
		$node->safe_psql('postgres', qq{
			DELETE FROM quota_manager.quota_execute;
			UPDATE quota_manager.quota_credential SET secret = 'wrong' WHERE name = '$gateway'});
		grant($node, $gateway, 4, map { "user$_" } 1 .. 300);
		$from = -s $node->logfile;
		like(deliver($node), qr/^0\|0\|0\|\d+$/, "$dialect wrong key: nothing is delivered, nothing fails");
		is(state_of($gateway), 'misconfigured|f|f', "$dialect wrong key: the gateway is misconfigured");
		deliver($node) foreach 1 .. 15;
		is(statuses($node, $gateway), 'pending 300', "$dialect wrong key: nothing fails");
		is( $node->safe_psql('postgres', qq{
				SELECT max(attempts) FROM quota_manager.quota_execute WHERE gateway = '$gateway'}),
			0, "$dialect wrong key: no attempt is used up");
		cmp_ok(eval { my $sum = 0; $sum += $_ foreach values %{ $mock->requests('delta') }; $sum },
			'<=', 16, "$dialect wrong key: few grants were even sent");
		@lines = log_part($node, $from) =~ /LOG:  (gateway "$gateway" is .*)/g;
		is(scalar(@lines), 1, "$dialect wrong key: it is logged once");
		unlike(log_part($node, $from), qr/wrong/, "$dialect wrong key: without the key");
		$node->safe_psql('postgres', qq{UPDATE quota_manager.quota_credential SET secret = 'right' WHERE name = '$gateway'});
		is(deliver($node), '300|0|0|0', "$dialect right key: all is delivered");
		is(state_of($gateway), 'open|t|t', "$dialect right key: the gateway is open");
		is(delivered_once($node, $gateway, $mock, "$dialect right key"), 300, "$dialect right key: each once");
	};

	subtest "$dialect: no key at all where it should be, and a path that is wrong" => sub {
		$mock->reset;
		$node->safe_psql('postgres', qq{
			DELETE FROM quota_manager.quota_execute;
			UPDATE quota_manager.quota_gateway SET credential = 'row:missing' WHERE name = '$gateway'});
		grant($node, $gateway, 4, map { "user$_" } 1 .. 3);
		my (undef, undef, $notice) = $node->psql('postgres', 'CALL quota_manager.deliver()');
		like($notice, qr/NOTICE:  gateway "$gateway" is misconfigured: .*\nDETAIL:  Its grants stay pending until it works/, "$dialect no key: the caller is told why nothing is sent");
		is(state_of($gateway), 'misconfigured|f|f', "$dialect no key: the gateway is misconfigured");
		is( $node->safe_psql('postgres', qq{SELECT max(claim_number) FROM quota_manager.quota_execute WHERE gateway = '$gateway'}),
			0, "$dialect no key: nothing is claimed");
		$node->safe_psql('postgres', qq{
			UPDATE quota_manager.quota_gateway SET credential = 'row:$gateway', admin_path = '/nowhere' WHERE name = '$gateway'});
		like(deliver($node), qr/^0\|0\|0\|\d$/, "$dialect wrong path: nothing is delivered");
		is(state_of($gateway), 'misconfigured|f|f', "$dialect wrong path: the gateway is misconfigured");
		$node->safe_psql('postgres', qq{UPDATE quota_manager.quota_gateway SET admin_path = NULL WHERE name = '$gateway'});
		is(deliver($node), '3|0|0|0', "$dialect right path: all is delivered");
	};

	subtest "$dialect: 429: later, and not for ever" => sub {
		$mock->reset;
		$node->safe_psql('postgres', 'DELETE FROM quota_manager.quota_execute');
		$mock->fault(kind => 'status', status => 429, match => 'delta', count => 5, body => 'slow down');
		grant($node, $gateway, 4, map { "user$_" } 1 .. 50);
		ok(deliver_all($node, $gateway), "$dialect throttled: all is delivered in the end");
		is(statuses($node, $gateway), 'completed 50', "$dialect throttled: nothing fails");
		is(delivered_once($node, $gateway, $mock, "$dialect throttled"), 50, "$dialect throttled: each once");
		is( $node->safe_psql('postgres', qq{
				SELECT sum(attempts) FROM quota_manager.quota_execute WHERE gateway = '$gateway'}),
			5, "$dialect throttled: attempts are counted");

		$mock->reset;
		$node->safe_psql('postgres', 'DELETE FROM quota_manager.quota_execute');
		$mock->fault(kind => 'status', status => 429, match => 'delta', retry_after => 120, body => 'redis error:slow down');
		grant($node, $gateway, 4, 'patient');
		is(deliver($node), '0|0|0|1', "$dialect Retry-After: deferred");
		is( $node->safe_psql('postgres', qq{
				SELECT next_attempt_time - update_time BETWEEN '119 s' AND '121 s', last_status, last_error ~ 'slow down'
				FROM quota_manager.quota_execute WHERE user_id = 'patient'}),
			't|429|t', "$dialect Retry-After: it is waited for");
		is( $node->safe_psql('postgres', qq{
				SELECT state, next_probe_time > now() + '110 s' FROM quota_manager.quota_gateway WHERE name = '$gateway'}),
			'closed|t', "$dialect Retry-After: by all grants");
		is(deliver($node), '0|0|0|0', "$dialect Retry-After: not sent before");

		$mock->reset;
		$node->safe_psql('postgres', 'DELETE FROM quota_manager.quota_execute');
		$mock->fault(kind => 'status', status => 429, match => 'delta', user => 'unwanted', count => 1000);
		grant($node, $gateway, 4, 'unwanted', 'wanted');
		ok(deliver_all($node, $gateway), "$dialect always throttled: it ends");
		is( $node->safe_psql('postgres', q{
				SELECT user_id, status, attempts FROM quota_manager.quota_execute ORDER BY user_id}),
			"unwanted|failed|10\nwanted|completed|0", "$dialect always throttled: it fails alone, after max_attempts");
	};

	subtest "$dialect: refused by the gateway: fails alone, at once" => sub {
		$mock->reset;
		$node->safe_psql('postgres', 'DELETE FROM quota_manager.quota_execute');
		$mock->fault($mock->own_refusal('no such thing'), match => 'delta', user => 'refused');
		grant($node, $gateway, 4, (map { "user$_" } 1 .. 30), 'refused', (map { "user$_" } 31 .. 60));
		is(deliver($node), '60|1|0|0', "$dialect refused: it fails alone");
		is( $node->safe_psql('postgres', q{
				SELECT status, last_status, last_error ~ 'no such thing' FROM quota_manager.quota_execute WHERE user_id = 'refused'}),
			'failed|400|t', "$dialect refused: with the gateway's words");
	};

	subtest "$dialect: 403 for one grant: a query tells whether it is the grant or us" => sub {
		$mock->reset;
		$node->safe_psql('postgres', 'DELETE FROM quota_manager.quota_execute');
		$mock->fault(kind => 'status', status => 403, match => 'delta', user => 'blamed', count => 100,
			body => q{Request denied by ai quota check. consumer can't be empty and value must be integer.});
		grant($node, $gateway, 4, (map { "user$_" } 1 .. 30), 'blamed', (map { "user$_" } 31 .. 60));
		ok(deliver_all($node, $gateway), "$dialect blamed: it ends");
		is( $node->safe_psql('postgres', q{
				SELECT status, attempts, claim_number FROM quota_manager.quota_execute WHERE user_id = 'blamed'}),
			'failed|0|1', "$dialect blamed: a grant with wrong parameters fails at once");
		is(statuses($node, $gateway), 'completed 60, failed 1', "$dialect blamed: alone");
		is(state_of($gateway), 'open|t|t', "$dialect blamed: the gateway stays open");

		$mock->reset;
		$node->safe_psql('postgres', 'DELETE FROM quota_manager.quota_execute');
		$mock->fault(kind => 'status', status => 403, match => 'delta', user => 'barred', count => 100, body => 'not you');
		grant($node, $gateway, 4, (map { "user$_" } 1 .. 30), 'barred', (map { "user$_" } 31 .. 60));
		ok(deliver_all($node, $gateway), "$dialect barred: it ends");
		is( $node->safe_psql('postgres', q{
				SELECT status, attempts FROM quota_manager.quota_execute WHERE user_id = 'barred'}),
			'failed|10', "$dialect barred: a grant refused for no reason is tried again, and fails in the end");
		is(statuses($node, $gateway), 'completed 60, failed 1', "$dialect barred: alone");
	};

	subtest "$dialect: a user that cannot be asked about does not keep the gateway shut" => sub {
		$mock->reset;
		$node->safe_psql('postgres', 'DELETE FROM quota_manager.quota_execute');
		$mock->fault(kind => 'status', status => 500, match => 'query', user => 'mute', count => 1000);
		$mock->fault(kind => 'status', status => 429, match => 'delta', user => 'mute', count => 1);
		grant($node, $gateway, 4, 'mute', map { "user$_" } 1 .. 30);
		ok(deliver_all($node, $gateway), "$dialect mute: it ends");
		is(statuses($node, $gateway), 'completed 31', "$dialect mute: all is delivered");
	};

	$node->safe_psql('postgres', 'DELETE FROM quota_manager.quota_execute');
	$mock->stop;
}

my ($dead, $live);
subtest 'a dead gateway does not hold up a live one' => sub {
	$dead = QuotaTest::Mock->start(dialect => 'higress');
	$live = QuotaTest::Mock->start(dialect => 'higress');
	add_gateway($node, 'dead', $dead, request_timeout => '2 s');
	add_gateway($node, 'live', $live);
	$dead->fault(kind => 'hang', match => 'any', count => 1000);
	grant($node, 'dead', 1, map { "user$_" } 1 .. 100);
	grant($node, 'live', 1, map { "user$_" } 1 .. 2000);
	deliver($node);
	is(statuses($node, 'live'), 'completed 2000', 'a live gateway beside a dead one');
	is(statuses($node, 'dead'), 'in_doubt 16, pending 84', 'the dead one has as many in doubt as connections');
	is( $node->safe_psql('postgres', q{
			SELECT max(d.update_time) < max(u.update_time)
			FROM quota_manager.quota_execute d, quota_manager.quota_execute u
			WHERE d.gateway = 'live' AND u.gateway = 'dead' AND u.status = 'in_doubt'}),
		't', 'the live one was done first');
	is( $node->safe_psql('postgres', q{
			SELECT gateway, state, pending, processing, oldest_pending IS NOT NULL
			FROM quota_manager.delivery_status WHERE gateway IN ('dead', 'live') ORDER BY 1}),
		"dead|closed|84|0|t\nlive|open|0|0|f", 'delivery_status tells');
};

$node->stop;
done_testing();
