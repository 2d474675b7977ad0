# What the server before a promotion may have done, and the promoted one does not
# know of, is neither done twice nor forgotten.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Wait qw(wait_until);
use QuotaTest::Workers;
use Test::More;

my $gateway = QuotaTest::Workers::gateway();
my $day = '2025-07-01';
my $not_completed = <<'SQL';
SELECT s.name || ' ' || coalesce(nullif(e.scheduled_time, '-infinity')::time::text || ' ', '') || e.user_id || ' ' || e.status || ' ' || e.next_attempt_time
FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
WHERE e.status <> 'completed' ORDER BY s.name, e.scheduled_time, e.user_id
SQL

# A primary whose workers have delivered what its strategies granted, and a standby.
my $primary = QuotaTest::Workers::cluster('primary',
	preload => 1,
	streaming => 1,
	settings => "quota_manager.schedule_clock = '$day 07:30:00+00'\ntimezone = 'UTC'");
QuotaTest::Workers::database($primary, 'postgres', $gateway);
QuotaTest::Workers::users($primary, 'postgres', 2);
QuotaTest::Workers::strategy($primary, 'postgres', name => 'early', amount => 100);
QuotaTest::Workers::strategy($primary, 'postgres', name => 'hourly', amount => 1, type => 'periodic', periodic_expr => '0 * * * *');
QuotaTest::Workers::await_grants($primary, 'postgres', 'early', 2);
my $standby = standby_of($primary, 'standby');

# The last that the standby hears: two grants of which one is in flight, and a new user, who is not to wait until
# scan_interval is over.
workers_off($primary);
QuotaTest::Workers::strategy($primary, 'postgres', name => 'late', amount => 20);
$primary->safe_psql('postgres', q{
	SELECT quota_manager.scan('late');
	UPDATE quota_manager.quota_execute SET status = 'processing', claim_number = 1 WHERE status = 'pending' AND user_id = 'user2';
	INSERT INTO quota_manager.user_info (id) VALUES ('user3');
	SELECT quota_internal.end_back_offs()});
$primary->wait_for_catchup($standby);
$standby->stop;

# What it does not hear: all of that is paid, and a firing.
$primary->safe_psql('postgres', q{UPDATE quota_manager.quota_execute SET status = 'pending' WHERE status = 'processing'});
QuotaTest::Workers::set($primary, 'quota_manager.schedule_clock', "$day 08:00:00+00");
QuotaTest::Workers::set($primary, 'quota_manager.workers', 'on');
QuotaTest::Workers::await_grants($primary, 'postgres', $_, 3) foreach qw(early late hourly);
is(paid(), 'user1: 1 20 100, user2: 1 20 100, user3: 1 20 100', 'the primary has paid everybody');
$primary->stop('fast');

