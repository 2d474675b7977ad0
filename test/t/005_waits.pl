
# A wait that times out fails its test, and says what it waited for and what it saw last.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Wait qw(becomes_true wait_until wait_for happens);
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('waits');
$node->init;
$node->start;

# What code dies of.
sub death
{
	my ($code) = @_;

	return eval { $code->(); 1 } ? 'none' : $@;
}

subtest 'what comes true in time' => sub {
	my $calls = 0;

	is(death(sub { wait_until($node, 'SELECT true') }), 'none', 'a query');
	is(death(sub { wait_until($node, 'SHOW port', result => $node->port) }), 'none', 'a result');
	is(death(sub { wait_until($node, 'SELECT current_database()', result => 'template1', database => 'template1') }), 'none', 'another database');
	is(death(sub { wait_for('three calls', sub { ++$calls == 3 }) }), 'none', 'code, which is called again');
	ok(becomes_true($node, 'SELECT true'), 'a query, as a check');
	ok(happens(sub { ++$calls == 5 }), 'code, as a check');
};

subtest 'what does not' => sub {
	my $about_this_file = qr/at \S*005_waits\.pl line \d+/;

	like(death(sub { wait_until($node, 'SELECT 1 = 2', seconds => 0.1) }),
		qr/^not in time: SELECT 1 = 2\nwanted: t\nlast: f.*$about_this_file/, 'a query: dies, with what it saw');
	like(death(sub { wait_until($node, 'SELECT 1 / 0', seconds => 0.1) }), qr/last: .*division by zero/, 'an error: dies, with the error');
	like(death(sub { wait_for('a third call', sub { $_ = 'the second'; return 0 }, 0.1) }),
		qr/^not in time: a third call\nlast: the second $about_this_file/, 'code: dies, with what it saw');
	like(death(sub { wait_for('nothing', sub { 0 }, 0.1) }), qr/^not in time: nothing\nlast: not known/, 'code that says nothing: dies');
	ok(!happens(sub { 0 }, 0.1), 'code, as a check: it is false');
};

subtest 'a check whose result nobody uses' => sub {
	like(death(sub { becomes_true($node, 'SELECT true'); return }), qr/not checked/, 'becomes_true() dies');
	like(death(sub { happens(sub { 1 }); return }), qr/not checked/, 'happens() dies');
};

subtest 'a test file' => sub {
	my $folder = PostgreSQL::Test::Utils::tempdir();
	my $file = "$folder/late.pl";
	local @ENV{qw(TESTDIR TESTDATADIR TESTLOGDIR)} = ($folder) x 3;
	my ($out, $code);

	append_to_file($file, <<'PERL');
use strict;
use warnings FATAL => 'all';
use QuotaTest::Wait qw(wait_for);
use Test::More;
ok(1, 'one');
wait_for('what never comes', sub { 0 }, 0.1);
ok(1, 'two');
done_testing();
PERL
	IPC::Run::run([ $^X, (map { ('-I', $_) } @INC), $file ], '<', '/dev/null', '>', \$out, '2>&1');
	$code = $?;
	isnt($code, 0, 'fails by a wait that it does not check');
	# where the log is depends on the major
	my ($log) = glob "$folder/regress_log_late* $folder/*/regress_log_late* $folder/*/*/regress_log_late*";
	like(slurp_file($log), qr/not in time: what never comes/, 'says why in its log');
	like($out, qr/^ok 1 - one$/m, 'ran until then');
	unlike($out, qr/two/, 'and does not go on');
};

subtest 'every test' => sub {
	foreach my $file (glob("$FindBin::RealBin/*.pl $FindBin::RealBin/../perl/QuotaTest/*.pm"))
	{
		my $source = slurp_file($file);
		my @bare = $file =~ /005_waits|Wait\.pm/ ? () : $source =~ /^.*\bpoll_query_until\b.*$/gm;

		is("@bare", '', ($file =~ s{.*/}{}r) . ': waits by this library');
	}
};

$node->stop;
done_testing();
