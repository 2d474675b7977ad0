
# Grants are delivered over HTTP in both dialects, each once, and one user's
# grants one after the other.

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver statuses delivered_once);
use QuotaTest::Mock;
use Test::More;
use Time::HiRes qw(time);

my $node = delivery_node('delivery');
my $higress = QuotaTest::Mock->start(dialect => 'higress', key => 'key one');
my $zgsm = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key two');

add_gateway($node, 'h', $higress, is_default => 'true');
add_gateway($node, 'z', $zgsm);

is(deliver($node), '0|0|0|0', 'nothing to deliver');

subtest 'a batch and more, at both gateways, in runs of their own and in one' => sub {
	grant($node, 'h', 20, map { "user$_" } 1 .. 700);
	grant($node, 'z', 2.5, map { "user$_" } 1 .. 300);
	$node->safe_psql('postgres', q{
		UPDATE quota_manager.quota_execute SET gateway = 'z' WHERE gateway = 'h' AND user_id LIKE '%0'});
	is(deliver($node), '1000|0|0|0', 'deliver() counts what it delivered');
	is(statuses($node, 'h'), 'completed 630', 'higress: all completed');
	is(statuses($node, 'z'), 'completed 370', 'zgsm: all completed');
	is(delivered_once($node, 'h', $higress, 'higress'), 630, 'higress: the gateway counts the same');
	is(delivered_once($node, 'z', $zgsm, 'zgsm'), 370, 'zgsm: the gateway counts the same');
	is($zgsm->balance('user1'), 2.5, 'zgsm: the amount arrived');
	is($zgsm->balance('user10'), 22.5, 'zgsm: both amounts arrived');
	is($higress->balance('user1'), 20, 'higress: the amount arrived');
	# Connections race each other: the oldest is among the first that they carry.
	my @first = map { $_->{user} } grep { $_->{amount} == 2.5 } $zgsm->applied;
	ok(scalar(grep { $_ eq 'user1' } @first[ 0 .. 15 ]), 'the oldest grant goes first');
	cmp_ok($higress->stats->{connections}, '<=', 20, 'connections are kept alive');
	is( $node->safe_psql('postgres', 'SELECT count(*) FROM quota_manager.quota_run WHERE undelivered'),
		0, 'the runs are marked delivered');
	is( $node->safe_psql('postgres', q{
			SELECT DISTINCT claim_number, attempts, last_status, last_error IS NULL FROM quota_manager.quota_execute}),
		'1|0|200|t', 'each in one attempt');
	is(deliver($node), '0|0|0|0', 'nothing is sent again');
	is(scalar($higress->applied) + scalar($zgsm->applied), 1000, 'and the gateways saw nothing');
};

subtest 'amounts as the dialects write them' => sub {
	$higress->reset;
	$zgsm->reset;
	grant($node, 'h', '-7.000', 'taken');
	grant($node, 'h', '9223372036854775807', 'most');
	grant($node, 'z', '-0.000001', 'least');
	is(deliver($node), '3|0|0|0', 'amounts of unusual forms are delivered');
	is_deeply([ sort map { $_->{amount} } $higress->applied ], [ '-7', '9223372036854775807' ],
		'higress: whole numbers');
	like(($zgsm->applied)[0]{amount}, qr/^-0\.0*1$/, 'zgsm: six decimals');
};

my ($start, $elapsed);
subtest 'one user: never two requests at once, in order, also across batches' => sub {
	$higress->reset;
	$higress->fault(kind => 'slow', match => 'delta', user => 'busy', count => 1000, delay_ms => 30);
	grant($node, 'h', 1, ('busy') x 10, map { ("busy", "idle$_") } 1 .. 10);
	$start = time;
	is(deliver($node, 'SET quota_manager.claim_batch = 8;'), '30|0|0|0', 'one user with many grants');
	$elapsed = time - $start;
	cmp_ok($elapsed, '>=', 20 * 0.030, 'a user\'s grants follow each other');
	my @ids = map { $_->{idempotency_key} =~ /-(\d+)$/ ? $1 : die } grep { $_->{user} eq 'busy' } $higress->applied;
	is("@ids", join(' ', sort { $a <=> $b } @ids), 'in their order');
};
$higress->clear_faults;

subtest 'different users: many at once' => sub {
	$higress->reset;
	$higress->fault(kind => 'slow', match => 'delta', count => 1000, delay_ms => 100);
	grant($node, 'h', 1, map { "slow$_" } 1 .. 64);
	$start = time;
	is(deliver($node), '64|0|0|0', 'a slow gateway');
	$elapsed = time - $start;
	cmp_ok($elapsed, '<', 64 * 0.1 / 4, 'requests of different users run side by side');
};
$higress->clear_faults;

