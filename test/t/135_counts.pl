
# What is counted of grants equals what a scan of all of them finds, whatever has happened to them.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver deliver_all begin_call kill_call);
use QuotaTest::Mock;
use QuotaTest::Seed;
use QuotaTest::Wait qw(wait_until);
use Test::More;

my $node = delivery_node('counts', <<'CONF');
quota_manager.delete_proof = on
quota_manager.retry_base = 1ms
quota_manager.retry_max = 5ms
quota_manager.linger = 1ms
quota_manager.max_attempts = 3
restart_after_crash = on
CONF
my %mock = map { $_ => QuotaTest::Mock->start(dialect => $_ eq 'hold' ? 'higress' : 'zgsm', key => 'key') } qw(hold resend reconcile);
my @gateways = sort keys %mock;
my $user = 0;
QuotaTest::Seed::start(135);

$mock{resend}->honour_idempotency(1);
add_gateway($node, $_, $mock{$_}, doubt_policy => $_, sole_writer => 'true') foreach @gateways;
$node->safe_psql('postgres', q{
	INSERT INTO quota_manager.quota_model SELECT 'model-' || name, name FROM quota_manager.quota_gateway;
	INSERT INTO quota_manager.user_info (id, vip) SELECT 'member' || n, n % 10 FROM generate_series(1, 50) n});

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub counts_are_true
{
	my ($what, $database) = @_;

	is($node->safe_psql($database // 'postgres', 'SELECT * FROM quota_internal.check_counts()'), '', $what);
	return;
}

# Ids of some grants with a status.
sub some
{
	my ($status) = @_;

	return sql("SELECT coalesce(array_agg(id), '{}') FROM (SELECT id FROM quota_manager.quota_execute WHERE status = '$status' ORDER BY random() LIMIT 1 + 5 * random()) s");
}

my %step = (
	grant => sub { grant($node, $gateways[rand @gateways], 1 + int(rand 9), map { 'user' . $user++ } 1 .. 1 + rand 40) },
	scan => sub {
		my $vip = int rand 10;
		my $gateway = $gateways[rand @gateways];

		sql(qq{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)
				VALUES ('strategy' || (SELECT count(*) FROM quota_manager.quota_strategy), 'single', 2, 'model-$gateway', 'is-vip($vip)');
			SELECT count(*) FROM quota_manager.scan()});
	},
	deliver => sub { deliver($node) },
	clear => sub { $_->clear_faults foreach values %mock },
	lose => sub { $mock{ $gateways[rand @gateways] }->fault(kind => 'apply_close', match => 'delta', count => 1 + int(rand 4)) },
	drop => sub { $mock{ $gateways[rand @gateways] }->fault(kind => 'close', match => 'delta', count => 1 + int(rand 4)) },
	refuse => sub { my $mock = $mock{ $gateways[rand @gateways] }; $mock->fault($mock->own_refusal('no'), match => 'delta', count => 1 + int(rand 5)) },
	throttle => sub { $mock{ $gateways[rand @gateways] }->fault(kind => 'status', match => 'delta', count => 2, status => 429) },
	resolve => sub { sql("SELECT quota_manager.resolve('" . some('in_doubt') . "'::bigint[], " . (rand() < 0.5 ? 'true' : 'false') . ')') },
	retry => sub { sql("SELECT quota_manager.retry('" . some(rand() < 0.7 ? 'failed' : 'in_doubt') . "'::bigint[])") },
	cancel => sub { sql("SELECT quota_manager.cancel('" . some('pending') . "'::bigint[])") },
	rollback => sub { sql("BEGIN; SELECT quota_manager.retry('" . some('failed') . "'::bigint[]); SELECT quota_manager.cancel('" . some('pending') . "'::bigint[]); ROLLBACK") },
	remove => sub { sql("DELETE FROM quota_manager.quota_execute WHERE id = ANY ('" . some((qw(pending failed in_doubt completed))[rand 4]) . "')") },
	import => sub {
		my $gateway = $gateways[rand @gateways];

		sql(qq{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, enabled)
				VALUES ('imported' || (SELECT count(*) FROM quota_manager.quota_strategy), 'single', 2, 'model-$gateway', 'false()', false);
			SELECT * FROM quota_manager.import_grants('SELECT max(name), ''member1'', now() FROM quota_manager.quota_strategy WHERE NOT enabled')});
	});
