
# What clients see of errors: every row of the table in docs/http.md, over HTTP. A user's mistake is never 5xx, and
# nothing is 503.

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(add_gateway begin_session ask_session end_session);
use QuotaTest::Mock;
use QuotaTest::HttpServer;
use QuotaTest::Wait qw(happens);
use Test::More;

my $missing = QuotaTest::HttpServer::missing();
plan skip_all => $missing if defined $missing;

my $node = QuotaTest::HttpServer::http_node('http_errors', roles => 1);
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'secret');
my $closed = PostgreSQL::Test::Cluster::get_free_port();
my @seen;

$node->safe_psql('quota', qq{
	INSERT INTO quota_manager.quota_credential VALUES ('up', 'secret');
	INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, credential, is_default)
	VALUES ('up', 'higress', '${\$mock->url}', 'row:up', true), ('down', 'higress', 'http://127.0.0.1:$closed', 'row:up', false);
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('taken', 'single', 1, 'm', 'is-vip(1)');
	INSERT INTO quota_manager.user_info (id, vip) VALUES ('ada', 1), ('bob', 0)});

my $rest = QuotaTest::HttpServer->start($node);
my %strategy = (name => 'x', type => 'single', amount => 1, model => 'm', condition => 'is-vip(1)');

# A request that must end with a status and a code; returns the reply.
sub refused
{
	my ($name, $status, $code, $method, $path, %option) = @_;
	my $reply = $rest->request($method, $path, role => 'quota_operator', %option);
	my $error = ref $reply->{json} eq 'HASH' ? $reply->{json} : {};

	is("$reply->{status} " . ($error->{code} // ''), "$status $code", $name) or diag($reply->{content});
	push @seen, $reply->{status};
	unlike($reply->{reason}, qr/[^A-Za-z -]/, "$name: the status line says nothing of its own");
	if (ref $error eq 'HASH' && %$error)
	{
		is(join(' ', sort keys %$error), 'code details hint message', "$name: the shape of the error");
		unlike($reply->{content}, qr/Failing row/, "$name: no row is printed");
		ok(($error->{message} // '') ne '', "$name: there is a message");
	}
	return $reply;
}

sub not_stored
{
	my ($name, $status, $code, %strategy) = @_;

	return refused($name, $status, $code, 'POST', '/strategies', body => \%strategy);
}

# 400: bad values
not_stored('a syntax error of a condition', 400, '22P02', %strategy, condition => 'is-vip(');
not_stored('an empty condition', 400, '22P02', %strategy, condition => '');
not_stored('a wrong argument in a condition', 400, '42804', %strategy, condition => 'is-vip("one")');
not_stored('a condition with too many arguments', 400, '22023', %strategy, condition => 'is-vip(1, 2)');
not_stored('a condition function that is not there', 400, '22023', %strategy, condition => 'is-vipp(1)');
not_stored('a schedule that cannot be read', 400, '22P02', %strategy, type => 'periodic', periodic_expr => 'at noon');
not_stored('a minute that is not there', 400, '22023', %strategy, type => 'periodic', periodic_expr => '61 * * * *');
not_stored('a time zone that is not there', 400, '22023', %strategy, type => 'periodic', periodic_expr => '0 8 * * *', time_zone => 'Mars/Base');
not_stored('a periodic strategy without a schedule', 400, '22023', %strategy, type => 'periodic');
not_stored('a type that is not there', 400, '22023', %strategy, type => 'often');
not_stored('no amount', 400, '22003', %strategy, amount => 0);
not_stored('an amount that is no number', 400, '22P02', %strategy, amount => 'many');
{
	my %nameless = %strategy;

	delete $nameless{name};
	not_stored('a strategy without a name', 400, '22023', %nameless);
}
not_stored('a column that is not there', 400, 'PGRST204', %strategy, colour => 'red');
refused('a body that is no JSON', 400, 'PGRST102', 'POST', '/strategies', headers => { 'Content-Type' => 'application/json' }, content => '{"name"');
refused('a filter that makes no sense', 400, 'PGRST100', 'GET', '/strategies?id=is.one.of');
refused('a filter with a bad value', 400, '22P02', 'GET', '/strategies?id=eq.one');
refused('an array that is none', 400, '22P02', 'POST', '/rpc/cancel', body => { ids => [ 'one' ] });
refused('null for the ids', 400, '22004', 'POST', '/rpc/cancel', body => { ids => undef });
refused('a policy that is not there', 400, '22023', 'POST', '/rpc/resume', role => 'quota_admin', body => { policy => 'somehow' });
refused('a preview of a bad condition', 400, '22P02', 'POST', '/rpc/preview', body => { condition => 'is-vip(' });
refused('a model of no name', 400, '22023', 'POST', '/models', role => 'quota_admin', body => { model => '', gateway => 'up' });
refused('a gateway with a dialect that is not there', 400, '22023', 'POST', '/gateways', role => 'quota_admin',
	body => { name => 'g', dialect => 'klingon', base_url => 'http://127.0.0.1' });
refused('a gateway with a bad address', 400, '22023', 'POST', '/gateways', role => 'quota_admin',
	body => { name => 'g', dialect => 'zgsm', base_url => 'ftp://127.0.0.1' });

# 401 and 403: rights
refused('no token', 401, 'PGRST302', 'GET', '/strategies', role => undef);
refused('a token with another key', 401, 'PGRST301', 'GET', '/strategies', role => undef,
	headers => { Authorization => 'Bearer ' . (QuotaTest::HttpServer->token('quota_admin') =~ s/\.[^.]*$/.AAAA/r) });
refused('an expired token', 401, 'PGRST303', 'GET', '/strategies', role => undef,
	headers => { Authorization => 'Bearer ' . QuotaTest::HttpServer->token('quota_admin', exp => time - 3600) });
refused('a role that authenticator cannot become', 403, '42501', 'GET', '/strategies', role => 'quota_worker');
refused('a viewer who writes', 403, '42501', 'POST', '/strategies', role => 'quota_viewer', body => \%strategy);
refused('a viewer who scans', 403, '42501', 'POST', '/rpc/scan', role => 'quota_viewer', body => {});
refused('a viewer who decides', 403, '42501', 'POST', '/rpc/cancel', role => 'quota_viewer', body => { ids => [ 1 ] });
refused('an operator who writes gateways', 403, '42501', 'POST', '/gateways', body => { name => 'g', dialect => 'zgsm', base_url => 'http://127.0.0.1' });
refused('an operator who pauses', 403, '42501', 'POST', '/rpc/pause');
refused('a version that is written', 403, '42501', 'POST', '/strategies', body => { %strategy, version => 1, condition => 'is-vipp(1)' });
refused('an id that is written', 403, '42501', 'PATCH', '/strategies?id=eq.1', body => { id => 7 });
refused('a strategy that is deleted', 403, '42501', 'DELETE', '/strategies?id=eq.1');

# 404: what is not there
refused('a scan of a strategy that is not there', 404, '42704', 'POST', '/rpc/scan', body => { strategy => 'nobody' });
refused('firings of a strategy that is not there', 404, '42704', 'GET', '/rpc/upcoming?strategy=nobody');
refused('findings about a strategy that is not there', 404, '42704', 'GET', '/rpc/lint?strategy=nobody');
refused('an explanation of a strategy that is not there', 404, '42704', 'GET', '/rpc/explain?strategy=nobody&user_id=ada');
refused('a match with a strategy that is not there', 404, '42704', 'GET', '/rpc/explain_match?strategy=nobody&user_id=ada');
refused('a match of a user who is not there', 404, 'P0002', 'GET', '/rpc/explain_match?condition=is-vip(1)&user_id=nobody');
refused('a match with nothing', 400, '22023', 'GET', '/rpc/explain_match?user_id=ada');
refused('the story of a strategy that is not there', 404, '42704', 'GET', '/rpc/why?strategy=nobody&user_id=ada');
refused('a funnel of a bad condition', 400, '22P02', 'POST', '/rpc/funnel', body => { condition => 'is-vip(' });
refused('a gateway that is not there', 404, '42704', 'POST', '/rpc/gateway_query', body => { user_id => 'ada', gateway => 'nobody' });
refused('a table that is not there', 404, 'PGRST205', 'GET', '/quota_strategy');
refused('a function that is not there', 404, 'PGRST202', 'POST', '/rpc/deliver', body => {});
refused('one that is not there', 406, 'PGRST116', 'GET', '/strategies?id=eq.999', headers => { Accept => 'application/vnd.pgrst.object+json' });

# 405: an effect with GET
refused('GET of a scan', 405, '25006', 'GET', '/rpc/scan');
refused('GET of a call by hand', 405, '25006', 'GET', '/rpc/gateway_delta?user_id=ada&value=5&reason=x');
refused('PUT of a function', 405, 'PGRST101', 'PUT', '/rpc/scan', body => {});

# 409: not now, or not with what there is
not_stored('a name that is taken', 409, '23505', %strategy, name => 'taken');
refused('a model of a gateway that is not there', 409, '23503', 'POST', '/models', role => 'quota_admin', body => { model => 'x', gateway => 'nobody' });
$node->safe_psql('quota', q{SELECT quota_manager.scan('taken')});
refused('a gateway that is in use', 409, '23503', 'DELETE', '/gateways?name=eq.up', role => 'quota_admin');
refused('a policy for what is no copy', 409, '55000', 'POST', '/rpc/resume', role => 'quota_admin', body => { policy => 'may_have_run' });
{
	my $session = begin_session($node, 'quota');

	ask_session($session, 'BEGIN');
	ask_session($session, q{SELECT 1 FROM quota_manager.quota_strategy WHERE name = 'taken' FOR UPDATE});
	refused('a function that finds a lock', 409, '55P03', 'POST', '/rpc/disable', body => { ids => [ 1 ] });

	my $reply = $rest->request('PATCH', '/strategies?id=eq.1', role => 'quota_operator', body => { amount => 2 });

	is("$reply->{status} $reply->{json}{code}", '500 55P03', 'a table that finds a lock, whose errors nothing can map');
	end_session($session);
}
{
	$node->safe_psql('quota', q{
		CREATE VIEW public.people AS SELECT * FROM quota_manager.user_info;
		GRANT SELECT ON public.people TO quota_operator;
		SELECT quota_manager.set_user_source('public.people');
		DROP VIEW public.people});
	refused('a source of users that is gone: preview', 409, '42P01', 'POST', '/rpc/preview', body => { condition => 'is-vip(1)' });
	like($rest->request('POST', '/rpc/scan', role => 'quota_operator', body => { strategy => 'taken' })->{json}[0]{obstacle},
		qr/^user source public.people does not exist/, 'a source of users that is gone: a scan says so in its row');
	$node->safe_psql('quota', 'SELECT quota_manager.set_user_source(NULL)');
}

# 429 and 502: the gateway
refused('a gateway that cannot be reached', 502, '08001', 'POST', '/rpc/gateway_query', body => { user_id => 'ada', gateway => 'down' });
$mock->fault(kind => 'apply_close', match => 'delta');
refused('an answer that was lost', 502, '08007', 'POST', '/rpc/gateway_delta', body => { user_id => 'ada', value => 5, reason => 'x' });
is(scalar(grep { $_->{action} eq 'delta' } $mock->applied), 1, 'and nobody repeated the request');
$mock->clear_faults;
{
	$mock->fault(kind => 'status', status => 429, match => 'delta', count => 10, retry_after => 7);
	my $reply = refused('a gateway that is busy', 429, '53000', 'POST', '/rpc/gateway_delta', body => { user_id => 'ada', value => 5, reason => 'x' });

	like($reply->{headers}{'retry-after'} // 'none', qr/^[1-9]\d*$/, 'it says when to come back');
	$mock->clear_faults;
}

# 504: too long
{
	$node->safe_psql('quota', q{ALTER ROLE quota_operator SET statement_timeout = '100ms'; NOTIFY pgrst, 'reload config'});
	$mock->fault(kind => 'slow', match => 'query', count => 0, delay_ms => 2000);
	ok(happens(sub { $rest->request('POST', '/rpc/gateway_query', role => 'quota_operator', body => { user_id => 'ada' })->{status} == 504 }),
		'the settings of roles are read again');
	refused('a statement that takes too long', 504, '57014', 'POST', '/rpc/gateway_query', body => { user_id => 'ada' });
	$node->safe_psql('quota', q{ALTER ROLE quota_operator RESET statement_timeout; NOTIFY pgrst, 'reload config'});
	$mock->clear_faults;
}

# Text of a user's gets into no header.
{
	my $reply = refused('a name with a line break', 404, '42704', 'POST', '/rpc/scan', body => { strategy => "x\r\nX-Forged: yes" });

	ok(!exists $reply->{headers}{'x-forged'}, 'it makes no header');
}

ok(!(grep { $_ == 503 || $_ == 500 } @seen), 'nothing was answered with 503 or 500');
done_testing();
