
# audit_balances: a gateway that lost its data, or gained some, is noticed, and
# nothing else is.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver deliver_all statuses begin_call end_call);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_for);
use Test::More;
use Time::HiRes qw(time);

my $node = delivery_node('audit');
my $columns = 'user_id, balance, granted_least, granted_most, difference, finding';

# What an audit lists, and what it says beside.
sub audit
{
	my ($gateway, $settings) = @_;
	my ($status, $out, $err) = $node->psql('postgres', ($settings // '') . qq{ SELECT $columns FROM quota_manager.audit_balances('$gateway')},
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	return ($out, $err);
}

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

foreach my $dialect ('higress', 'zgsm')
{
	my $mock = QuotaTest::Mock->start(dialect => $dialect, key => 'key');
	my $gateway = "g-$dialect";
	my ($out, $err);

	add_gateway($node, $gateway, $mock, max_connections => 4, request_timeout => '300 ms');
	($out, $err) = audit($gateway);
	like($err, qr/ERROR:  55000: balances at gateway "$gateway" cannot be audited/, "$dialect: refused where others write too");
	sql("UPDATE quota_manager.quota_gateway SET sole_writer = true WHERE name = '$gateway'");
	($out, $err) = audit($gateway);
	is($out, '', "$dialect: nobody was granted anything");
	like($err, qr/NOTICE:  .*: 0 users were answered for, 0 differ/, "$dialect: it says so");

	my $before;
	subtest "$dialect: more users than a batch, more than fits into work_mem, two grants each" => sub {
		foreach my $amount (25, 0 + ($dialect eq 'zgsm' ? '0.1' : 7))
		{
			grant($node, $gateway, $amount, map { "user$_" } 1 .. 1300);
			ok(deliver_all($node, $gateway), "$dialect: delivered");
		}
		$before = $mock->requests('query')->{200} // 0;
		my $rows = sql('SELECT count(*), max(id) FROM quota_manager.gateway_call');
		($out, $err) = audit($gateway, q{SET work_mem = '64kB'; BEGIN READ ONLY;});
		is($out, '', "$dialect: all is as it was granted");
		like($err, qr/NOTICE:  .*: 1300 users were answered for, 0 differ/, "$dialect: it says so");
		is(($mock->requests('query')->{200} // 0) - $before, 1300, "$dialect: a query each");
		is(sql('SELECT count(*), max(id) FROM quota_manager.gateway_call'), $rows, "$dialect: and nothing is written");
	};

	my ($sum, $more);
	subtest "$dialect: what others wrote, and what is missing" => sub {
		$sum = $dialect eq 'zgsm' ? 25.1 : 32;
		$more = $sum + 1;
		$mock->set_balance('user7', quota => $more);
		is((audit($gateway))[0], "user7|$more|$sum|$sum|1|more than was granted", "$dialect: who has more is listed");
		$mock->set_balance('user7', quota => 20);
		my $missing = 20 - $sum;
		($out, $err) = audit($gateway);
		if ($dialect eq 'zgsm')
		{
			is($out, "user7|20|$sum|$sum|$missing|less than was granted", 'zgsm: who has less is listed');
			unlike($err, qr/HINT/, 'zgsm: nothing is left unsaid');
			$mock->set_balance('user7', quota => $sum, used => 24);
			is((audit($gateway))[0], '', 'zgsm: what was used does not matter');
			$mock->set_balance('user7', quota => '25.100001');
			is((audit($gateway))[0], '', 'zgsm: nor does the last decimal');
			$mock->set_balance('user7', quota => '25.099998');
			is((audit($gateway))[0], 'user7|25.099998|25.1|25.1|-0.000002|less than was granted', 'zgsm: the last but one does');
			$mock->set_balance('user7', quota => -4);
			is((audit($gateway))[0], 'user7|-0.000001|25.1|25.1||below zero, less than was granted', 'zgsm: a total below zero');
		}
		else
		{
			is($out, '', 'higress: who has less may have used it');
			like($err, qr/HINT:  Less than was granted may have been used: only more can be told/, 'higress: which is said');
			sql("UPDATE quota_manager.quota_gateway SET max_usage_rate = 0 WHERE name = '$gateway'");
			is((audit($gateway))[0], "user7|20|32|32|$missing|less than was granted and can have been used since", 'higress: where usage is bounded it is known');
			sql("UPDATE quota_manager.quota_gateway SET max_usage_rate = 100 WHERE name = '$gateway'");
			is((audit($gateway))[0], '', 'higress: unless it can have been used');
			sql("UPDATE quota_manager.quota_gateway SET max_usage_rate = 0 WHERE name = '$gateway'");
		}
		$mock->set_balance('user7', quota => $sum, used => 0);
	};

	subtest "$dialect: what is open may have been applied or not, what was refused has not" => sub {
		$mock->fault(kind => 'apply_close', match => 'grant', user => 'user1');
		$mock->fault(kind => 'close', match => 'grant', user => 'user2');
		$mock->fault($mock->own_refusal('no'), match => 'grant', user => 'user3');
		grant($node, $gateway, 10, 'user1', 'user2', 'user3', 'user4');
		ok(deliver_all($node, $gateway), "$dialect: two are in doubt");
		is(sql("SELECT string_agg(status, ' ' ORDER BY user_id) FROM quota_manager.quota_execute WHERE amount = 10 AND gateway = '$gateway'"),
			'in_doubt in_doubt failed completed', "$dialect: as the table says");
		is((audit($gateway))[0], '', "$dialect: either is right");
		$mock->set_balance('user1', quota => $sum + 11);
		my ($high, $most) = ($sum + 11, $sum + 10);
		is((audit($gateway))[0], "user1|$high|$sum|$most|1|more than was granted", "$dialect: beyond both is not");
		$mock->set_balance('user1', quota => $most);
	};

	subtest "$dialect: changes by hand count" => sub {
		sql(qq{SELECT quota_manager.gateway_delta('user5', -3, 'by hand', '$gateway');
			SELECT quota_manager.gateway_delta('stranger', 4, 'by hand', '$gateway');
			SELECT quota_manager.gateway_refresh('user6', 500, '$gateway')});
		is((audit($gateway))[0], '', "$dialect: changes by hand are known");
		sql(qq{UPDATE quota_manager.gateway_call SET call_time = call_time - interval '30 min' WHERE action = 'refresh';
			UPDATE quota_manager.quota_execute SET create_time = create_time - interval '1 hour', update_time = update_time - interval '1 hour'
				WHERE user_id = 'user6'});
		$mock->set_balance('user6', quota => 499) if $dialect eq 'zgsm';
		$mock->set_balance('user6', quota => 501) if $dialect eq 'higress';
		is((audit($gateway))[0], $dialect eq 'zgsm' ? 'user6|499|500|500|-1|less than was granted' : 'user6|501|500|500|1|more than was granted',
			"$dialect: what was granted before a refresh is gone");
		grant($node, $gateway, 2, 'user6');
		ok(deliver_all($node, $gateway), "$dialect: one more");
		$mock->set_balance('user6', quota => 502);
		is((audit($gateway))[0], '', "$dialect: what is granted after it is added");
		sql("BEGIN; SELECT quota_manager.gateway_delta('user8', 1, 'regretted', '$gateway'); ROLLBACK");
		is((audit($gateway))[0], "user8|$more|$sum|$sum|1|more than was granted", "$dialect: what was rolled back here shows");
		$mock->set_balance('user8', quota => $sum);
	};

	my $call;
	subtest "$dialect: deliveries go on meanwhile: nobody is listed for that" => sub {
		$mock->fault(kind => 'slow', match => 'query', count => 1500, delay_ms => 2);
		$call = begin_call($node, "SELECT $columns FROM quota_manager.audit_balances('$gateway')");
		$before = $mock->requests('query')->{200} // 0;
		wait_for('20 queries', sub { ($_ = ($mock->requests('query')->{200} // 0) - $before) >= 20 });
		grant($node, $gateway, 1000, map { "user$_" } 1 .. 1300);
		ok(deliver_all($node, $gateway), "$dialect: delivered meanwhile");
		($out, $err) = end_call($call);
		is($out, '', "$dialect: what is granted meanwhile is no difference");
	};
	$mock->clear_faults;

	# Somebody for whom there is no answer, and a pause.
	$mock->fault(kind => 'status', status => 500, match => 'query', user => 'user9', count => 0, body => 'broken');
	$mock->fault(kind => 'status', status => 429, match => 'query', user => 'user10', retry_after => 1);
	my $hundred = $sum + 1000;
	is((audit($gateway))[0], "user9||$hundred|$hundred||cannot be read: HTTP 500 (" . ($dialect eq 'zgsm' ? 'application/json' : 'text/plain') . ')', "$dialect: who cannot be read is listed, who is to wait is not");
	$mock->clear_faults;

	# It can be cancelled while the gateway hangs.
	$mock->fault(kind => 'hang', match => 'query', count => 0);
	sql("UPDATE quota_manager.quota_gateway SET request_timeout = '1 min' WHERE name = '$gateway'");
	($out, $err) = audit($gateway, 'SET statement_timeout = 300;');
	like($err, qr/ERROR:  57014: canceling statement due to statement timeout/, "$dialect: it can be cancelled while the gateway hangs");
	$mock->clear_faults;
	sql("UPDATE quota_manager.quota_gateway SET request_timeout = '300 ms' WHERE name = '$gateway'");

	subtest "$dialect: all that the gateway knew is gone" => sub {
		$mock->reset;
		($out, $err) = audit($gateway);
		is(scalar(() = $out =~ /^user\d+\|0\|.*\|less than was granted/mg), 1300, "$dialect: a gateway that lost its data is noticed");
		like($err, qr/WARNING:  01000: gateway "$gateway" says 0 of all 1301 users to whom something was granted/, "$dialect: and it is said");
		sql("UPDATE quota_manager.quota_gateway SET max_usage_rate = NULL WHERE name = '$gateway'");
		($out, $err) = audit($gateway);
		is($out, '', 'higress: where anything can have been used nothing is proven') if $dialect eq 'higress';
		like($err, qr/WARNING:  01000: gateway "$gateway" says 0 of all/, "$dialect: it is said all the same");
	};

	subtest "$dialect: as many at once, and a second, as the gateway wants" => sub {
		sql("DELETE FROM quota_manager.quota_execute WHERE user_id NOT IN ('user1', 'user2', 'user3', 'user4', 'user5', 'user6');
			UPDATE quota_manager.quota_gateway SET rate_limit = 20 WHERE name = '$gateway'");
		my $started = time;
		audit($gateway);
		cmp_ok(time - $started, '>=', 6 / 20, "$dialect: rate_limit is kept to");

		$mock->stop;
		($out, $err) = audit($gateway);
		like($err, qr/ERROR:  08006: gateway "$gateway" does not answer: Failed to connect/, "$dialect: a gateway that is down is an error");
		sql(qq{DELETE FROM quota_manager.quota_execute; DELETE FROM quota_manager.quota_gateway});
	};
}

# Who may.
foreach my $access ('viewer', 'operator', 'admin', 'worker')
{
	sql("CREATE ROLE $access; SELECT quota_manager.grant_access('$access', '$access')");
	my ($out, $err) = audit('none', "SET ROLE $access;");
	like($err, $access =~ /operator|admin/ ? qr/ERROR:  42704: gateway "none" does not exist/ : qr/ERROR:  42501: permission denied for function audit_balances/,
		"$access: " . ($access =~ /operator|admin/ ? 'may' : 'may not'));
}

my ($mock, $standby);
subtest 'on a standby too, where it keeps nothing from being cleaned up' => sub {
	$mock = QuotaTest::Mock->start(dialect => 'zgsm');
	add_gateway($node, 'seen', $mock, is_default => 'true', sole_writer => 'true');
	grant($node, 'seen', 5, map { "user$_" } 1 .. 20);
	ok(deliver_all($node, 'seen'), 'standby: delivered');
	$mock->set_balance('user3', quota => 1);
	$node->backup('copy');
	$standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($node, 'copy', has_streaming => 1);
	$standby->start;
	$node->wait_for_catchup($standby);
	is($standby->safe_psql('postgres', "SELECT $columns FROM quota_manager.audit_balances()"), 'user3|1|5|5|-4|less than was granted', 'standby: it says the same');
};
$standby->stop;

# Nobody sees less than there is without being told.
sql(q{ALTER TABLE quota_manager.quota_execute ENABLE ROW LEVEL SECURITY;
	CREATE POLICY part ON quota_manager.quota_execute FOR SELECT TO operator USING (user_id <> 'user3')});
my ($out, $err) = audit('seen', 'SET ROLE operator;');
like($err, qr/ERROR:  42501: query would be affected by row-level security policy/, 'who may not see all grants is told so');

done_testing();
