
# A gateway that lost its data, or keeps it elsewhere, answers 0 for everybody:
# nobody is refilled until an operator says that it is right.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway deliver log_part);
use QuotaTest::Mock;
use Test::More;

my $node = delivery_node('balance_guard', <<'CONF');
shared_preload_libraries = 'quota_manager'
quota_manager.workers = off
CONF
my $clock = 0;

sub sql { return $node->safe_psql('postgres', join '; ', @_); }

# A minute later; readings are as much older as they would be.
sub tick
{
	$clock++;
	return sql(
		'SELECT quota_internal.end_back_offs()',
		sprintf(q{SET quota_manager.schedule_clock = '2025-07-01 08:%02d:00+00'}, $clock),
		q{UPDATE quota_manager.user_balance SET read_time = read_time - interval '10 min' WHERE isfinite(read_time)},
		'CALL quota_manager.tick()') =~ s/^\d+\n//r;
}

# Once more at the same time.
sub tick_again
{
	return sql('SELECT quota_internal.end_back_offs()', sprintf(q{SET quota_manager.schedule_clock = '2025-07-01 08:%02d:00+00'}, $clock),
		'CALL quota_manager.tick()') =~ s/^\d+\n//r;
}

# State, granted, unknown and reason of the last run.
sub last_run
{
	return sql(q{SELECT concat_ws(' ', state, granted, unknown_balance, reason) FROM quota_manager.quota_run
		WHERE state <> 'skipped' ORDER BY scheduled_time DESC LIMIT 1});
}

foreach my $dialect ('higress', 'zgsm')
{
	my $mock = QuotaTest::Mock->start(dialect => $dialect, key => 'key');
	my $balances = sub {
		my ($users) = @_;
		my %times;

		$times{ $mock->balance("user$_") }++ foreach 1 .. $users;
		return join ', ', map { "$_ x $times{$_}" } sort { $a <=> $b } keys %times;
	};
	# Starts over with users who have 30 each, read once.
	my $start_over = sub {
		my ($users) = @_;

		$clock = 0;
		sql('TRUNCATE quota_manager.quota_execute, quota_manager.quota_run, quota_manager.user_balance, quota_manager.user_info',
			'DELETE FROM quota_manager.quota_strategy',
			"INSERT INTO quota_manager.user_info (id) SELECT 'user' || n FROM generate_series(1, $users) n",
			q{SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00'},
			q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, periodic_expr)
				VALUES ('low', 'periodic', 25, 'm', 'quota-le("m", 10)', '* * * * *')});
		$mock->reset;
		$mock->set_balance("user$_", quota => 30) foreach 1 .. $users;
		tick();
		is(last_run(), 'done 0 0', "$dialect: $users users have enough");
	};
	my $reason = qq{balances of gateway "$dialect" are suspended: 30 of 30 users read 0 at once; see release_balances};
	my $log = -s $node->logfile;

	sql('DELETE FROM quota_manager.quota_gateway');
	add_gateway($node, $dialect, $mock, is_default => 'true');

	$start_over->(30);
	$mock->reset;
	tick();
	deliver($node);
	is($balances->(30), '0 x 30', "$dialect: everything is lost: nobody is granted anything");
	is(last_run(), "incomplete 0 30 some balances are not known; $reason", "$dialect: the run says why");
	is(sql('SELECT balances_reason FROM quota_manager.delivery_status'), $reason, "$dialect: delivery_status, too");
	tick();
	deliver($node);
	is($balances->(30), '0 x 30', "$dialect: nor are they later");
	is(() = log_part($node, $log) =~ /WARNING:  balances of gateway/g, 1, "$dialect: the log says it once");
	sql(q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('gift', 'single', 1, 'm', 'match-user("user1")')});
	tick_again();
	deliver($node);
	is($mock->balance('user1'), 1, "$dialect: other grants go on");

	sql("SELECT quota_manager.release_balances('$dialect', 'a test')");
	like(log_part($node, $log), qr/LOG:  balances of gateway "$dialect" were released by \S+: a test/, "$dialect: who released them is logged");
	tick_again() foreach 1 .. 2;
	deliver($node);
	is($balances->(30), '25 x 29, 26 x 1', "$dialect: released: all are granted");

	$start_over->(30);
	$mock->set_balance('user7', quota => 0);
	tick();
	deliver($node);
	is($balances->(30), '25 x 1, 30 x 29', "$dialect: one user who used everything is refilled");

	$start_over->(9);
	$mock->reset;
	tick();
	deliver($node);
	is($balances->(9), '25 x 9', "$dialect: of fewer than ten users all are");
	$mock->stop;
}

$node->stop;
done_testing();