subtest q{a grant that cannot be delivered fails alone, with the gateway's words} => sub {
	$higress->reset;
	grant($node, 'h', 1, map { "before$_" } 1 .. 5);
	grant($node, 'h', 1.5, 'fraction');
	grant($node, 'h', 1, map { "after$_" } 1 .. 5);
	is(deliver($node), '10|1|0|0', 'an amount that does not fit fails alone');
	is( $node->safe_psql('postgres', q{
			SELECT status, last_error <> '' FROM quota_manager.quota_execute WHERE user_id = 'fraction'}),
		'failed|t', 'it says why');
};

subtest 'users nobody should have thought of' => sub {
	my $odd = 'a&b=c#d%20e+f?"g' . "''" . '/\\\\ü漢 ';
	$node->safe_psql('postgres', 'SELECT 1');
	$higress->reset;
	$zgsm->reset;
	grant($node, 'h', 3, $odd, 'plain');
	grant($node, 'z', 3, $odd, 'plain');
	is(deliver($node), '4|0|0|0', 'odd user ids are delivered');
	my $stored = $node->safe_psql('postgres', q{
		SELECT DISTINCT encode(convert_to(user_id, 'UTF8'), 'hex') FROM quota_manager.quota_execute WHERE user_id LIKE 'a&b%'});
	foreach my $mock ($higress, $zgsm)
	{
		my ($change) = grep { $_->{user} =~ /^a&b/ } $mock->applied;
		my $user = $change->{user};

		utf8::encode($user);
		is(unpack('H*', $user), $stored, "$mock->{dialect}: as they are");
	}
};

subtest 'what was granted by mistake to a gateway that does not exist waits' => sub {
	grant($node, 'nowhere', 1, 'lost');
	is(deliver($node), '0|0|0|0', 'a gateway that does not exist');
	is(statuses($node, 'nowhere'), 'pending 1', 'its grants wait');
	is( $node->safe_psql('postgres', 'SELECT count(*) FROM quota_manager.quota_run WHERE undelivered'),
		1, 'and their run stays undelivered');
};

my ($status, $out, $err);
subtest 'where it may be called' => sub {
	($status, $out, $err) = $node->psql('postgres', 'BEGIN; CALL quota_manager.deliver(); COMMIT');
	like($err, qr/deliver\(\) cannot run inside a transaction block or a function/, 'not in a transaction block');
	like($err, qr/HINT: .*CALL quota_manager\.deliver\(\) as a statement of its own/, 'with a hint');
	($status, $out, $err) = $node->psql('postgres', "SELECT 1\\; CALL quota_manager.deliver()");
	like($err, qr/cannot run inside a transaction block/, 'not in a string of several statements');
	$node->safe_psql('postgres', q{
		CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE 'CALL quota_manager.deliver()'; END$$});
	($status, $out, $err) = $node->psql('postgres', 'SELECT f()');
	like($err, qr/cannot run inside a transaction block or a function/, 'not in a function');
	is($node->safe_psql('postgres', q{
		SET default_transaction_isolation = 'serializable';
		SET search_path = '';
		CALL quota_manager.deliver()}), '0|0|0|0', 'whatever the session has set');
	grant($node, 'h', 1, 'unusual');
	is($node->safe_psql('postgres', q{
		SET default_transaction_isolation = 'repeatable read';
		SET search_path = pg_temp;
		SET statement_timeout = '1s';
		SET enable_indexscan = off;
		CALL quota_manager.deliver()}), '1|0|0|0', 'it also delivers then');

	foreach my $procedure ('deliver', 'tick')
	{
		($status, $out, $err) = $node->psql('postgres', "SET default_transaction_read_only = on; CALL quota_manager.$procedure()",
			extra_params => [ '-v', 'VERBOSITY=verbose' ]);
		like($err, qr/ERROR:  25006: $procedure\(\) cannot run where transactions are read-only/, "$procedure() where nothing may be written");
	}
};

# An operator may call it, and needs no right to see keys.
$node->safe_psql('postgres', q{
	CREATE ROLE operator;
	SELECT quota_manager.grant_access('operator', 'operator')});
grant($node, 'h', 1, 'by operator');
is($node->safe_psql('postgres', 'SET ROLE operator; CALL quota_manager.deliver()'), '1|0|0|0', 'by an operator');

# A standby does not send.
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
($status, $out, $err) = $standby->psql('postgres', 'CALL quota_manager.deliver()');
like($err, qr/deliver\(\) cannot run on a standby server/, 'not on a standby');
$standby->stop;

$node->stop;
done_testing();
