# describe() tells schedules apart exactly if they fire differently: of thousands of random
# schedules, their neighbours that differ in one value, and families that the words could
# mistake for one another, those that read alike have the same values, and the other way.
#
# QUOTA_MANAGER_CRON_CASES  how many random schedules (2000)
# QUOTA_MANAGER_SEED        another seed than the usual one

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use QuotaTest::Schedules qw(pick between random_schedule);

my $cases = $ENV{QUOTA_MANAGER_CRON_CASES} || 2_000;
my $seed = $ENV{QUOTA_MANAGER_SEED} || 20_240_229;

# second, minute, hour, day of month, month and day of week: lowest and highest
my @bounds = ([ 0, 59 ], [ 0, 59 ], [ 0, 23 ], [ 1, 31 ], [ 1, 12 ], [ 0, 6 ]);
my @longest_month = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31);

my %schedules;

sub members { return join ',', sort { $a <=> $b } keys %{ $_[0] } }

# Six fields, each its text and a hash of its values: added with what they mean, unless
# the date never comes.
sub add
{
	my ($texts, $values) = @_;
	my @sets = map { members($_) } @$values;
	my @full = map { keys %{ $values->[$_] } > $bounds[$_][1] - $bounds[$_][0] } 0 .. 5;
	my $both = grep { /^[*?]/ } @{$texts}[ 3, 5 ];
	my $days =
	    $both
	  ? $full[3] && $full[5] ? 'all' : "$sets[3] and $sets[5]"
	  : $full[3] || $full[5] ? 'all'
	  :                        "$sets[3] or $sets[5]";

	return
	  if !grep { my $month = $_; grep { $_ <= $longest_month[ $month - 1 ] } keys %{ $values->[3] } } keys %{ $values->[4] };
	$schedules{ join ' ', @$texts } = join '; ', @sets[ 0 .. 2 ], $texts->[2] eq '*' ? 'hourly' : 'daily', $days, $sets[4];
	return;
}

sub set { return { map { $_ => 1 } @_ } }

sub star
{
	my ($field) = @_;
	return ('*', set($bounds[$field][0] .. $bounds[$field][1]));
}

# The schedule with another set, written as a list, in one field.
sub add_with
{
	my ($texts, $values, $field, $set) = @_;
	my (@texts, @values) = @$texts;

	return if !%$set;
	@values = @$values;
	$texts[$field] = members($set);
	$values[$field] = $set;
	add(\@texts, \@values);
	return;
}

srand $seed;
note("seed $seed, $cases random schedules");

foreach my $i (1 .. $cases)
{
	my $schedule = random_schedule();
	my @texts = ($schedule->{second}, @{ $schedule->{texts} });
	my @values = (set($schedule->{second}), @{ $schedule->{values} });

	add(\@texts, \@values);
	foreach my $field (0 .. 5)
	{
		my %set = %{ $values[$field] };
		my $value = between(@{ $bounds[$field] });

		delete $set{$value} or $set{$value} = 1;
		add_with(\@texts, \@values, $field, \%set);
	}
}

# In each field everything from one value to another in steps, the other fields being such as have words of their own.
foreach my $field (0 .. 5)
{
	my ($low, $high) = @{ $bounds[$field] };

	foreach my $context (1 .. 4)
	{
		my (@texts, @values);

		foreach my $other (0 .. 5)
		{
			my ($first, $last) = @{ $bounds[$other] };
			my ($text, $set) = star($other);
			my $from = between($first, $last);

			($text, $set) = ($from, set($from)) if $other < 2 ? $context != 3 : $context % 3 == 1;
			($text, $set) = ("$from-$last", set($from .. $last)) if $other == 2 && $context % 2 == 1;
			push @texts, $text;
			push @values, $set;
		}
		foreach my $from ($low .. $high)
		{
			foreach my $to ($from .. $high)
			{
				foreach my $step (1, pick(2 .. 6), pick(7 .. 30))
				{
					my $set = set(grep { ($_ - $from) % $step == 0 } $from .. $to);

					add_with(\@texts, \@values, $field, $set);
				}
			}
		}
	}
}

# Days of month written with an asterisk and without: both kinds of days must match, or either.
foreach my $step (1 .. 31)
{
	foreach my $weekday (0 .. 6)
	{
		my $days = set(grep { $_ % $step == 1 % $step } 1 .. 31);
		my ($month, $months) = rand() < 0.5 ? star(4) : (2, set(2));
		my @values = (set(0), set(0), set(8), $days, $months, set($weekday));

		add([ 0, 0, 8, $_, $month, $weekday ], \@values) foreach "*/$step", members($days);
	}
}

my @texts = sort keys %schedules;
my $node = PostgreSQL::Test::Cluster->new('describe');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION quota_manager');
my @words = split /\n/, $node->safe_psql('postgres', <<"SQL");
CREATE TEMP TABLE asked (n integer, schedule quota_manager.cron);
COPY asked FROM stdin;
@{[ join "", map { "$_\t$texts[$_]\n" } 0 .. $#texts ]}\\.
SELECT quota_manager.describe(schedule) FROM asked ORDER BY n;
SQL
$node->stop;

my (%meanings, %words);
my %wrong = (alike => 0, different => 0);
foreach my $n (0 .. $#texts)
{
	my $meaning = $schedules{ $texts[$n] };
	my $alike = $meanings{ $words[$n] } //= [ $meaning, $texts[$n] ];
	my $same = $words{$meaning} //= [ $words[$n], $texts[$n] ];

	diag("\"$texts[$n]\" and \"$alike->[1]\" are both $words[$n]") if $alike->[0] ne $meaning && $wrong{alike}++ < 10;
	diag("\"$texts[$n]\" is $words[$n], \"$same->[1]\" is $same->[0]") if $same->[0] ne $words[$n] && $wrong{different}++ < 10;
}
note(scalar(@texts) . ' schedules, ' . scalar(keys %words) . ' meanings');
is(scalar @words, scalar @texts, 'words for every schedule');
cmp_ok(scalar(keys %words), '>', 3 * $cases, 'of many different meanings');
cmp_ok(scalar(keys %words), '<', scalar @texts, 'some of them written in two ways');
is($wrong{alike}, 0, 'what reads alike is the same');
is($wrong{different}, 0, 'what is the same reads alike');

done_testing();
