
# What postgrest-js and Python's postgrest do with the API: the scripts are in test/http. The libraries are looked for
# with NODE_PATH and PYTHONPATH; where there is none, that part says so.

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run ();
use PostgreSQL::Test::Utils;
use QuotaTest::Mock;
use QuotaTest::HttpServer;
use Test::More;

my $missing = QuotaTest::HttpServer::missing();
plan skip_all => $missing if defined $missing;

my $scripts = "$FindBin::RealBin/../http";
my %client = (
	'postgrest-js' => {
		look => [ 'node', '-e', q{require.resolve('@supabase/postgrest-js')} ],
		run => [ 'node', "$scripts/postgrest-js.cjs" ],
	},
	'Python\'s postgrest' => {
		look => [ 'python3', '-c', 'import postgrest' ],
		run => [ 'python3', "$scripts/python_client.py" ],
	},);
my %found = map { $_ => _runs(@{ $client{$_}{look} }) } keys %client;

# Whether a command ends well.
sub _runs
{
	my (@command) = @_;

	return eval { IPC::Run::run([@command], '<', '/dev/null', '>', '/dev/null', '2>', '/dev/null') };
}

plan skip_all => 'neither postgrest-js nor Python\'s postgrest is installed' if !grep { $_ } values %found;

my $node = QuotaTest::HttpServer::http_node('http_clients', roles => 1);
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'secret');

$node->safe_psql('quota', qq{
	INSERT INTO quota_manager.quota_credential VALUES ('up', 'secret');
	INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, credential, is_default) VALUES ('up', 'higress', '${\$mock->url}', 'row:up', true)});

my $rest = QuotaTest::HttpServer->start($node);
local $ENV{API} = $rest->url;
local $ENV{OPERATOR} = $rest->token('quota_operator');
local $ENV{VIEWER} = $rest->token('quota_viewer');

foreach my $name (sort keys %client)
{
  SKIP:
	{
		skip "$name is not installed", 1 if !$found{$name};

		my ($out, $err);
		my @steps;

		IPC::Run::run([ 'timeout', '120', @{ $client{$name}{run} } ], '<', '/dev/null', '>', \$out, '2>', \$err);
		@steps = $out =~ /^(?:not )?ok .*\n(?:#.*\n)*/gm;
		cmp_ok(scalar(@steps), '>=', 18, "$name: all was tried") or diag("$out\n$err");
		foreach my $step (@steps)
		{
			my ($not, $what) = $step =~ /^(not )?ok (.*)/;

			ok(!$not, "$name: $what") or diag($step);
		}
	}
}
unlike($rest->log, qr/" 50[03] /, 'nothing was answered with 500 or 503');
done_testing();
