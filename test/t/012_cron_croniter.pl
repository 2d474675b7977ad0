# Random pairs of a schedule and an instant: next_firing() answers as python3-croniter does, a program of Debian's that
# has nothing of ours, wherever the two have the same rules. Where they do not, which test/croniter/pairs.py tells by
# rule, croniter is asked in its own words for what our rule gives, and its own answer has to be what its rule gives.
# These rules are those of croniter 1.3: other versions have others, and are not asked.
#
# QUOTA_MANAGER_CRON_PAIRS  how many pairs (20000; 1300000 in long runs, a million of them without a difference)
# QUOTA_MANAGER_SEED        repeats a choice of pairs

use strict;
use warnings FATAL => 'all';

use FindBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Seed;
use Test::More;
use Time::HiRes qw(time);

my $long = $ENV{QUOTA_MANAGER_LONG};
my $pairs = $ENV{QUOTA_MANAGER_CRON_PAIRS} || ($long ? 1_300_000 : 20_000);
my $seed = QuotaTest::Seed::start(20_120_229);
my $file = PostgreSQL::Test::Utils::tempdir() . '/pairs';

my $version = qx{/usr/bin/python3 -c 'import importlib.metadata as m; print(m.version("croniter"))' 2>&1};
plan skip_all => "croniter 1.3 is not there, but $1" if $version =~ /^(\d+\.\d+)/ && $1 ne '1.3';

my $started = time;
is(system("/usr/bin/python3 '$FindBin::RealBin/../croniter/pairs.py' $pairs $seed @{[ $long ? 'all' : '' ]} >'$file'"),
	0, 'croniter has answered; it is in the package python3-croniter')
  or die 'there is nothing to compare with';
note sprintf 'croniter took %.0f s', time - $started;

my $node = PostgreSQL::Test::Cluster->new('croniter');
$node->init;
$node->append_conf('postgresql.conf', 'fsync = off');
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION quota_manager');

$started = time;
$node->safe_psql('postgres', <<"SQL");
CREATE TABLE pair (schedule text, instant double precision, zone text, class text, wanted bigint, own bigint, explained boolean);
COPY pair FROM '$file' (NULL '');
-- What is an error has no answer; another error than the one that is due ends the test.
CREATE FUNCTION refused(schedule text) RETURNS bigint LANGUAGE plpgsql AS \$\$
BEGIN
	RETURN extract(epoch FROM quota_manager.next_firing(schedule::quota_manager.cron, now(), 'UTC'));
EXCEPTION WHEN invalid_parameter_value OR invalid_text_representation THEN
	RETURN NULL;
END
\$\$;
CREATE TABLE answer AS SELECT pair.*,
	CASE WHEN class IN ('never', 'refused') THEN refused(schedule)
	ELSE extract(epoch FROM quota_manager.next_firing(schedule::quota_manager.cron, to_timestamp(instant), zone)) END AS ours
FROM pair;
SQL
note sprintf 'next_firing took %.0f s', time - $started;

# The classes that stand alone; others are two of them together.
my @classes = qw(utc zone clock star_step whole_field sunday march never refused);
my %count;
foreach my $row (split /\n/, $node->safe_psql('postgres', <<'SQL'))
SELECT class, count(*), count(*) FILTER (WHERE own IS DISTINCT FROM ours),
	count(*) FILTER (WHERE ours IS DISTINCT FROM wanted), count(*) FILTER (WHERE NOT explained)
FROM answer GROUP BY class ORDER BY class COLLATE "C"
SQL
{
	my ($class, $number, $otherwise, $wrong, $unexplained) = split /\|/, $row;

	$count{$class} = $number;
	note "$class: $number pairs, croniter's own answer is another in $otherwise";
	is($wrong, 0, "$class: what croniter makes of our rules");
	is($unexplained, 0, "$class: what croniter says by itself is what its rules give");
	is($otherwise, 0, "$class: the same answers") if $class =~ /^(utc|zone)$/;
}
diag $_ foreach split /\n/, $node->safe_psql('postgres',
	'SELECT * FROM answer WHERE ours IS DISTINCT FROM wanted OR NOT explained LIMIT 10');
cmp_ok($count{$_} // 0, '>', 0, "there are pairs of the class $_") foreach @classes;
# Few zones are looked at in a short run, and one may be an odd one.
cmp_ok($count{utc} + $count{zone}, '>', $pairs / ($long ? 1.3 : 1.6), 'most have nothing that differs');
is($node->safe_psql('postgres', 'SELECT count(*) FROM answer'), $pairs, 'all pairs were compared');

$node->stop;
done_testing();
