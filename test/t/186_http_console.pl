
# A console over HTTP, with a real PostgREST: edits that do not overwrite each other, what a request does and what it only
# shows, figures beyond 2^53, days of a zone, and what is known of a change whose answer did not come in time.

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(begin_session ask_session end_session);
use QuotaTest::HttpServer;
use QuotaTest::Mock;
use QuotaTest::Wait qw(happens);
use Test::More;

my $missing = QuotaTest::HttpServer::missing();
plan skip_all => $missing if defined $missing;

my $node = QuotaTest::HttpServer::http_node('http_console', roles => 1);
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'secret');

$node->safe_psql('quota', qq{
	INSERT INTO quota_manager.quota_credential VALUES ('up', 'secret');
	INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, credential, is_default) VALUES ('up', 'higress', '${\$mock->url}', 'row:up', true);
	INSERT INTO quota_manager.user_info (id, vip) VALUES ('ada', 1), ('bob', 1);
	ALTER ROLE quota_operator SET lock_timeout = '120s';
	CREATE ROLE quota_hasty;
	SELECT quota_manager.grant_access('quota_hasty', 'operator');
	GRANT quota_hasty TO authenticator;
	ALTER ROLE quota_hasty SET statement_timeout = '1s'});
my $rest = QuotaTest::HttpServer->start($node);

sub operator
{
	my ($method, $path, $body, %headers) = @_;

	return $rest->request($method, $path, role => 'quota_operator', defined $body ? (body => $body) : (), headers => \%headers);
}

sub viewer
{
	my ($path, %headers) = @_;

	return $rest->request('GET', $path, role => 'quota_viewer', headers => \%headers);
}

# An edit on the condition that nobody has made another one.
sub edit_version
{
	my ($version, $change) = @_;

	return operator('PATCH', "/strategies?name=eq.gift&version=eq.$version&select=amount,version", $change, Prefer => 'return=representation');
}

is(operator('POST', '/strategies', { name => 'gift', type => 'single', amount => 5, model => 'm', condition => 'is-vip(1)', state => 'draft' })->{status}, 201, 'a strategy');

subtest 'an edit of a version that is no more changes nothing' => sub {
	is_deeply(edit_version(1, { amount => 6 })->{json}, [ { amount => 6, version => 2 } ], 'the first one is made');
	is_deeply(edit_version(1, { amount => 7 })->{json}, [], 'the second one finds no such version');
	is(operator('PATCH', '/strategies?name=eq.gift&version=eq.1', { amount => 7 }, Accept => 'application/vnd.pgrst.object+json', Prefer => 'return=representation')->{status}, 406,
		'or 406, where one is asked for');

	# Both wait for the row; what the first one makes of it is seen by the second.
	my $session = begin_session($node, 'quota');
	ask_session($session, q{BEGIN; UPDATE quota_manager.quota_strategy SET amount = 8, edit_note = 'by hand' WHERE name = 'gift'});
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		my $reply = edit_version(2, { amount => 9 });
		require POSIX;
		POSIX::_exit($reply->{status} == 200 && @{ $reply->{json} } == 0 ? 0 : 1);
	}
	ok(happens(sub { $node->safe_psql('quota', q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'authenticator' AND wait_event_type = 'Lock'}) > 0 }), 'an edit waits for another one');
	ask_session($session, 'COMMIT');
	waitpid $pid, 0;
	is($?, 0, 'and changes nothing then');
	end_session($session);
	is_deeply(viewer('/strategies?name=eq.gift&select=amount,version')->{json}, [ { amount => 8, version => 3 } ], 'the one before it stands');
};

