
# GET, HEAD and OPTIONS have no effect, at the gateway neither; OPTIONS and the page of OpenAPI say what can be done; the
# schema is read again when the extension is created or updated.

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Mock;
use QuotaTest::HttpServer;
use QuotaTest::Wait qw(happens);
use Test::More;

my $missing = QuotaTest::HttpServer::missing();
plan skip_all => $missing if defined $missing;

my $node = QuotaTest::HttpServer::http_node('http_effects', roles => 1);
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'secret');

$node->safe_psql('quota', qq{
	INSERT INTO quota_manager.quota_credential VALUES ('up', 'secret');
	INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, credential, is_default) VALUES ('up', 'higress', '${\$mock->url}', 'row:up', true);
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('one', 'single', 1, 'm', 'is-vip(1)');
	INSERT INTO quota_manager.user_info (id, vip) VALUES ('ada', 1), ('bob', 1);
	SELECT quota_manager.scan('one');
	UPDATE quota_manager.quota_execute SET status = 'in_doubt', doubt_time = now(), next_attempt_time = 'infinity';
	INSERT INTO quota_manager.bulk_call (key, user_id, value, reason, gateway, state) VALUES ('k', 'ada', 5, 'x', 'up', 'in_doubt');
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('due', 'single', 1, 'm', 'is-vip(1)'), ('other', 'single', 1, 'm', 'is-vip(0)')});

my $rest = QuotaTest::HttpServer->start($node);
my $grant = $node->safe_psql('quota', 'SELECT min(id) FROM quota_manager.quota_execute');
my @endpoints = QuotaTest::HttpServer::endpoints($node);
my @views = grep { !m{^rpc/} } @endpoints;
my %volatile = map { m{^rpc/(.*)} ? ($1 => $node->safe_psql('quota', "SELECT provolatile = 'v' FROM pg_proc WHERE oid = 'quota_api.$1'::regproc")) : () } @endpoints;

# Arguments with which each function would do something.
my %arguments = (
	(map { $_ => "ids={$grant}&note=x" } qw(retry cancel)),
	resolve => "ids={$grant}&applied=true",
	reinstate => "ids={$grant}&note=x",
	correct => "ids={$grant}&applied=true",
	reverse_run => 'run_id=1&note=x',
	reverse_strategy => 'strategy=one&note=x',
	reverse_grants => "ids={$grant}&note=x",
	undo_reversal => 'reversal_id=1&note=x',
	preview_reversal => 'run_id=1',
	(map { $_ => 'ids={2,3}' } qw(enable disable archive)),
	(map { $_ => 'gateway=up&note=x' } qw(pause_gateway unpause_gateway release_balances)),
	(map { $_ => 'strategy=one&note=x' } qw(pause_strategy unpause_strategy)),
	scan => 'strategy=due',
	(map { $_ => 'key=k&user_ids={ada}&applied=true' } qw(resolve_bulk correct_bulk)),
	gateway_query => 'user_id=ada',
	gateway_delta => 'user_id=ada&value=5&reason=x',
	gateway_refresh => 'user_id=ada&quota=5',
	check_condition => 'expression=is-vip(1)',
	check_schedule => 'expression=0%208%20*%20*%20*',
	describe => 'schedule=0%208%20*%20*%20*',
	preview => 'condition=is-vip(1)',
	explain => 'strategy=due&user_id=ada',
	explain_match => 'strategy=due&user_id=ada',
	funnel => 'strategy=due',
	why => 'strategy=due&user_id=ada',
	forecast => 'strategy=due',
	preview_counts => 'strategy=due',
	preview_users => 'strategy=due',
	forecast_firings => 'n=3',
	strategy_history => 'strategy=due',
	user_page => 'user_id=ada',
	diff => 'strategy=due',
	diff_counts => 'strategy=due',
	lint => 'strategy=due',
	upcoming => 'n=3',);

