# A gateway that is edited is read at as it is now, also while balances are being read at another one all the time.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(add_gateway);
use QuotaTest::Mock;
use QuotaTest::Workers;
use Test::More;

my $node = QuotaTest::Workers::cluster('reader_edits', preload => 1, settings => '');
my $hanging = QuotaTest::Mock->start(dialect => 'higress', key => 'key');
my $edited = QuotaTest::Mock->start(dialect => 'higress', key => 'right');

$hanging->fault(kind => 'hang', match => 'query', count => 0);
$node->safe_psql('postgres', q{
	CREATE EXTENSION quota_manager;
	SELECT quota_manager.grant_access('quota_worker', 'worker')});
add_gateway($node, 'hanging', $hanging, request_timeout => '10 min', is_default => 'true');
add_gateway($node, 'edited', $edited);
$node->safe_psql('postgres', q{
	INSERT INTO quota_manager.quota_model VALUES ('m', 'edited');
	UPDATE quota_manager.quota_credential SET secret = 'wrong' WHERE name = 'edited'});
QuotaTest::Workers::users($node, 'postgres', 3);
QuotaTest::Workers::strategy($node, 'postgres', name => 'stuck', model => 'other', condition => 'quota-le("other", 10)');
QuotaTest::Workers::await($node, 'postgres',
	q{SELECT count(*) = 1 FROM quota_manager.worker_status WHERE kind = 'scheduler' AND activity LIKE 'reading balances: % at gateway hanging%'});
QuotaTest::Workers::strategy($node, 'postgres', name => 'refill', model => 'm', condition => 'quota-le("m", 10)');
QuotaTest::Workers::await($node, 'postgres',
	q{SELECT count(*) = 1 FROM quota_manager.strategy_due WHERE name = 'refill' AND state = 'waiting' AND tries >= 2});

subtest 'the key is no column of the gateway: its edit is seen by its row being read again' => sub {
	$node->safe_psql('postgres', q{
		UPDATE quota_manager.quota_credential SET secret = 'right' WHERE name = 'edited';
		SELECT quota_internal.end_back_offs()});
	QuotaTest::Workers::await($node, 'postgres', q{SELECT granted = 3 FROM quota_manager.quota_run r
		JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name = 'refill' ORDER BY r.id DESC LIMIT 1});
	pass('the other one is read with the key that it has now');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.worker_status
		WHERE kind = 'scheduler' AND activity LIKE '%at gateway hanging%'}), '1', 'while the first one still hangs');
};

$_->stop foreach $hanging, $edited;
$node->stop;
done_testing();