subtest 'what a request does is in its body, and what is filtered is the answer' => sub {
	is_deeply(operator('POST', '/rpc/pause_all?done=is.false', { note => 'x' })->{json}, [], 'an answer with its row filtered out');
	is(viewer('/pauses?until=is.null&select=what')->{json}[0]{what}, 'everything', 'is that of a call that was done');
	is_deeply(viewer('/rpc/health?select=status,problems')->{json}, { status => 'degraded', problems => ['everything is paused'] }, 'which health says');
	is(operator('POST', '/rpc/unpause_all', {}, Prefer => 'tx=rollback')->{json}[0]{done}, JSON::PP::true, 'tx=rollback');
	is_deeply(viewer('/pauses?until=is.null')->{json}, [], 'is not heeded');
	is(viewer('/rpc/health')->{json}{status}, 'ok', 'all is well again');
};

subtest 'a change whose answer did not come in time' => sub {
	$mock->fault(kind => 'apply_hang', match => 'delta', user => 'slow', count => 0);
	# Where the machine is slow, the time may be over before anything is sent.
	ok(happens(sub {
		my $reply = $rest->request('POST', '/rpc/gateway_delta', role => 'quota_hasty', body => { user_id => 'slow', value => 5, reason => 'r' });

		return join(' ', $reply->{status}, map { $_ // '' } @{ $reply->{json} }{qw(code details hint)}) eq
		  '504 57014 Gateway "up" may have applied the request. Compare the user\'s balance before you try again.';
	}), '504, with what to do');
	cmp_ok(scalar(grep { $_->{user} eq 'slow' } $mock->applied), '>', 0, 'it was applied');
	$mock->clear_faults;
};

subtest 'figures and days' => sub {
	$node->safe_psql('quota', q{
		INSERT INTO quota_manager.bulk_call (key, user_id, value, reason, gateway, state)
			SELECT 'k', 'user' || n, 9007199254740993, 'r', 'up', 'in_doubt' FROM generate_series(10, 29) n;
		INSERT INTO quota_manager.quota_run (strategy_id, strategy_version, state, granted, amount, start_time, finish_time)
			SELECT id, 1, 'done', 1, 5, '2025-06-01 20:00+00', '2025-06-01 20:00+00' FROM quota_manager.quota_strategy});
	is_deeply(viewer('/bulk_call_rows?key=eq.k&select=value::text&limit=1')->{json}, [ { value => '9007199254740993' } ], 'a cast to text keeps all digits from any reader');

	my @users;
	my $last = '';
	while (my @page = map { $_->{user_id} } @{ viewer("/bulk_call_rows?key=eq.k&state=eq.in_doubt&user_id=gt.$last&order=user_id&limit=7&select=user_id")->{json} })
	{
		push @users, @page;
		$last = $page[-1];
	}
	is_deeply(\@users, [ map { "user$_" } 10 .. 29 ], 'rows of a bulk call, page by page');
	is(viewer('/grant_totals?select=day')->{json}[0]{day}, '2025-06-01', 'a day of the zone of the role');
	is(viewer('/grant_totals?select=day', Prefer => 'timezone=Asia/Shanghai')->{json}[0]{day}, '2025-06-02', 'and of the zone that is preferred');
};

subtest 'what a viewer must not do is refused, whatever it is' => sub {
	my $page = $rest->request('GET', '/', role => 'quota_viewer')->{json};
	my @changes = sort grep { $page->{paths}{$_}{post} && !$page->{paths}{$_}{get} } keys %{ $page->{paths} };
	my @admin = sort grep { /^\/rpc\// && !$page->{paths}{$_} } keys %{ $rest->request('GET', '/', role => 'quota_admin')->{json}{paths} };

	is_deeply(\@changes, [], 'the page of a viewer names no call that only changes');
	cmp_ok(scalar @admin, '>', 20, 'that of an administrator does');
	foreach my $path (@admin)
	{
		my ($function) = $path =~ m{([^/]+)$};
		my %body = map { $_ => undef } split /\n/, $node->safe_psql('quota', "SELECT unnest(proargnames[1:pronargs]) FROM pg_proc WHERE oid = 'quota_api.$function'::regproc");

		is($rest->request('POST', $path, role => 'quota_viewer', body => \%body)->{status}, 403, "POST $path by a viewer");
	}
};

$rest->stop;
done_testing();