# Everything that there is: all rows, and what the gateway was asked.
sub state_of_things
{
	my $tables = $node->safe_psql('quota', q{
		SELECT string_agg(format('SELECT %L, md5(coalesce(string_agg(x::text, E''\n'' ORDER BY x::text), '''')) FROM %s x', c.oid::regclass, c.oid::regclass), ' UNION ALL ')
		FROM pg_class c WHERE c.relnamespace = 'quota_manager'::regnamespace AND c.relkind = 'r'});
	my $sequences = $node->safe_psql('quota', q{
		SELECT string_agg(format('SELECT last_value, is_called FROM %s', c.oid::regclass), ' UNION ALL ' ORDER BY c.oid)
		FROM pg_class c WHERE c.relnamespace = 'quota_manager'::regnamespace AND c.relkind = 'S'});

	return join "\n", $node->safe_psql('quota', $tables), $node->safe_psql('quota', $sequences), map { $_->{seq} } $mock->applied(zeros => 1);
}

my $before = state_of_things();

foreach my $view (@views)
{
	foreach my $method ('GET', 'HEAD', 'OPTIONS')
	{
		my $reply = $rest->request($method, "/$view", role => 'quota_admin');

		is($reply->{status}, 200, "$method /$view") or diag($reply->{content});
	}
}
foreach my $function (sort keys %volatile)
{
	my $path = "/rpc/$function" . (defined $arguments{$function} ? "?$arguments{$function}" : '');

	foreach my $method ('GET', 'HEAD')
	{
		my $status = $rest->request($method, $path, role => 'quota_admin')->{status};

		# Asking a gateway changes nothing.
		is($status, $volatile{$function} eq 't' && $function ne 'gateway_query' ? 405 : 200, "$method $path");
	}
}
is($rest->request('OPTIONS', "/rpc/$_", role => 'quota_admin')->{status}, 200, "OPTIONS /rpc/$_") foreach 'scan', 'pause', 'health';
is(state_of_things(), $before, 'none of these had an effect');

# The same functions do have one with POST: the arguments are not to blame.
foreach my $function (sort grep { $volatile{$_} eq 't' } keys %volatile)
{
	my %body = map { my ($key, $value) = split /=/; $key => $value } split /&/, $arguments{$function} // '';
	my $reply = $rest->request('POST', "/rpc/$function", role => 'quota_admin', body => \%body);

	is($reply->{status}, 200, "POST /rpc/$function") or diag($reply->{content});
}
isnt(state_of_things(), $before, 'and these had one');
$node->safe_psql('quota', 'SELECT quota_manager.stop_workers()');

# What the document warns of: without a filter all rows change, and a limit is no filter.
foreach my $case ([ '/users?limit=1&order=id', 204, 2 ], [ '/users?id=eq.ada', 204, 1 ])
{
	my ($path, $status, $count) = @$case;

	$node->safe_psql('quota', q{UPDATE quota_manager.user_info SET org = 'before'});
	is($rest->request('PATCH', $path, role => 'quota_operator', body => { org => 'after' })->{status}, $status, "PATCH $path");
	is($node->safe_psql('quota', q{SELECT count(*) FROM quota_manager.user_info WHERE org = 'after'}), $count, "PATCH $path: so many rows");
}
is($rest->request('PATCH', '/users', role => 'quota_operator', body => { org => 'more' }, headers => { Prefer => 'handling=strict, max-affected=1' })->{status},
	400, 'PATCH of more rows than were meant');
is($node->safe_psql('quota', q{SELECT count(*) FROM quota_manager.user_info WHERE org = 'more'}), 0, 'changes none');

# OPTIONS says what can be done.
my %writes = (
	strategies => 'POST PATCH',
	users => 'POST PATCH DELETE',
	gateways => 'POST PATCH DELETE',
	gateway_credentials => 'PATCH',
	models => 'POST PATCH DELETE',
	ceilings => 'POST PATCH DELETE');
foreach my $view (@views)
{
	my %allowed = map { $_ => 1 } split /,\s*/, $rest->request('OPTIONS', "/$view", role => 'quota_admin')->{headers}{allow} // '';

	ok($allowed{GET} && $allowed{HEAD}, "OPTIONS /$view: it can be read");
	ok($writes{$view} || !($allowed{POST} || $allowed{PATCH} || $allowed{PUT} || $allowed{DELETE}), "OPTIONS /$view: what is only read says so");
	ok($allowed{$_}, "OPTIONS /$view: $_") foreach split / /, $writes{$view} // '';
}

# The page of OpenAPI: each endpoint has a title, a text and nothing that the role cannot reach.
my $page = $rest->request('GET', '/', role => 'quota_admin')->{json};
my $viewed = $rest->request('GET', '/', role => 'quota_viewer')->{json};
is($page->{info}{title}, 'quota_manager', 'the page has a title');
is(join(' ', sort map { s{^/}{}r } grep { $_ ne '/' } keys %{ $page->{paths} }),
	join(' ', sort @endpoints), 'it has every endpoint');
foreach my $path (sort grep { $_ ne '/' } keys %{ $page->{paths} })
{
	foreach my $method (sort grep { $_ ne 'parameters' } keys %{ $page->{paths}{$path} })
	{
		my $operation = $page->{paths}{$path}{$method};

		like($operation->{summary} // '', qr/^[A-Z].*[^.]$/, "$method $path has a title");
		like($operation->{description} // '', qr/\.\s*$/, "$method $path has a text");
	}
}
foreach my $view (sort keys %{ $page->{definitions} })
{
	my $properties = $page->{definitions}{$view}{properties};

	is(join(' ', grep { ($properties->{$_}{description} // '') !~ /\S/ } sort keys %$properties), '', "each column of $view is described");
}
is(join(' ', grep { !exists $viewed->{paths}{"/$_"} } @views), 'gateway_credentials', 'a viewer is shown what it can read');
is(join(' ', sort map { keys %{ $viewed->{paths}{"/$_"} // {} } } 'executions', 'runs'), 'get get', 'what is only read is shown so');

# The extension goes and comes: PostgREST sees it by itself.
sub answers
{
	my ($server, $status) = @_;

	return happens(sub { $server->request('GET', '/strategies', role => 'quota_viewer')->{status} == $status });
}
my @grants = map { "SELECT quota_manager.grant_access('quota_$_', '$_')" } 'viewer', 'operator', 'admin';

$node->safe_psql('quota', 'DROP EXTENSION quota_manager');
$node->safe_psql('quota', q{NOTIFY pgrst, 'reload schema'});
ok(answers($rest, 404), 'it is gone');
$node->safe_psql('quota', join ';', 'BEGIN; CREATE EXTENSION quota_manager', @grants, 'COMMIT');
ok(answers($rest, 200), 'it is created: the schema is read again');
$rest->stop;

$node->safe_psql('postgres', 'CREATE DATABASE older');
$node->safe_psql('older', q{CREATE EXTENSION quota_manager VERSION '1.0.0'});
my $older = QuotaTest::HttpServer->start($node, database => 'older', unready => 1);
ok(answers($older, 503), 'where there is no API, PostgREST serves nothing');
$node->safe_psql('older', join ';', 'BEGIN; ALTER EXTENSION quota_manager UPDATE', @grants, 'COMMIT');
ok(answers($older, 200), 'version 1.0.0 is updated: the schema is read');

done_testing();
