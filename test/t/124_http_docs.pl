
# What can be told of docs/http.md and examples/http without a PostgREST: its statements run, its shell lines can be read,
# no endpoint is left out, and systemd accepts the unit.

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run ();
use PostgreSQL::Test::Utils;
use QuotaTest::HttpServer;
use QuotaTest::Walkthrough;
use Test::More;

my $root = "$FindBin::RealBin/../..";
my $folder = PostgreSQL::Test::Utils::tempdir();
my $node = QuotaTest::HttpServer::http_node('http_docs');
my @steps = QuotaTest::Walkthrough::steps("$root/docs/http.md");

subtest 'the comments among them belong to what was asked over HTTP' => sub {
	foreach my $step (grep { $_->{kind} eq 'sql' && $_->{end} } @steps)
	{
		my ($code, $out, $err) = $node->psql('quota', $step->{text}, on_error_stop => 1);

		is("$code$err", '0', "line $step->{line}: the statements run");
		like($out, qr/^eyJ[\w-]+\.[\w-]+\.[\w-]{43}$/m, 'a token comes out') if $step->{text} =~ /pg_temp\.token\('/;
	}
	is($node->safe_psql('quota', q{
			SELECT string_agg(r.rolname || ' ' || has_table_privilege(r.oid, 'quota_api.strategies', 'SELECT'), ', ' ORDER BY r.rolname)
			FROM pg_roles r WHERE pg_has_role('authenticator', r.oid, 'MEMBER')}),
		'authenticator false, quota_admin true, quota_operator true, quota_viewer true', 'authenticator itself may do nothing');

	foreach my $step (grep { $_->{kind} eq 'sh' } @steps)
	{
		my $err;

		IPC::Run::run([ 'bash', '-n' ], '<', \$step->{text}, '2>', \$err);
		is($err, '', "line $step->{line}: bash can read it");
	}

	my $lines = join '', map { $_->{text} } grep { $_->{kind} eq 'sh' } @steps;
	is(join(' ', grep { $lines !~ m{"\$API/\Q$_\E["?]} } QuotaTest::HttpServer::endpoints($node)), '', 'every endpoint has a curl line');
};

# Settings that PostgREST does not know are not reported by it.
my %known = map { $_ => 1 } qw(
  admin-server-host admin-server-port db-aggregates-enabled db-anon-role db-channel db-channel-enabled db-config db-extra-search-path
  db-max-rows db-plan-enabled db-pool db-pool-acquisition-timeout db-schemas db-tx-end db-uri jwt-aud jwt-secret log-level
  openapi-mode openapi-security-active server-host server-port);
my @set = slurp_file("$root/examples/http/postgrest.conf") =~ /^(?:# )?([a-z-]+) = /gm;
cmp_ok(scalar(@set), '>=', 15, 'the sample configuration has settings');
is(join(' ', grep { !$known{$_} } @set), '', 'all of them are settings of PostgREST');

SKIP:
{
	skip 'there is no systemd-analyze', 1 if !grep { -x "$_/systemd-analyze" } File::Spec->path;
	skip 'systemd was never here: systemd-analyze needs /run/systemd, which only root can make', 1 if !-d '/run/systemd';

	my $unit = slurp_file("$root/examples/http/postgrest.service") =~ s{/usr/local/bin/postgrest}{/bin/true}r;
	my $err;

	append_to_file("$folder/quota-manager-http.service", $unit);
	IPC::Run::run([ 'systemd-analyze', 'verify', '--man=no', "$folder/quota-manager-http.service" ], '>', '/dev/null', '2>', \$err);
	is($err, '', 'systemd accepts the unit');
}

done_testing();
