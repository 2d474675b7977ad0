
# Every example of the condition language gives what it says, with the condition
# as a constant that is planned and as the value of a column that is executed.
#
# The examples are in test/data/condition_examples.tsv: id, expression, user,
# expected (true, false, null: undecided, error), note, with the escapes
# \\ \t \n \r. QUOTA_MANAGER_EXAMPLES names another such file to try besides.

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Encode qw(encode);
use PostgreSQL::Test::Utils;
use QuotaTest::ConditionExamples qw(read_examples user_of);
use QuotaTest::ConditionNode qw(condition_node);
use QuotaTest::ConditionOracle qw(parse check evaluate);
use QuotaTest::ConditionPaths;
use Test::More;

my @examples = read_examples("$FindBin::RealBin/../data/condition_examples.tsv");
push @examples, read_examples($ENV{QUOTA_MANAGER_EXAMPLES})
  if $ENV{QUOTA_MANAGER_EXAMPLES};
ok(@examples > 100, scalar(@examples) . ' examples');

# Each condition is asked of every user; an example looks at its own.
my (@users, %place);
foreach my $example (@examples)
{
	$place{ $example->{user} } //= push(@users, user_of($example->{user})) - 1;
}

my $node = condition_node('examples');
my $paths = QuotaTest::ConditionPaths->new($node, \@users);
my $answers = $paths->ask({ map { ($_ => $examples[$_]{expression}) } 0 .. $#examples });

my %letter = (true => 't', false => 'f', null => 'n');
foreach my $n (0 .. $#examples)
{
	my ($example, $answer) = ($examples[$n], $answers->{$n});
	my $expected = $example->{expected};
	my $place = $place{ $example->{user} };
	my $name = "$example->{id}: " . abridged($example->{expression}) . " is $expected";

	is(oracle($example->{expression}, $users[$place]), $expected, "$name by the oracle");
	is($answer->{raised}, undef, "$name: check_condition does not raise");
	if ($expected eq 'error')
	{
		ok(!$answer->{valid}, "$name: not valid");
		like($answer->{sqlstate} // '', qr/^(?:22|42|54)/, "$name: SQLSTATE");
		isnt($answer->{message} // '', '', "$name: message");
		is($answer->{planned}, '!' . ($answer->{sqlstate} // ''), "$name planned");
		is($answer->{executed}, '!' . ($answer->{sqlstate} // ''), "$name executed");
	}
	else
	{
		ok($answer->{valid}, "$name: valid") or diag($answer->{message});
		is(substr($answer->{planned}, $place, 1), $letter{$expected}, "$name planned");
		is(substr($answer->{executed}, $place, 1), $letter{$expected}, "$name executed");
	}
}

# One query over conditions and users, whichever of them the join has outside:
# a compiled condition is never taken for another.
foreach my $order ('stored, person', 'person, stored')
{
	my %of = (stored => 'quota_test.stored c', person => 'quota_test.person p');
	my $from = join ' CROSS JOIN ', map { $of{$_} } split /, /, $order;
	my $rows = $node->safe_psql('postgres', qq{
		SET join_collapse_limit = 1; SET enable_material = off;
		SELECT c.n || ' ' || string_agg(
			CASE WHEN p.s OPERATOR(quota_manager.@@) c.condition THEN 't'
				WHEN quota_manager.may_match(p.s, c.condition) THEN 'n' ELSE 'f' END,
			'' ORDER BY p.n)
		FROM $from GROUP BY c.n});
	my %seen = map { split / / } split /\n/, $rows;
	my @other = grep { $seen{$_} ne $answers->{$_}{executed} } keys %seen;

	ok(keys %seen > 50, "$order: " . keys(%seen) . ' conditions');
	is("@other", '', "$order: the same answers");
}

# What is not a number is not a balance: nobody could read it, so it grants
# nothing, negated or not.
foreach my $balances ('{}', 'null', '[10]', '5', '{"default": null}',
	'{"default": "5"}', '{"default": "NaN"}', '{"default": [5]}', '{"Default": 5}')
{
	foreach my $condition ('quota-le("m", 10)', 'not(quota-le("m", 10))')
	{
		is( $node->safe_psql('postgres', qq{
			SELECT s OPERATOR(quota_manager.@@) '$condition' IS TRUE,
				quota_manager.may_match(s, '$condition')
			FROM (SELECT ROW('u', NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL,
				'$balances')::quota_manager.subject OFFSET 0) row (s)}),
			'f|t', "$condition is undecided where the balances are $balances");
	}
}

$node->stop('fast');
done_testing();


sub oracle
{
	my ($text, $user) = @_;
	my ($tree, $error) = parse($text);

	return 'error' if $error || check($tree);
	return evaluate($tree, $user);
}

# A condition short enough for the name of a test, in bytes as test names are.
sub abridged
{
	my ($text) = @_;

	$text =~ s/\s+/ /g;
	$text = substr($text, 0, 57) . '...' if length $text > 60;
	return encode('UTF-8', $text);
}
