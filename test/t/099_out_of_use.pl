# A broken strategy can always be put out of use, whatever it is that is broken: with values that only a restore can write,
# or what it refers to gone. And whatever comes of it, it stops no other.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node add_gateway);
use Test::More;

my $node = scan_node('out_of_use');

add_gateway($node, 'postgres');
$node->safe_psql('postgres', q{
	CREATE ROLE operator_role; SELECT quota_manager.grant_access('operator_role', 'operator');
	INSERT INTO quota_manager.user_info (id) VALUES ('ada');
	CREATE FUNCTION quota_condition.goes(s quota_manager.subject) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN true});

# Rows as a restore writes them. The first of each are as they should be.
my %column = (
	version => [ '1', '2147483647' ],
	periodic_expr => [ q{'* * * * *'}, q{'* * * * * *'}, q{'0 0 29 2 *'}, q{'CRON_TZ=No/Such * * * * *'} ],
	time_zone => [ q{'UTC'}, q{'No/Such'}, q{'Asia/Shanghai'} ],
	condition => [ 'true()', 'goes()', 'no-such()' ],
	model => [ q{'m'}, q{'no model'} ],
	amount => [ '1', '0.0000001', '1e300' ],
	catch_up => [ q{'latest'}, q{'all'}, q{'none'} ],
	catch_up_window => [ 'NULL', q{'100 years'} ],
	valid_from => [ q{'-infinity'}, q{'4714-11-24 00:00:00+00 BC'}, q{'294276-12-31 23:59:59+00'} ],
	valid_until => [ q{'infinity'}, q{'4714-11-24 00:00:01+00 BC'}, q{'294276-12-31 23:59:59.999999+00'} ],
	schedule_since => [ q{'2025-01-01 00:00:00+00'}, q{'4714-11-24 00:00:00+00 BC'}, q{'294276-12-31 23:59:59+00'}, q{'1970-01-01 00:00:00+00'} ],
	max_exec_per_user => [ 'NULL', '2147483647' ]);
my @names = sort keys %column;
my @rows;

sub row
{
	my (%value) = @_;

	return { (map { $_ => $column{$_}[0] } @names), %value };
}

foreach my $name (@names)
{
	push @rows, row($name => $_) foreach @{ $column{$name} };
}
push @rows, row(map { my $values = $column{$_}; ($_ => $values->[ rand @$values ]) } @names) foreach 1 .. ($ENV{QUOTA_MANAGER_LONG} ? 2000 : 150);

my $inserted = 0;
foreach my $i (0 .. $#rows)
{
	my %value = %{ $rows[$i] };
	my ($status) = $node->psql('postgres', sprintf q{INSERT INTO quota_manager.quota_strategy (name, type, %s) VALUES ('s%d', 'periodic', %s)},
		join(', ', @names), $i, join(', ', map { $_ eq 'condition' ? "'$value{$_}'" : $value{$_} } @names));

	# A constraint refuses some.
	$inserted++ if $status == 0;
}
cmp_ok($inserted, '>', @rows / 3, "$inserted of " . @rows . ' strategies can be stored');
$node->safe_psql('postgres', q{
	DROP FUNCTION quota_condition.goes;
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('good', 'single', 1, 'm', 'true()')});

my ($status, $out, $err);
subtest 'looked at and run, with every other' => sub {
	($status, $out, $err) = $node->psql('postgres', q{SET statement_timeout = '300s'; SELECT count(*) > 0 FROM quota_manager.strategy_due});
	is("$status $out", '0 t', 'strategy_due tells of them') or diag $err;
	($status, $out, $err) = $node->psql('postgres', q{SET statement_timeout = '300s'; CALL quota_manager.tick()});
	is($status, 0, 'tick() runs what can be run') or diag $err;
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name = 'good'}), 1,
		'the one that is good was');
};

# A copy can be resumed with them.
($status, $out, $err) = $node->psql('postgres', q{SET client_min_messages = error; SET statement_timeout = '300s';
	UPDATE quota_manager.quota_installation SET system_identifier = 1; SELECT quota_manager.resume('may_have_run') IS NOT NULL});
is("$status $out", '0 t', 'resume() passes them over') or diag $err;

subtest 'each, by an operator' => sub {
	my $failed = 0;
	foreach my $i (0 .. $#rows)
	{
		my $how = $i % 2 ? 'enabled = false' : 'archived = true';

		($status, $out, $err) = $node->psql('postgres', qq{SET ROLE operator_role; SET client_min_messages = error; SET statement_timeout = '60s';
			UPDATE quota_manager.quota_strategy SET $how WHERE name = 's$i'});
		next if $status == 0 && $err eq '';
		$failed++;
		diag join(', ', map { "$_ = $rows[$i]{$_}" } @names), "\n$err";
	}
	is($failed, 0, 'each can be put out of use');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_strategy WHERE name <> 'good' AND enabled AND NOT archived}), 0, 'and is');
};

$node->stop;
done_testing();
