
# How fast the API is through PostgREST, with wrk on the same machine:
#
#   make prove PROVE_TESTS=bench/http.pl PROVE_FLAGS=-v
#
# GRANTS (1,000,000) grants of five strategies are there. Each request goes over one connection (latency: median and 99th
# percentile) and then over four (requests a second), for SECONDS (5) each.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../test/perl";

use PostgreSQL::Test::Utils;
use QuotaTest::HttpServer;
use Test::More;

my $missing = QuotaTest::HttpServer::missing();
plan skip_all => $missing if defined $missing;

my $users = int(($ENV{GRANTS} // 1_000_000) / 5);
my $seconds = $ENV{SECONDS} // 5;
my $node = QuotaTest::HttpServer::http_node('http_bench', roles => 1);

$node->append_conf('postgresql.conf', "fsync = on\nshared_buffers = 512MB\nmax_wal_size = 4GB\n");
$node->restart;
$node->safe_psql('quota', qq{
	INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('g', 'zgsm', 'http://127.0.0.1:9', true);
	INSERT INTO quota_manager.user_info (id, vip, org) SELECT 'user' || n, n % 4, 'org' || n % 100 FROM generate_series(1, $users) n;
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) SELECT 's' || n, 'single', 1, 'm', 'true()' FROM generate_series(1, 5) n},
	timeout => 600);
$node->safe_psql('quota', 'SELECT quota_manager.scan()', timeout => 900);
$node->safe_psql('quota', 'VACUUM ANALYZE', timeout => 600);

my $rest = QuotaTest::HttpServer->start($node);
my $middle = $node->safe_psql('quota', 'SELECT min(id) + (max(id) - min(id)) / 2 FROM quota_manager.quota_execute');
my $some_user = 'user' . int($users / 2);
my @requests = (
	[ 'one strategy', 'GET', '/strategies?id=eq.1' ],
	[ 'newest 50 executions', 'GET', '/executions?order=id.desc&limit=50' ],
	[ '50 executions in the middle, by id', 'GET', "/executions?id=lt.$middle&order=id.desc&limit=50" ],
	[ 'one user\'s executions', 'GET', "/executions?user_id=eq.$some_user&order=id.desc" ],
	[ 'rpc: describe', 'POST', '/rpc/describe', '{"schedule": "0 8 * * *"}' ],
	[ 'rpc: preview, 50 users', 'GET', '/rpc/preview?condition=is-vip(2)&limit=50' ],
	[ 'PATCH of a user', 'PATCH', "/users?id=eq.$some_user", '{"vip": 2}' ],);

# Figures of wrk: requests a second, median and 99th percentile in ms, requests that failed.
sub measure
{
	my ($connections, $method, $path, $body) = @_;
	my $script = PostgreSQL::Test::Utils::tempdir() . '/request.lua';
	my $token = $rest->token('quota_operator');
	my $out;

	append_to_file($script, qq{
		wrk.method = "$method"
		wrk.headers["Authorization"] = "Bearer $token"
		wrk.headers["Content-Type"] = "application/json"
		} . (defined $body ? "wrk.body = [[$body]]" : '') . q{
		function done(summary, latency)
			io.write(string.format("figures %f %f %f %d\n", summary.requests / summary.duration * 1e6,
				latency:percentile(50) / 1000, latency:percentile(99) / 1000, summary.errors.status + summary.errors.timeout))
		end});
	IPC::Run::run([ 'wrk', '-t', 1, '-c', $connections, '-d', "${seconds}s", '-s', $script, $rest->url . $path ], '<', '/dev/null', '>', \$out) or die 'wrk failed';
	return $out =~ /^figures (\S+) (\S+) (\S+) (\d+)/m;
}

foreach my $request (@requests)
{
	my ($name, @what) = @$request;
	my ($median, $slowest, $failed) = (measure(1, @what))[ 1 .. 3 ];
	my ($rate, $failed_too) = (measure(4, @what))[ 0, 3 ];

	is($failed + $failed_too, 0, sprintf '%-36s median %.1f ms, 99 %% %.1f ms; %.0f requests a second', $name, $median, $slowest, $rate);
}
done_testing();
