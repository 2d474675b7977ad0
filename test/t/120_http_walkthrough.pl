
# Every curl line of docs/http.md is run against a PostgREST with the sample configuration, in the document's order, and
# its answer is the one that the document shows.

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use POSIX ();
use PostgreSQL::Test::Utils;
use QuotaTest::Mock;
use QuotaTest::HttpServer;
use QuotaTest::Wait qw(happens);
use QuotaTest::Walkthrough;
use Test::More;

my $missing = QuotaTest::HttpServer::missing();
plan skip_all => $missing if defined $missing;

my $node = QuotaTest::HttpServer::http_node('http', drafts => 1);
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'secret');
my $key_file = PostgreSQL::Test::Utils::tempdir() . '/jwt.secret';

append_to_file($key_file, "$QuotaTest::HttpServer::secret\n");

my @steps = QuotaTest::Walkthrough::steps("$FindBin::RealBin/../../docs/http.md");
my $walk = QuotaTest::Walkthrough->new(
	sql => sub { $node->safe_psql('quota', $_[0]) },
	replace => { '/etc/quota-manager/jwt.secret' => $key_file, 'http://127.0.0.1:8080' => $mock->url });
my $rest;

cmp_ok(scalar(grep { defined $_->{answer} } @steps), '>=', 40, 'the document has answers to compare');
foreach my $step (@steps)
{
	# It logs in as the role that the first statements make.
	if (!$rest && $step->{kind} eq 'sh')
	{
		$rest = QuotaTest::HttpServer->start($node, set => { 'jwt-secret' => "\@$key_file" });
		$walk->{replace}{'http://127.0.0.1:3000'} = $rest->url;
	}
	$walk->run_step($step);
}

# A test that is killed leaves no server behind.
pipe(my $from, my $to) or die "no pipe: $!";
pipe(my $held, my $holder) or die "no pipe: $!";
my $child = fork() // die "cannot fork: $!";
if ($child == 0)
{
	# Without the end of a test, which would stop the cluster.
	my $other = eval { QuotaTest::HttpServer->start($node) } // POSIX::_exit(1);

	syswrite($to, $other->url . "\n");
	# Until it is killed, or the test ends without doing so.
	close $holder;
	readline $held;
	POSIX::_exit(1);
}
close $to;
my $url = readline($from) // die 'the other server did not start';
chomp $url;
kill 'KILL', $child;
waitpid $child, 0;
ok(happens(sub { $rest->{http}->get($url)->{status} == 599 }), 'a server ends with its test');

unlike($rest->log, qr/\b50[03]\b/, 'PostgREST answered nothing with 500 or 503');
done_testing();
