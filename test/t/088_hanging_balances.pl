# Strategies with a firing each second beside some that ask a gateway for balances which hangs: no firing of the others is
# lost, or later than two seconds; and people see which gateway hangs.
#
# QUOTA_MANAGER_HANGING: how many strategies in all, of which one in twenty asks (60; 200 in long runs, which want a machine
# that does nothing else). A machine that is too slow for so many is asked for less. Each firing is a transaction of its own, of 2 to 4 ms.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(add_gateway);
use QuotaTest::Mock;
use QuotaTest::Workers;
use Test::More;

my $all = $ENV{QUOTA_MANAGER_HANGING} // ($ENV{QUOTA_MANAGER_LONG} ? 200 : 60);
my $asking = $all / 20;
my $plain = $all - $asking;
my $seconds = $ENV{QUOTA_MANAGER_LONG} ? 60 : 12;
my $node = QuotaTest::Workers::cluster('hanging_balances', preload => 1, settings => "log_statement = none\n");
my $hanging = QuotaTest::Mock->start(dialect => 'higress', key => 'key');
my $answering = QuotaTest::Mock->start(dialect => 'higress', key => 'key');

$hanging->fault(kind => 'hang', match => 'query', count => 0);
$node->safe_psql('postgres', q{
	CREATE EXTENSION quota_manager;
	SELECT quota_manager.grant_access('quota_worker', 'worker')});
add_gateway($node, 'hanging', $hanging, request_timeout => '1 min');
add_gateway($node, 'answering', $answering, is_default => 'true');
$node->safe_psql('postgres', q{INSERT INTO quota_manager.quota_model VALUES ('stuck', 'hanging')});
QuotaTest::Workers::users($node, 'postgres', 50);

subtest 'those that ask come first, as if to be in the way' => sub {
	$node->safe_psql('postgres', qq{
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, periodic_expr, catch_up)
		SELECT 'asking' || n, 'periodic', 1, 'stuck', 'quota-le("stuck", 10)', '* * * * * *', 'latest' FROM generate_series(1, $asking) n;
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, periodic_expr, catch_up)
		SELECT 'plain' || n, 'periodic', 1, 'm', 'match-user("nobody")', '* * * * * *', 'all' FROM generate_series(1, $plain) n});
	my $runs = q{quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name ~ 'plain' AND s.enabled};
	my ($expected, $done, $other, $latest);
	# A machine without room for so many firings is late with any of them, and gets fewer; a gateway that hangs would hold
	# up a few as well.
	foreach my $try (1 .. 4)
	{
		if ($try > 1)
		{
			diag "$done of $expected in time, $latest s late at most; half as many strategies are left";
			$plain = int($plain / 2);
			$node->safe_psql('postgres', "UPDATE quota_manager.quota_strategy SET enabled = false WHERE name ~ 'plain' AND enabled AND substr(name, 6)::int > $plain");
		}
		my $since = $node->safe_psql('postgres', 'SELECT clock_timestamp()');

		QuotaTest::Workers::await($node, 'postgres', "SELECT count(DISTINCT r.scheduled_time) > $seconds FROM $runs AND r.scheduled_time > '$since'");
		like($node->safe_psql('postgres', q{SELECT state || ': ' || activity FROM quota_manager.worker_status WHERE kind = 'scheduler'}),
			qr/^active: .*(at gateway hanging|gateway hanging has not answered since)|^active: running/, 'it is shown what hangs');
		($expected, $done, $other, $latest) = split /\|/, $node->safe_psql('postgres', qq{
			WITH w AS (SELECT min(r.scheduled_time) + interval '1 s' AS low, max(r.scheduled_time) - interval '3 s' AS high FROM $runs AND r.scheduled_time > '$since')
			SELECT $plain * (extract(epoch FROM w.high - w.low)::int + 1), count(*) FILTER (WHERE r.state = 'done'), count(*) FILTER (WHERE r.state <> 'done'),
				extract(epoch FROM max(r.start_time - r.scheduled_time))
			FROM w, $runs AND r.scheduled_time BETWEEN w.low AND w.high GROUP BY 1});
		last if $done == $expected && $latest <= 2;
	}
	is("$done $other", "$expected 0", "no firing of $plain strategies is lost in $seconds s");
	cmp_ok($latest, '<=', 2, 'nor late');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_execute}), '0', 'nobody is granted what depends on an unknown balance');
};

# Of strategies that will not run no balance is read.
my $before = $answering->requests('query');
$node->safe_psql('postgres', q{
	UPDATE quota_manager.quota_strategy SET enabled = false;
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, periodic_expr, enabled, archived, valid_from, valid_until)
	SELECT k.name, 'periodic', 1, 'm', 'quota-le("m", 10)', '* * * * * *', k.enabled, k.archived, k.valid_from, k.valid_until
	FROM (VALUES ('disabled', false, false, '-infinity'::timestamptz, 'infinity'::timestamptz), ('archived', true, true, '-infinity', 'infinity'),
		('expired', true, false, '-infinity', now() - interval '1 h'), ('future', true, false, now() + interval '1 h', 'infinity')) k(name, enabled, archived, valid_from, valid_until);
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, periodic_expr) VALUES ('marker', 'periodic', 1, 'm', 'false()', '* * * * * *')});
QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) >= 3 FROM quota_manager.quota_run r
	JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name = 'marker'});
is_deeply($answering->requests('query'), $before, 'strategies that will not run have no balance read');

$node->stop;
$_->stop foreach $hanging, $answering;
done_testing();
