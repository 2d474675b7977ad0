
# Grants of a table that is not a plain one: statements about some of them name the users, so that only the parts that have
# them are looked at, and a batch is about users who are kept together. What is delivered is the same.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver_all delivered_once);
use QuotaTest::Mock;
use Test::More;

my $node = delivery_node('spread', <<'CONF');
session_preload_libraries = 'auto_explain'
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
quota_manager.retry_base = 1ms
quota_manager.retry_max = 2ms
quota_manager.linger = 50ms
CONF
my @users = map { "user$_" } 1 .. 400;
my %mock = map { $_ => QuotaTest::Mock->start(dialect => 'zgsm', key => 'key') } qw(hold resend reconcile);

# By policy: how often a statement of the delivery was run that names its users, and how often one that does not.
sub statements
{
	my ($log) = @_;
	my %count = (users => 0, all => 0);

	while ($log =~ /Query Text: ([^\n]*\bFROM unnest\(\$1[^\n]*\bquota_execute\b[^\n]*|UPDATE quota_manager\.(?:quota_execute|user_balance) AS \w [^\n]*\bFROM unnest\([^\n]*)/g)
	{
		$count{ $1 =~ /user_id = ANY \(\$/ ? 'users' : 'all' }++;
	}
	return \%count;
}

foreach my $policy (sort keys %mock)
{
	add_gateway($node, $policy, $mock{$policy}, doubt_policy => $policy, sole_writer => 'true');
	$mock{$policy}->honour_idempotency(1) if $policy eq 'resend';
}
foreach my $spread (0, 1)
{
	my $case = $spread ? 'spread' : 'plain';

	# A DELETE means more than rows of the table's own heap, as it does where somebody's planner sends it elsewhere.
	$node->safe_psql('postgres', 'CREATE RULE elsewhere AS ON DELETE TO quota_manager.quota_execute DO ALSO NOTIFY elsewhere') if $spread;
	foreach my $policy (sort keys %mock)
	{
		my $offset = -s $node->logfile;

		$mock{$policy}->reset;
		$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run, quota_manager.user_balance');
		grant($node, $policy, $_, @users) foreach 1 .. 3;
		ok(deliver_all($node, $policy), "$case, $policy: all is delivered");
		is(delivered_once($node, $policy, $mock{$policy}, "$case, $policy"), 1200, "$case, $policy: each once");
		my %amounts;
		push @{ $amounts{ $_->{user} } }, $_->{amount} + 0 foreach $mock{$policy}->applied;
		is_deeply([ grep { "@{$amounts{$_}}" ne '1 2 3' } @users ], [], "$case, $policy: each user's in their order");

		my $count = statements(slurp_file($node->logfile, $offset));
		cmp_ok($count->{ $spread ? 'users' : 'all' }, '>', 3, "$case, $policy: statements are of the right kind");
		is($count->{ $spread ? 'all' : 'users' }, 0, "$case, $policy: all of them");
	}
}

subtest 'what was lost is looked at again the same way' => sub {
	$mock{reconcile}->reset;
	$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute, quota_manager.quota_run, quota_manager.user_balance');
	$mock{reconcile}->fault(kind => 'apply_close', match => 'grant', count => 20);
	grant($node, 'reconcile', 5, @users);
	ok(deliver_all($node, 'reconcile'), 'lost answers: all is settled');
	is($node->safe_psql('postgres', q{SELECT status, count(*) FROM quota_manager.quota_execute GROUP BY 1}), 'completed|400', 'lost answers: proven');
	is(delivered_once($node, 'reconcile', $mock{reconcile}, 'lost answers'), 400, 'lost answers: each once');
};

$node->stop;
done_testing();
