
# What clients of quota_api see when something is wrong: every row of the table of errors, with the status that PostgREST gives
# it; a mistake of theirs is never 5xx, and 503, which has them repeat a request, is nothing at all.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway begin_session ask_session end_session);
use QuotaTest::Mock;
use QuotaTest::PostgREST;
use Test::More;

my $node = delivery_node('api_errors');
my $mock = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key');
my $api = QuotaTest::PostgREST->new($node, 'postgres');

$api->role($_, $_) foreach qw(viewer operator admin);
$api->role('anonymous', undef);
$node->safe_psql('postgres', 'GRANT USAGE ON SCHEMA quota_api TO anonymous');
add_gateway($node, 'main', $mock, is_default => 't');
$node->safe_psql('postgres', q{
	INSERT INTO quota_manager.quota_gateway (name, dialect, base_url) VALUES ('down', 'zgsm', 'http://127.0.0.1:1');
	INSERT INTO quota_manager.quota_model VALUES ('served', 'down');
	INSERT INTO quota_manager.user_info (id, vip) SELECT 'u' || n, n FROM generate_series(1, 5) n;
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('one', 'single', 1, 'm', 'true()'), ('two', 'single', 1, 'm', 'true()')});
my ($one, $two) = split /\n/, $node->safe_psql('postgres', 'SELECT id FROM quota_manager.quota_strategy ORDER BY id');

