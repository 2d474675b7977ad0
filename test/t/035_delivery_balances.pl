
# Balances that conditions need are read before the scan: each once, many at a
# time, and what cannot be read holds nothing up.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway deliver statuses);
use QuotaTest::Mock;
use Test::More;
use Time::HiRes qw(time);

my $node = delivery_node('balances');
my $higress = QuotaTest::Mock->start(dialect => 'higress', key => 'one');
my $zgsm = QuotaTest::Mock->start(dialect => 'zgsm', key => 'two');

add_gateway($node, 'h', $higress, is_default => 'true', request_timeout => '300 ms');
add_gateway($node, 'z', $zgsm, request_timeout => '300 ms');
$node->safe_psql('postgres', q{
	INSERT INTO quota_manager.quota_model VALUES ('zm', 'z');
	INSERT INTO quota_manager.user_info (id) SELECT 'user' || n FROM generate_series(1, 400) n;
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)
		VALUES ('refill', 'single', 5, 'hm', 'or(quota-le("hm", 10), quota-le("zm", 2.5))')});
$higress->set_balance("user$_", quota => 100) foreach 1 .. 390;
$zgsm->set_balance("user$_", quota => 10, used => $_ <= 20 ? 8 : 1) foreach 1 .. 400;
# zgsm cannot answer for a user below zero
$zgsm->set_balance('user50', quota => -3);

sub tick
{
	return $node->safe_psql('postgres', 'CALL quota_manager.tick()');
}

# How many queries a gateway answered.
sub queries
{
	my ($mock) = @_;

	return $mock->requests('query')->{200} // 0;
}

$higress->fault(kind => 'slow', match => 'query', count => 100000, delay_ms => 5);
my $start = time;
is(tick(), '1|30', 'tick() reads balances and scans');
cmp_ok(time - $start, '<', 400 * 0.005, 'many balances are read at a time');
$higress->clear_faults;
is(queries($higress), 400, 'higress: each user was asked about once');
is( $node->safe_psql('postgres', q{
		SELECT gateway, count(*), min(balance), max(balance), bool_and(read_time > now() - interval '1 min')
		FROM quota_manager.user_balance GROUP BY 1 ORDER BY 1}),
	"h|400|0|100|t\nz|399|2|9|t", 'what was read is written down');
is( $node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.user_balance WHERE user_id = 'user50' AND gateway = 'z'}),
	0, 'what was not answered is not');

# A gateway that is down or hangs does not hold up the other for long.
foreach my $kind ('hang', 'status')
{
	$node->safe_psql('postgres', 'DELETE FROM quota_manager.user_balance');
	$zgsm->fault(kind => $kind, match => 'query', count => 100000);
	$start = time;
	tick();
	cmp_ok(time - $start, '<', 5, "$kind: a gateway that does not answer is given up soon");
	is( $node->safe_psql('postgres', 'SELECT gateway, count(*) FROM quota_manager.user_balance GROUP BY 1'),
		'h|370', "$kind: the other one is read, for those who have no grant yet");
	$zgsm->clear_faults;
}
$zgsm->stop;
$node->safe_psql('postgres', 'DELETE FROM quota_manager.user_balance');
tick();
is( $node->safe_psql('postgres', 'SELECT gateway, count(*) FROM quota_manager.user_balance GROUP BY 1'),
	'h|370', 'down: likewise');

$node->stop;
done_testing();
