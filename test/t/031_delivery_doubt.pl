
# What was sent and not answered is in doubt: a state of its own, that an
# operator ends with resolve().

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver statuses delivered_once);
use QuotaTest::Mock;
use Test::More;

my $node = delivery_node('doubt');

foreach my $dialect ('higress', 'zgsm')
{
	my $mock = QuotaTest::Mock->start(dialect => $dialect, key => 'key');
	my $gateway = "at-$dialect";
	my ($status, $out, $err);

	add_gateway($node, $gateway, $mock, request_timeout => '300 ms');

	subtest "$dialect: one that was applied, one that was not; on connections that were used before" => sub {
		grant($node, $gateway, 1, map { "warm$_" } 1 .. 20);
		is(deliver($node), '20|0|0|0', "$dialect: connections are warm");
		$mock->reset;
		foreach my $kind ('apply_close', 'close', 'apply_reset', 'reset', 'apply_hang', 'hang', 'apply_status', 'html')
		{
			$mock->reset;
			$mock->fault(kind => $kind, match => 'delta');
			grant($node, $gateway, 10, "$kind user");
			is(deliver($node), '0|0|1|0', "$dialect $kind: in doubt");
			# The fault strikes once: a second request would be applied.
			is(scalar($mock->applied), $kind =~ /apply/ ? 1 : 0, "$dialect $kind: sent once");
			is(deliver($node), '0|0|0|0', "$dialect $kind: stays in doubt");
		}
		is( $node->safe_psql('postgres', qq{
				SELECT count(*) FROM quota_manager.quota_execute
				WHERE gateway = '$gateway' AND status = 'in_doubt' AND last_error <> ''}),
			8, "$dialect: each says why");
		is( $node->safe_psql('postgres', qq{
				SELECT last_status FROM quota_manager.quota_execute
				WHERE gateway = '$gateway' AND user_id = 'apply_status user'}),
			'503', "$dialect: with the status, where there was one");
	};

	subtest "$dialect: an operator decides" => sub {
		my %id = map { split /\|/ } split /\n/, $node->safe_psql('postgres', qq{
			SELECT replace(user_id, ' user', ''), id FROM quota_manager.quota_execute
			WHERE gateway = '$gateway' AND status = 'in_doubt'});
		$mock->reset;
		$node->safe_psql('postgres', "SELECT quota_manager.resolve($id{apply_close}, true, 'seen in the balance')");
		is( $node->safe_psql('postgres', "SELECT status, last_error FROM quota_manager.quota_execute WHERE id = $id{apply_close}"),
			'completed|resolved as applied by ' . $node->safe_psql('postgres', 'SELECT session_user') . ': seen in the balance',
			"$dialect: resolved as applied");
		is(deliver($node), '0|0|0|0', "$dialect: what was applied is not sent");
		$node->safe_psql('postgres', "SELECT quota_manager.resolve($id{close}, false)");
		like($node->safe_psql('postgres', "SELECT status, last_error FROM quota_manager.quota_execute WHERE id = $id{close}"),
			qr/^pending\|resolved as not applied by \w+$/, "$dialect: resolved as not applied");
		is(deliver($node), '1|0|0|0', "$dialect: what was not applied is sent");
		is(join(',', map { $_->{user} } $mock->applied), 'close user', "$dialect: once");
		is( $node->safe_psql('postgres', "SELECT claim_number, last_error IS NULL FROM quota_manager.quota_execute WHERE id = $id{close}"),
			'2|t', "$dialect: in a second attempt");

		($status, $out, $err) = $node->psql('postgres', "SELECT quota_manager.resolve($id{close}, true)");
		like($err, qr/grant $id{close} is not in doubt/, "$dialect: what is not in doubt cannot be resolved");
		like($err, qr/DETAIL: .*It is completed\./, "$dialect: with its status");
	};

	my ($completed, $failed, $in_doubt, $deferred);
	subtest "$dialect: of a batch that is cut off, only what was sent is in doubt; the rest is sent when the gateway is back" => sub {
		$mock->reset;
		$mock->fault(kind => 'apply_close', match => 'delta', count => 3);
		grant($node, $gateway, 1, map { "batch$_" } 1 .. 200);
		($completed, $failed, $in_doubt, $deferred) = split /\|/, deliver($node);
		is($completed + $in_doubt, 200, "$dialect: nothing is lost");
		is($in_doubt, 3, "$dialect: what was cut off is in doubt");
		is(scalar($mock->applied), 200, "$dialect: nothing is sent twice");
	};

	# The same where a rate_limit delays the health checks as well.
	$mock->reset;
	$node->safe_psql('postgres', "UPDATE quota_manager.quota_gateway SET rate_limit = 9 WHERE name = '$gateway'");
	$mock->fault(kind => 'apply_close', match => 'delta');
	grant($node, $gateway, 1, map { "rated$_" } 1 .. 3);
	is(deliver($node), '2|0|1|0', "$dialect: what is due is delivered within a rate");
	$node->safe_psql('postgres', "UPDATE quota_manager.quota_gateway SET rate_limit = NULL WHERE name = '$gateway'");

	subtest "$dialect: a gateway that reads but cannot write does not eat the whole queue" => sub {
		$mock->reset;
		$mock->fault(kind => 'status', match => 'delta', count => 10000);
		grant($node, $gateway, 1, map { "unwritten$_" } 1 .. 500);
		($completed, $failed, $in_doubt, $deferred) = split /\|/, deliver($node);
		cmp_ok($in_doubt, '<=', 32, "$dialect: a gateway that cannot write puts few grants in doubt ($in_doubt)");
		is( $node->safe_psql('postgres', "SELECT state FROM quota_manager.quota_gateway WHERE name = '$gateway'"),
			'closed', "$dialect: and is closed");
	};
	$mock->clear_faults;
	$mock->stop;
}

my ($status, $out, $err) = $node->psql('postgres', 'SELECT quota_manager.resolve(999999999, true)');
like($err, qr/grant 999999999 does not exist/, 'a grant that does not exist');
($status, $out, $err) = $node->psql('postgres', 'SELECT quota_manager.resolve(1, NULL)');
like($err, qr/must be given/, 'a decision that is none');

$node->stop;
done_testing();
