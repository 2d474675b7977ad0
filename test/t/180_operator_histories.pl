
# Random histories of all that operators can do, against a model: test/perl/QuotaTest/OperatorHistory.pm and OperatorModel.pm.
# QUOTA_MANAGER_SEED=N plays the histories of a seed; QUOTA_MANAGER_LONG=1: many more.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Mock;
use QuotaTest::OperatorHistory;
use QuotaTest::Seed;
use Test::More;
use Time::HiRes qw(time);

my $long = $ENV{QUOTA_MANAGER_LONG};
my $first = QuotaTest::Seed::start(180);
my $seconds = $ENV{QUOTA_MANAGER_SECONDS} // ($long ? 900 : 25);
my $steps = $ENV{QUOTA_MANAGER_STEPS} // 60;

my $node = PostgreSQL::Test::Cluster->new('histories');
$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', <<'CONF');
restart_after_crash = on
log_min_messages = info
log_statement = none
shared_preload_libraries = 'quota_manager'
max_worker_processes = 16
quota_manager.worker_role = 'quota_worker'
quota_manager.poll_interval = 100ms
quota_manager.retry_base = 1ms
quota_manager.retry_max = 5ms
quota_manager.linger = 100ms
quota_manager.surge_factor = 3
quota_manager.surge_minimum = 8
quota_manager.lint_on_write = off
CONF
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE history TEMPLATE template0');
$node->safe_psql('history', q{
	CREATE ROLE quota_worker LOGIN;
	CREATE EXTENSION quota_manager;
	SELECT quota_manager.grant_access('quota_worker', 'worker'), quota_manager.stop_workers()});

my %mocks = (
	hold => QuotaTest::Mock->start(dialect => 'zgsm', lifetime => 7200),
	resend => QuotaTest::Mock->start(dialect => 'higress', lifetime => 7200),
	reconcile => QuotaTest::Mock->start(dialect => 'zgsm', lifetime => 7200));
my %number;

sub history
{
	my ($seed, $length, $skip) = @_;

	return QuotaTest::OperatorHistory->new(node => $node, mocks => \%mocks, seed => $seed, workers => $seed % 3 == 0, steps => $length, skip => $skip, number => \%number);
}

# What went wrong, without numbers and names.
sub kind_of
{
	my ($problem) = @_;

	return $problem =~ s/\n.*//sr =~ s/\b[su]?\d+\b/N/gr;
}

# Leaves steps out as long as the same goes wrong.
sub shrink
{
	my ($seed, $history, $problem) = @_;
	my $length = $history->{step};
	my %skip;
	my $smallest = $history;
	my $end = time() + ($ENV{QUOTA_MANAGER_SHRINK} // 30);

	for (my $size = int($length / 2); $size >= 1; $size = int($size / 2))
	{
		for (my $from = 1; $from <= $length && time() < $end; $from += $size)
		{
			my %less = (%skip, map { $_ => 1 } $from .. $from + $size - 1);
			my $try = history($seed, $length, \%less);

			next if keys %less == keys %skip;
			my $found = $try->play // next;
			next if kind_of($found) ne kind_of($problem);
			%skip = %less;
			$smallest = $try;
			$smallest->note_line($found =~ s/^/-- /gmr);
		}
	}
	return $smallest;
}

my $end = time() + $seconds;
my ($rounds, %counts) = (0);
while (time() < $end)
{
	my $seed = $first + $rounds++;
	my $history = history($seed, $steps);
	my $problem = $history->play;

	$counts{$_} += $history->{counts}{$_} foreach keys %{ $history->{counts} };
	next if !defined $problem;
	fail("history $seed");
	diag("PROBLEM: $problem");
	my $file = "$PostgreSQL::Test::Utils::log_path/history-$seed.sql";
	my $shorter = shrink($seed, $history, $problem);
	PostgreSQL::Test::Utils::append_to_file($file, $history->script . "\n-- the same with steps left out\n" . $shorter->script);
	diag("its statements are in $file; the shortest:\n" . $shorter->script);
	last if !$long;
}
note("$rounds histories: " . join ', ', map { "$counts{$_} $_" } sort keys %counts);
ok($rounds > 0, 'histories were played');
done_testing();