# An answer has this status and code, and a message that says something; returns it.
sub is_error
{
	my ($answer, $status, $code, $what) = @_;

	is("$answer->{status} " . ($answer->{code} // 'none'), "$status $code", $what) or diag($answer->{message} // 'no error');
	is(join(' ', sort keys %{ $answer->{headers} // {} }), $status == 429 ? 'Retry-After' : '', "$what: headers");
	return $answer;
}

my %strategy = (name => 'x', type => 'single', amount => 1, model => 'm', condition => 'true()');

subtest 'bad values' => sub {
	is_error($api->post('operator', 'strategies', { %strategy, condition => 'is-vip(' }), 400, '22P02', 'a condition that cannot be read');
	is_error($api->post('operator', 'strategies', { %strategy, condition => 'is-vip("a")' }), 400, '42804', 'an argument of the wrong type');
	is_error($api->post('operator', 'strategies', { %strategy, condition => 'is-vipp(1)' }), 400, '22023', 'a condition function that does not exist');
	is_error($api->post('operator', 'strategies', { %strategy, type => 'monthly' }), 400, '22023', 'an unknown type');
	is_error($api->post('operator', 'strategies', { %strategy, amount => 0 }), 400, '22003', 'an amount of 0');
	is_error($api->post('operator', 'strategies', { %strategy, type => 'periodic', periodic_expr => '9 * *' }), 400, '22P02', 'a schedule that cannot be read');
	is($api->post('operator', 'strategies', { %strategy, catch_up => 'some' })->{status}, 400, 'a value that a check refuses');
	is($api->post('operator', 'users', { vip => 1 })->{status}, 400, 'a required column that is missing');
	is($api->post('operator', 'users', { id => 'x', vip => 'many' })->{status}, 400, 'a text for a number');
	is_error($api->rpc('viewer', 'GET', 'preview', { condition => 'is-vip(' }), 400, '22P02', 'an argument that is a condition');
	is_error($api->rpc('viewer', 'GET', 'preview', {}), 400, '22023', 'arguments that are missing');
	is_error($api->rpc('viewer', 'POST', 'preview', { condition => 'true()', strategy => 'one' }), 400, '22023', 'arguments that are too many');
	is_error($api->rpc('viewer', 'GET', 'upcoming', { strategy => 'one' }), 400, '42809', 'something of the wrong kind');
	is_error($api->rpc('viewer', 'GET', 'upcoming', { n => 0 }), 400, '22023', 'a number that is too small');
	is_error($api->rpc('viewer', 'GET', 'forecast_firings', { n => 0 }), 400, '22023', 'the same of a forecast');
	is_error($api->rpc('viewer', 'GET', 'preview_counts', { strategy => 'one', changes => '{"amont": 1}' }), 400, '22023', 'a change of what there is not');
	is_error($api->rpc('viewer', 'GET', 'preview_users', { strategy => 'one', reason => 'nosuch' }), 400, '22023', 'a reason that there is not');
	is_error($api->rpc('operator', 'POST', 'resolve', { ids => [1], applied => undef }), 400, '22004', 'a decision that is none');
	is_error($api->rpc('operator', 'POST', 'cancel', { ids => undef }), 400, '22004', 'grants that are not given');
	is_error($api->rpc('operator', 'POST', 'cancel', { ids => ['99999999999999999999'] }), 400, '22003', 'an id out of range');
	is_error($api->rpc('operator', 'POST', 'cancel', { ids => [1], note => 'x' x 3000 }), 400, '22001', 'a note that is too long');
	is_error($api->rpc('admin', 'POST', 'resume', { policy => 'hope' }), 400, '22023', 'an unknown policy');
};

subtest 'what does not exist' => sub {
	is_error($api->rpc('operator', 'POST', 'scan', { strategy => 'nosuch' }), 404, '42704', 'scan');
	is_error($api->rpc('viewer', 'GET', $_, { strategy => 'nosuch' }), 404, '42704', $_) foreach qw(upcoming preview forecast preview_counts preview_users forecast_firings);
	is_error($api->rpc('viewer', 'GET', 'explain', { strategy => 'nosuch', user_id => 'u1' }), 404, '42704', 'explain');
	is_error($api->rpc('operator', 'POST', 'gateway_query', { user_id => 'u1', gateway => 'nosuch' }), 404, '42704', 'gateway_query');
	is($node->safe_psql('postgres', "SELECT quota_internal.http_status('P0002')"), 404, 'a grant');
};

subtest 'not now' => sub {
	is_error($api->rpc('admin', 'POST', 'resume', { policy => 'may_have_run' }), 409, '55000', 'nothing to resume');
	is($api->rpc('admin', 'POST', 'pause', {})->{rows}[0]{status}, 'paused', 'workers are paused');
	is_error($api->rpc('admin', 'POST', 'resume', {}), 409, '55000', 'workers that cannot be started');
	$node->safe_psql('postgres', "UPDATE quota_manager.quota_gateway SET doubt_policy = 'reconcile', sole_writer = true WHERE name = 'main'");
	is_error($api->rpc('operator', 'POST', 'gateway_delta', { user_id => 'u1', value => 1, reason => 'r' }), 409, '55000', 'a change by hand where the gateway is reconciled');
	$node->safe_psql('postgres', "UPDATE quota_manager.quota_gateway SET doubt_policy = 'hold' WHERE name = 'main'");

	# A copy of a database stands still.
	$api->rpc('operator', 'POST', 'scan', {});
	$node->safe_psql('postgres', 'UPDATE quota_manager.quota_installation SET system_identifier = system_identifier + 1');
	is_error($api->rpc('operator', 'POST', 'scan', {}), 409, '55000', 'a copy is not scanned');
	is($api->rpc('viewer', 'GET', 'health', {})->{rows}{status}, 'degraded', 'as its health says');
	is_error($api->rpc('operator', 'POST', 'resume', { policy => 'may_have_run' }), 403, '42501', 'operators do not resume it');
	is($api->rpc('admin', 'POST', 'resume', { policy => 'unchanged_since_dump' })->{status}, 409, 'nor anybody, while workers cannot be started');
	$node->safe_psql('postgres', 'UPDATE quota_manager.quota_installation SET workers_enabled = true');
	my $rows = $api->rpc('admin', 'POST', 'resume', {})->{rows};
	is(join(', ', map { join ' ', $_->{id}, $_->{done} ? 'done' : 'not', $_->{status} } @$rows), 'copy not waits, workers not enabled', 'what stands in the way');
	$rows = $api->rpc('admin', 'POST', 'resume', { policy => 'unchanged_since_dump' })->{rows};
	is(join(', ', map { join ' ', $_->{id}, $_->{done} ? 'done' : 'not', $_->{status} } @$rows), 'copy done resumed, workers not enabled', 'administrators resume it');
	is($api->rpc('operator', 'POST', 'scan', {})->{status}, 200, 'and it is scanned');
};

subtest 'in use and duplicate' => sub {
	is_error($api->post('operator', 'users', { id => 'u1' }), 409, '23505', 'a duplicate');
	is_error($api->post('admin', 'models', { model => 'y', gateway => 'nosuch' }), 409, '23503', 'an unknown gateway');
	is_error($api->post('admin', 'ceilings', { strategy_id => 999, period => 'day', max_grants => 1 }), 409, '23503', 'a ceiling of an unknown strategy');
	is_error($api->delete('admin', 'gateways', [ [ 'name', '=', 'down' ] ]), 409, '23503', 'a gateway that serves models');
	is($node->safe_psql('postgres', "SELECT quota_internal.http_status('23001')"), 409, 'what is in use');
};

subtest 'gateways' => sub {
	is_error($api->rpc('operator', 'POST', 'gateway_query', { user_id => 'u1', gateway => 'down' }), 502, '08001', 'one that is down');
	$mock->fault(kind => 'apply_close', match => 'delta');
	is_error($api->rpc('operator', 'POST', 'gateway_delta', { user_id => 'u1', value => 5, reason => 'r' }), 502, '08007', 'an answer that was lost');
	is(scalar(grep { $_->{user} eq 'u1' } $mock->applied), 1, 'after which nobody repeated it');
	$mock->fault(kind => 'close', match => 'query');
	is_error($api->rpc('operator', 'POST', 'gateway_query', { user_id => 'u1' }), 502, '08006', 'no answer');
	$mock->fault(kind => 'status', status => 429, match => 'query', retry_after => 7);
	is(is_error($api->rpc('operator', 'POST', 'gateway_query', { user_id => 'u1' }), 429, '53000', 'one that asks to come back later')->{headers}{'Retry-After'}, '7', 'and when');
	$mock->fault(kind => 'status', status => 429, match => 'query');
	is(is_error($api->rpc('operator', 'POST', 'gateway_query', { user_id => 'u1' }), 429, '53000', 'one that does not say when')->{headers}{'Retry-After'}, '10', 'we say it');
	$mock->fault(kind => 'hang', match => 'query');
	is_error($api->rpc('operator', 'POST', 'gateway_query', { user_id => 'u1' }, settings => { statement_timeout => '300ms' }), 504, '57014', 'a time-out');
	$mock->fault(kind => 'apply_hang', match => 'delta');
	my $answer = is_error($api->rpc('operator', 'POST', 'gateway_delta', { user_id => 'u4', value => 5, reason => 'r' }, settings => { statement_timeout => '300ms' }), 504, '57014', 'a time-out of a change');
	is("$answer->{details} $answer->{hint}", 'Gateway "main" may have applied the request. Compare the user\'s balance before you try again.', 'says that it may have been made');
	is(scalar(grep { $_->{user} eq 'u4' } $mock->applied), 1, 'as it was');
	is($api->rpc('operator', 'POST', 'gateway_delta', { user_id => 'u2', value => 5, reason => 'r' })->{status}, 200, 'it works again');
	is($node->safe_psql('postgres', q{SELECT role, said_by FROM quota_manager.gateway_call WHERE user_id = 'u2'}), 'operator|operator@example.org', 'and it is kept who called');
	is($api->rpc('operator', 'POST', 'gateway_query', { user_id => 'u2' })->{rows}, 5, 'with the balance');
	is($api->rpc('operator', 'POST', 'gateway_delta', { user_id => 'u3', value => 5, reason => 'r' }, raw_claims => '[' x 100_000)->{status}, 200, 'claims that nobody can read');
	is($node->safe_psql('postgres', q{SELECT role, said_by IS NULL FROM quota_manager.gateway_call WHERE user_id = 'u3'}), 'operator|t', 'do not keep the call from being kept');
	is($api->rpc('operator', 'POST', 'gateway_refresh', { user_id => 'u2', quota => 2 })->{status}, 200, 'a refresh');
};

subtest 'locks' => sub {
	my $session = begin_session($node);

	ask_session($session, "BEGIN; UPDATE quota_manager.quota_strategy SET title = 'x' WHERE id = $one");
	is_error($api->rpc('operator', 'POST', 'disable', { ids => [ $one, $two ] }), 409, '55P03', 'somebody else edits it');
	is($node->safe_psql('postgres', "SELECT bool_and(enabled) FROM quota_manager.quota_strategy"), 't', 'and nothing is half done');
	ask_session($session, 'ROLLBACK; BEGIN; LOCK TABLE quota_manager.quota_execute IN ACCESS EXCLUSIVE MODE');
	is_error($api->rpc('operator', 'POST', 'cancel', { ids => [1] }), 409, '55P03', 'or the grants');
	ask_session($session, 'ROLLBACK');
	end_session($session);

	# What PostgREST would repeat without end.
	foreach my $code ('40001', '40P01')
	{
		$node->safe_psql('postgres', qq{
			CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN RAISE SQLSTATE '$code' USING MESSAGE = 'not now'; END\$\$;
			CREATE TRIGGER zz_fail BEFORE UPDATE ON quota_manager.quota_strategy FOR EACH ROW EXECUTE FUNCTION public.fail()});
		is_error($api->rpc('operator', 'POST', 'disable', { ids => [$one] }), 409, $code, "$code is not repeated");
		$node->safe_psql('postgres', 'DROP FUNCTION public.fail() CASCADE');
	}
};

subtest 'rights' => sub {
	is_error($api->get('anonymous', 'strategies'), 401, '42501', 'anonymous reads nothing');
	is_error($api->rpc('anonymous', 'POST', 'scan', {}), 401, '42501', 'and does nothing');
	is_error($api->rpc('anonymous', 'GET', 'health', {}), 401, '42501', 'and is told nothing');
	my @volatile = split /\n/, $node->safe_psql('postgres', q{SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'quota_api'::regnamespace AND p.provolatile = 'v' ORDER BY 1});
	my %arguments = (
		(map { $_ => { ids => [1] } } qw(retry cancel enable disable archive)),
		(map { $_ => { ids => [1], applied => \1 } } qw(resolve correct)),
		reinstate => { ids => [1] },
		(map { $_ => { gateway => 'main' } } qw(pause_gateway unpause_gateway)),
		release_balances => { gateway => 'main', note => 'x' },
		(map { $_ => { strategy => 'one' } } qw(pause_strategy unpause_strategy)),
		reverse_run => { run_id => 1, note => 'x' },
		reverse_strategy => { strategy => 'one', note => 'x' },
		reverse_grants => { ids => [1], note => 'x' },
		undo_reversal => { reversal_id => 1, note => 'x' },
		(map { $_ => { key => 'k', user_ids => ['u1'], applied => \1 } } qw(resolve_bulk correct_bulk)),
		gateway_query => { user_id => 'u1' },
		gateway_refresh => { user_id => 'u1', quota => 1 },
		gateway_delta => { user_id => 'u1', value => 1, reason => 'r' });

	cmp_ok(scalar @volatile, '>', 10, 'there are functions with an effect');
	foreach my $function (@volatile)
	{
		is_error($api->rpc('viewer', 'POST', $function, $arguments{$function} // {}), 403, '42501', "a viewer cannot call $function");
	}
	my %row = (strategies => \%strategy, users => { id => 'v' }, gateways => { name => 'v', dialect => 'zgsm', base_url => 'http://x' }, models => { model => 'v', gateway => 'main' },
		gateway_credentials => { credential => 'env:QUOTA_MANAGER_X' });
	foreach my $view (sort keys %row)
	{
		my ($key) = sort keys %{ $row{$view} };

		is($api->post('viewer', $view, $row{$view})->{status}, 403, "a viewer adds none to $view");
		is($api->patch('viewer', $view, [], { $key => $row{$view}{$key} })->{status}, 403, "and changes none of $view");
		is($api->delete('viewer', $view, [])->{status}, 403, "and deletes none of $view");
	}
	foreach my $view (qw(executions runs decisions balances deliveries workers pauses))
	{
		my ($column) = sort keys %{ $api->columns($view) };

		like($api->post('admin', $view, { $column => undef })->{message} // '', qr/cannot insert into view/, "nobody writes $view");
		like($api->patch('admin', $view, [], { $column => undef })->{message} // '', qr/cannot update view/, "changes $view");
		like($api->delete('admin', $view, [])->{message} // '', qr/cannot delete from view/, "or deletes of $view");
	}
};

# Texts of users that would like to be something else, and bodies that are not what they should be.
subtest 'hostile' => sub {
	my $name = "x\r\nSet-Cookie: a=b\r\n\r\n{\"status\": 200, \"headers\": {\"X\": \"y\"}}";
	my $answer = is_error($api->rpc('operator', 'POST', 'scan', { strategy => $name }), 404, '42704', 'a name with line ends');

	is($answer->{message}, qq{strategy "$name" does not exist}, 'comes back as it is, in the body');
	is_error($api->rpc('operator', 'POST', 'gateway_query', { user_id => 'u1', gateway => "n\r\nX: y wait 9 s" }), 404, '42704', 'a gateway with line ends');
	is($api->post('operator', 'strategies', { %strategy, name => $name })->{status}, 201, 'a strategy may be called so');
	my ($id) = map { $_->{id} } @{ $api->get('viewer', 'strategies', where => [ [ 'name', '=', $name ] ])->{rows} };
	is($api->rpc('operator', 'POST', 'archive', { ids => [$id] })->{rows}[0]{status}, 'archived', 'and is archived');
	foreach my $body ('[1,2]', '"x"', '5', 'null', 'true', '[]', '{}', '[{}]', '{"ids":{"a":1}}', '{"ids":"x"}', '{"ids":[[1],[2]]}', '{"ids":["a"]}', '{"ids":[null]}')
	{
		my $code = $api->rpc('operator', 'POST', 'cancel', { ids => [] }, raw_body => $body)->{status};

		ok($code == 200 || $code == 400, "cancel with the body $body: $code");
	}
	foreach my $body ('[1,2]', '"x"', '5', 'null', '[]', '{}', '[{}]', '[[]]', '{"name":{"a":1}}', '{"name":null}')
	{
		my $code = $api->post('operator', 'strategies', \%strategy, raw_body => $body)->{status};
		my $many = $api->post('operator', 'strategies', [ \%strategy ], raw_body => $body)->{status};

		ok($code == 400 && $many =~ /^(?:201|400)$/, "a strategy with the body $body: $code, $many");
	}
	is($node->safe_psql('postgres', 'SELECT count(*) FROM quota_manager.quota_strategy'), 3, 'none was made of that');
	is($api->rpc('operator', 'POST', 'archive', { ids => [ -1, 2147483647 ] })->{rows}[1]{obstacle}, 'not found', 'ids that do not exist');
	is_deeply($api->rpc('operator', 'POST', $_, { ids => [] })->{rows}, [], "$_ of nothing") foreach qw(enable disable archive cancel retry);
	is($api->rpc('operator', 'POST', 'cancel', { ids => [ undef, -5, -5 ] })->{page}, 1, 'ids that are none, and one twice');
	is($api->rpc('viewer', 'GET', 'explain', { strategy => 'one', user_id => "'; DROP TABLE x; --" })->{rows}[-1]{holds}, JSON::PP::false, 'a user that is a statement');
	is_error($api->rpc('viewer', 'POST', 'explain', { strategy => 'one', user_id => undef }), 400, '22004', 'a user that is none');
	is($api->rpc('viewer', 'GET', 'preview', { condition => q{match-user("x' OR true --")} })->{page}, 0, 'a condition that is a statement');
};

subtest 'the user source is gone' => sub {
	$node->safe_psql('postgres', q{CREATE TABLE public.member (id text); SELECT quota_manager.set_user_source('public.member'); DROP TABLE public.member});
	is_error($api->rpc('viewer', 'GET', 'preview', { condition => 'true()' }), 409, '42P01', 'a user source that is missing');
	is_error($api->rpc('viewer', 'GET', 'forecast', {}), 409, '42P01', 'also to what looks at strategies');
};

# No code of those that mislead gets through, whatever raises it.
is($node->safe_psql('postgres', q{SELECT count(*) FROM unnest('{08000,08001,08003,08004,08006,08007,08P01,53000,53100,53200,53300,53400}'::text[]) c
	WHERE coalesce(quota_internal.http_status(c), 503) = 503}), 0, 'nothing is 503');

$mock->stop;
$node->stop;
done_testing();