my @steps = (sort(keys %step), ('deliver') x 6, ('grant') x 2);

for my $pass (1 .. 12)
{
	my @taken;

	foreach (1 .. 8)
	{
		my $name = $steps[rand @steps];

		push @taken, $name;
		$step{$name}->();
	}
	counts_are_true("pass $pass: @taken");
}
$step{clear}->();
ok(deliver_all($node, $_), "$_: all is delivered") foreach @gateways;
counts_are_true('and counted');
is(sql('SELECT sum(pending_grants), sum(processing_grants) FROM quota_manager.metrics'), '0|0', 'nothing waits');

my $call;
subtest 'a sender that is killed leaves grants that were claimed; the next one finds them' => sub {
	$mock{hold}->fault(kind => 'hang', match => 'delta', count => 4);
	grant($node, 'hold', 1, map { "late$_" } 1 .. 10);
	$call = begin_call($node, "SET application_name = 'victim'", 'CALL quota_manager.deliver()');
	wait_until($node, q{SELECT count(*) > 0 FROM quota_manager.quota_execute WHERE status = 'processing'});
	counts_are_true('while some are in flight');
	cmp_ok(sql(q{SELECT processing_grants FROM quota_manager.metrics WHERE gateway = 'hold'}), '>', 0, 'some are in flight');
	kill_call($node, $call, 'victim');
	$mock{hold}->clear_faults;
	counts_are_true('after the sender was killed');
	deliver($node);
	counts_are_true('and after the next one has come');
	cmp_ok(sql(q{SELECT in_doubt_grants FROM quota_manager.metrics WHERE gateway = 'hold'}), '>', 0, 'some are in doubt');
};

# Lists and counts are had without reading other grants.
is(sql(q{SELECT count(*) FROM quota_manager.troubled_grant t JOIN quota_manager.quota_execute e ON e.id = t.grant_id AND e.status = t.status}),
	sql(q{SELECT count(*) FROM quota_manager.quota_execute WHERE status IN ('failed', 'in_doubt')}), 'the list of those in trouble is whole');

my $dump;
subtest 'crash, dump and restore' => sub {
	$step{grant}->();
	$step{refuse}->();
	grant($node, 'resend', 1, map { "more$_" } 1 .. 10);
	$node->stop('immediate');
	$node->start;
	counts_are_true('after a crash');
	sql(q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('not yet run', 'single', 1, 'model-hold', 'true()')});
	$dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
	foreach my $jobs (1, 4)
	{
		my $copy = "copy$jobs";

		command_ok([ 'pg_dump', '-h', $node->host, '-p', $node->port, '-Fd', '-f', "$dump$jobs", 'postgres' ], 'pg_dump');
		sql("CREATE DATABASE $copy TEMPLATE template0");
		command_ok([ 'pg_restore', '-h', $node->host, '-p', $node->port, '-j', $jobs, '-d', $copy, "$dump$jobs" ], "pg_restore with $jobs jobs");
		counts_are_true("restored with $jobs jobs", $copy);
		# From a dump of a version that did not count.
		$node->safe_psql($copy, 'TRUNCATE quota_manager.troubled_grant, quota_manager.gateway_tally');
		isnt($node->safe_psql($copy, 'SELECT * FROM quota_internal.check_counts()'), '', 'a dump without counts is noticed');
		is($node->safe_psql($copy, 'SELECT copy_suspended FROM quota_manager.metrics WHERE gateway IS NULL'), 1, 'the copy is suspended');
		$node->safe_psql($copy, "SELECT * FROM quota_manager.resume('" . ($jobs == 1 ? 'may_have_run' : 'unchanged_since_dump') . "')");
		counts_are_true('resume() counts anew', $copy);
		is($node->safe_psql($copy, q{SELECT granted FROM quota_manager.scan('not yet run')}), 50, 'a scan');
		counts_are_true('what a scan grants in doubt is counted', $copy);
	}
	is($node->safe_psql('copy1', q{SELECT count(*) > 0 FROM quota_manager.quota_execute WHERE maybe_granted_before}), 't', 'some were granted in doubt');

	sql('TRUNCATE quota_manager.quota_execute');
	counts_are_true('after TRUNCATE');
};

$node->stop;
done_testing();
