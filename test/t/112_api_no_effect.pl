
# Nothing but POST, PATCH, PUT and DELETE has an effect: whatever is read or called by GET, the database and the gateway are
# afterwards what they were.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway);
use QuotaTest::Mock;
use QuotaTest::PostgREST;
use Test::More;

my $node = delivery_node('api_no_effect');
my $mock = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key');
my $api = QuotaTest::PostgREST->new($node, 'postgres');

$api->role('admin', 'admin');
add_gateway($node, 'main', $mock, is_default => 't');
$node->safe_psql('postgres', q{
	INSERT INTO quota_manager.user_info (id, vip) SELECT 'u' || n, n FROM generate_series(1, 5) n;
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('one', 'single', 1, 'm', 'is-vip(2)'), ('two', 'single', 1, 'm', 'quota-le("m", 5)');
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('three', 'periodic', 1, 'm', '* * * * *', 'true()');
	SELECT * FROM quota_manager.scan('one');
	UPDATE quota_manager.quota_execute SET status = 'in_doubt', next_attempt_time = 'infinity' WHERE user_id = 'u2';
	UPDATE quota_manager.quota_execute SET status = 'failed' WHERE user_id = 'u3';
	SELECT * FROM quota_manager.reverse_grants(ARRAY(SELECT id FROM quota_manager.quota_execute WHERE user_id = 'u5'), 'a reversal to ask about')});
my ($doubtful, $failed, $pending) = map { $node->safe_psql('postgres', "SELECT min(id) FROM quota_manager.quota_execute WHERE status = '$_'") } qw(in_doubt failed pending);
$api->rpc('admin', 'POST', 'gateway_query', { user_id => 'u1' });
is($mock->requests('query')->{200}, 1, 'the gateway can be asked');

# Every row and every sequence, as one number each.
my @queries = split /\n/, $node->safe_psql('postgres', q{
	SELECT format('SELECT %L || md5(coalesce(string_agg(t::text, chr(10) ORDER BY t::text), %L)) FROM %s t', c.oid::regclass || ' ', '', c.oid::regclass)
	FROM pg_class c WHERE c.relnamespace IN ('quota_manager'::regnamespace, 'quota_internal'::regnamespace) AND c.relkind = 'r' AND c.relpersistence = 'p'
	UNION ALL SELECT format('SELECT %L || last_value || is_called FROM %s', c.oid::regclass || ' ', c.oid::regclass)
	FROM pg_class c WHERE c.relnamespace IN ('quota_manager'::regnamespace, 'quota_internal'::regnamespace) AND c.relkind = 'S' ORDER BY 1});
cmp_ok(scalar @queries, '>', 15, 'tables and sequences are looked at');

# What remains at the gateway is asked for by a query, which changes nothing there.
sub state_of_all
{
	my $stats = $mock->stats;

	delete @{ $stats->{by_action} }{qw(query used_query)};

	return join "\n", $node->safe_psql('postgres', join '; ', @queries), map { my $action = $_;
		map { "$action $_ $stats->{by_action}{$action}{$_}" } sort keys %{ $stats->{by_action}{$action} } } sort keys %{ $stats->{by_action} };
}