subtest 'hold, which is the default' => sub {
	$standby->append_conf('postgresql.conf', "quota_manager.schedule_clock = '$day 08:00:30+00'");
	$standby->start;
	is($standby->safe_psql('postgres', 'SELECT pending, processing, present_identity FROM quota_manager.resume()') =~ /^1\|1\|.*timeline none \(a standby\)$/,
		1, 'a standby can be looked at');
	$standby->promote;
	QuotaTest::Workers::await($standby, 'postgres', q{SELECT count(*) = 7 FROM quota_manager.quota_execute WHERE status = 'in_doubt'});
	is($standby->safe_psql('postgres', $not_completed), <<'OUT' =~ s/\n\z//r, 'hold: what waited is in doubt, and so is what the primary may have granted');
early user3 in_doubt infinity
hourly 08:00:00 user1 in_doubt infinity
hourly 08:00:00 user2 in_doubt infinity
hourly 08:00:00 user3 in_doubt infinity
late user1 in_doubt infinity
late user2 in_doubt infinity
late user3 in_doubt infinity
OUT
	is($standby->safe_psql('postgres', 'SELECT timeline FROM quota_manager.quota_installation'), 2, 'hold: the new timeline is known');
	is(QuotaTest::Workers::log_count($standby,
			qr/LOG:  this server was promoted since it last delivered \(timeline 1 to 2\): 1 pending and 1 processing grants are in doubt/),
		1, 'hold: the log tells, once');
	QuotaTest::Workers::await_worker($standby, 'postgres', $_) foreach qw(scheduler courier);
};

subtest 'life goes on' => sub {
	$standby->safe_psql('postgres', q{INSERT INTO quota_manager.user_info (id) VALUES ('user4')});
	QuotaTest::Workers::set($standby, 'quota_manager.schedule_clock', "$day 09:00:00+00");
	QuotaTest::Workers::await_grants($standby, 'postgres', 'hourly', 4);
	QuotaTest::Workers::await_grants($standby, 'postgres', 'late', 1);
	QuotaTest::Workers::await_grants($standby, 'postgres', 'early', 3);
	is(paid(), 'user1: 1 1 20 100, user2: 1 1 20 100, user3: 1 1 20 100, user4: 1 20 100', 'hold: nobody was paid twice, and who is new is paid');
	$standby->restart;
	QuotaTest::Workers::await_worker($standby, 'postgres', $_) foreach qw(scheduler courier);
	$standby->safe_psql('postgres', 'CALL quota_manager.deliver()');
	is(QuotaTest::Workers::log_count($standby, qr/this server was promoted/), 1, 'hold: a restart is no promotion');
};

my $successor;
subtest 'continue, for synchronous replication: what waits is sent' => sub {
	$successor = standby_of($standby, 'successor', "quota_manager.after_promotion = 'continue'");
	workers_off($standby);
	QuotaTest::Workers::strategy($standby, 'postgres', name => 'next', amount => 300);
	$standby->safe_psql('postgres', q{
		SELECT quota_manager.scan('next');
		UPDATE quota_manager.quota_execute SET status = 'processing', claim_number = 1 WHERE status = 'pending' AND user_id = 'user4'});
	$standby->wait_for_catchup($successor);
	$standby->stop('fast');
	# ALTER SYSTEM, which the backup has, goes before the configuration file.
	$successor->append_conf('postgresql.auto.conf', "quota_manager.schedule_clock = '$day 10:00:00+00'");
	$successor->restart;
	$successor->promote;
	QuotaTest::Workers::await_grants($successor, 'postgres', 'next', 3);
	QuotaTest::Workers::await_grants($successor, 'postgres', 'hourly', 8);
	is(paid(), 'user1: 1 1 1 20 100 300, user2: 1 1 1 20 100 300, user3: 1 1 1 20 100 300, user4: 1 1 20 100', 'continue: what waited is sent, and what is due is run');
	is($successor->safe_psql('postgres', q{SELECT user_id, status, last_error FROM quota_manager.quota_execute
			WHERE amount = 300 AND status <> 'completed'}),
		'user4|in_doubt|the sender ended before the answer was recorded', 'continue: what was in flight is in doubt as after any crash');
	is($successor->safe_psql('postgres', 'SELECT timeline FROM quota_manager.quota_installation'), 3, 'continue: the new timeline is known');
	is(QuotaTest::Workers::log_count($successor, qr/LOG:  this server was promoted since it last delivered \(timeline 2 to 3\): it goes on/),
		1, 'continue: the log tells, once');
};

# A base backup that is recovered is on a timeline of its own.  One that is just started is not: it cannot be told
# from the server that it was taken of.
workers_off($successor);
QuotaTest::Workers::strategy($successor, 'postgres', name => 'last', amount => 4000);
$successor->safe_psql('postgres', q{SELECT quota_manager.scan('last')});
$successor->backup('last');
$successor->stop('fast');
foreach my $recovered (1, 0)
{
	my $copy = PostgreSQL::Test::Cluster->new($recovered ? 'recovered' : 'started');

	$copy->init_from_backup($successor, 'last');
	$copy->append_conf('postgresql.conf', "quota_manager.workers = off\nquota_manager.after_promotion = hold\nrestore_command = 'false'");
	append_to_file($copy->data_dir . '/recovery.signal', '') if $recovered;
	$copy->start;
	wait_until($copy, 'SELECT NOT pg_is_in_recovery()');
	is($copy->safe_psql('postgres', q{SELECT timeline FROM quota_internal.present_identity()}), $recovered ? 4 : 3,
		$recovered ? 'a backup that is recovered has a new timeline' : 'a backup that is just started has the old one');
	is($copy->safe_psql('postgres', 'CALL quota_manager.deliver()'), $recovered ? '0|0|0|0' : '4|0|0|0',
		$recovered ? 'and what waited is in doubt' : 'and sends what waited');
	$copy->stop;
}

done_testing();

# A running standby; settings: lines of configuration.
sub standby_of
{
	my ($node, $name, $settings) = @_;
	my $follower = PostgreSQL::Test::Cluster->new($name);

	$node->backup($name);
	$follower->init_from_backup($node, $name, has_streaming => 1);
	$follower->append_conf('postgresql.conf', $settings) if $settings;
	$follower->start;
	return $follower;
}

# Ends the workers of a server, but not those of its standbys.
sub workers_off
{
	my ($node) = @_;

	QuotaTest::Workers::set($node, 'quota_manager.workers', 'off');
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 0 FROM quota_manager.worker_status WHERE kind <> 'launcher' AND pid IS NOT NULL});
	return;
}

# What each user was paid at the gateway.
sub paid
{
	my %paid;

	push @{ $paid{ $_->{user} } }, $_->{amount} foreach $gateway->applied;
	return join ', ', map { "$_: " . join(' ', sort { $a <=> $b } @{ $paid{$_} }) } sort keys %paid;
}