my %arguments = (
	(map { $_ => [ { ids => [1] } ] } qw(enable disable archive)),
	retry => [ { ids => [ $failed, $pending ] } ],
	cancel => [ { ids => [$pending] }, { ids => [] } ],
	resolve => [ { ids => [$doubtful], applied => 'true' }, { ids => [$doubtful], applied => 'false' } ],
	reinstate => [ { ids => [$pending] } ],
	correct => [ { ids => [$doubtful], applied => 'true' }, { ids => [$doubtful], applied => 'false' } ],
	reverse_run => [ { run_id => 1, note => 'n' } ],
	reverse_strategy => [ { strategy => 'one', note => 'n' } ],
	reverse_grants => [ { ids => [ $pending, $doubtful ], note => 'n' } ],
	undo_reversal => [ { reversal_id => 1, note => 'n' } ],
	preview_reversal => [ { run_id => 1 }, { strategy => 'one' }, { ids => [$pending] }, { reversal_id => 1 } ],
	scan => [ {}, { strategy => 'one' }, { strategy => 'three' } ],
	resume => [ {}, { policy => 'may_have_run' } ],
	pause => [ {} ],
	(map { $_ => [ {}, { note => 'n' } ] } qw(pause_all unpause_all)),
	(map { $_ => [ { gateway => 'main' } ] } qw(pause_gateway unpause_gateway)),
	release_balances => [ { gateway => 'main', note => 'n' } ],
	(map { $_ => [ { strategy => 'one', note => 'n' } ] } qw(pause_strategy unpause_strategy)),
	(map { $_ => [ { key => 'k', user_ids => ['u1'], applied => 'true' } ] } qw(resolve_bulk correct_bulk)),
	gateway_query => [ { user_id => 'u1' } ],
	gateway_refresh => [ { user_id => 'u1', quota => 3 } ],
	gateway_delta => [ { user_id => 'u1', value => 3, reason => 'r' } ],
	upcoming => [ {}, { strategy => 'three' } ],
	lint => [ {}, { strategy => 'three' } ],
	check_condition => [ { expression => 'is-vip(1)' } ],
	check_schedule => [ { expression => '* * * * *' } ],
	describe => [ { schedule => '* * * * *' } ],
	preview => [ { condition => 'is-vip(1)' }, map { { strategy => $_ } } qw(one two three) ],
	forecast => [ {} ],
	preview_counts => [ { condition => 'is-vip(1)' }, map { { strategy => $_, changes => '{"amount": 7}' } } qw(one two three) ],
	preview_users => [ { condition => 'is-vip(1)' }, map { { strategy => $_ } } qw(one two three) ],
	forecast_firings => [ {} ],
	strategy_history => [ { strategy => 'one' } ],
	user_page => [ { user_id => 'u1' } ],
	diff => [ { strategy => 'one', v1 => 1, v2 => 1 } ],
	diff_counts => [ { strategy => 'one' } ],
	explain => [ map { { strategy => $_, user_id => 'u1' } } qw(one two three) ],
	explain_match => [ { condition => 'quota-le("m", 1)', user_id => 'u1' }, map { { strategy => $_, user_id => 'u1' } } qw(one two three) ],
	why => [ map { { strategy => $_, user_id => 'u1' } } qw(one two three) ],
	funnel => [ { condition => 'quota-le("m", 1)' }, map { { strategy => $_ } } qw(one two three) ],
	health => [ {} ],
	metrics => [ {} ]);
my %volatility = map { split /\|/ } split /\n/, $node->safe_psql('postgres', q{SELECT p.proname, p.provolatile FROM pg_proc p WHERE p.pronamespace = 'quota_api'::regnamespace
	AND (p.proargnames IS NOT NULL OR p.pronargs = 0) AND p.prokind = 'f' ORDER BY 1});
my $before = state_of_all();

foreach my $function (sort keys %volatility)
{
	my $calls = delete $arguments{$function};

	ok(defined $calls, "$function is called") or next;
	foreach my $call (@$calls)
	{
		my $answer = $api->rpc('admin', 'GET', $function, $call, format => $function eq 'metrics' ? 'text/plain' : undef);
		my $said = join ' ', map { $answer->{$_} // '' } qw(code message);

		is($answer->{status}, $volatility{$function} eq 'v' && $function ne 'gateway_query' ? 405 : 200, join(' ', "GET $function", map { "$_ " . (ref $call->{$_} ? "@{ $call->{$_} }" : $call->{$_}) } sort keys %$call)) or diag($said);
	}
	is(state_of_all(), $before, "$function by GET leaves everything as it was");
}
is_deeply([ sort keys %arguments ], [], 'nothing was forgotten');

foreach my $view (split /\n/, $node->safe_psql('postgres', q{SELECT relname FROM pg_class WHERE relnamespace = 'quota_api'::regnamespace AND relkind = 'v'}))
{
	is($api->get('admin', $view, count => 'exact')->{status}, 200, "GET $view");
}
is(state_of_all(), $before, 'reading leaves everything as it was');

subtest 'the same by POST has an effect, so the comparison can tell' => sub {
	is($api->rpc('admin', 'POST', 'scan', {})->{status}, 200, 'POST scan');
	isnt(state_of_all(), $before, 'a scan shows');
	$before = state_of_all();
	is($api->rpc('admin', 'POST', 'gateway_delta', { user_id => 'u1', value => 1, reason => 'r' })->{status}, 200, 'POST gateway_delta');
	isnt(state_of_all(), $before, 'a change at the gateway shows');
};

$mock->stop;
$node->stop;
done_testing();
