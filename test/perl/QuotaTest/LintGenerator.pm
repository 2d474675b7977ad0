
=pod

=head1 NAME

QuotaTest::LintGenerator - conditions of which much follows, and strategies with a known fault

=head1 SYNOPSIS

  my $generator = QuotaTest::LintGenerator->new($seed);
  my $text = $generator->condition($depth, @facts);
  my @sql = QuotaTest::LintGenerator::product(@facts);
  my $fault = $generator->planted;

Calls are about few values, so that most random conditions have parts that contradict each other or follow from
each other. C<product> is a query for users with all combinations of the values that calls can tell apart.

=cut

package QuotaTest::LintGenerator;

use strict;
use warnings FATAL => 'all';
use utf8;

use List::Util qw(shuffle);

# What calls ask about: the calls, and values of the column of which each call tells some apart.  Models m and n have one
# gateway, o another.
my %facts = (
	vip => {
		calls => [ map { "is-vip($_)" } -1 .. 3 ],
		values => [ map { "s.vip = $_" } 'NULL', -2 .. 3 ] },
	user => {
		calls => [ 'match-user("u1")', 'match-user("u2")', 'match-user("u1", "u2")', 'match-user("u2", "u3")' ],
		values => [ map { "s.id = '$_'" } 'u1' .. 'u4' ] },
	org => {
		calls => [ 'belong-to("a")', 'belong-to("b")', 'belong-to("b", "a")', 'belong-to("a", "")', 'belong-to("A", "c")' ],
		values => [ map { "s.org = $_" } 'NULL', map { "'$_'" } '', 'a', 'b', 'A', 'c', 'd' ] },
	register => {
		calls => [ map { qq{register-before("$_")} } '2024-01-01 00:00:00', '2024-01-01T08:00:00+08:00', '2024-06-01 00:00:00', '2025-01-01 00:00:00' ],
		values => [ map { "s.register_time = $_" } 'NULL', map { "'$_'" } '2023-12-31 23:59:59.999999Z', '2024-01-01Z', '2024-06-01Z', '2025-01-01Z', '-infinity' ] },
	access => {
		calls => [ map { qq{access-after("$_")} } '2024-01-01 00:00:00', '2024-06-01 00:00:00', '2024-06-01T00:00:00.000001Z', '2025-01-01 00:00:00' ],
		values => [ map { "s.access_time = $_" } 'NULL', map { "'$_'" } '2024-01-01Z', '2024-01-01 00:00:00.000001Z', '2024-06-01 00:00:00.000001Z', '2024-06-01 00:00:00.000002Z', 'infinity' ] },
	star => {
		calls => [ 'github-star("p")', 'github-star("q")', 'github-star("")', 'github-star("p,q")', 'github-star(" p")' ],
		values => [ map { "s.github_star = $_" } 'NULL', map { "'$_'" } 'p', ' p ,q', 'q,', ',' ] },
	balance => {
		calls => [ 'quota-le("m", 1)', 'quota-le("n", 2)', 'quota-le("n", 1.0)', 'quota-le("m", 2.5)', 'quota-le("m", -1)' ],
		values => [ map { "s.balances = (s).balances || $_" } q('{}'), map { qq('{"x":$_}') } -1, 1, 2, 2.5, 3 ] },
	other => {
		calls => [ 'quota-le("o", 1)', 'quota-le("o", 2)' ],
		values => [ map { "s.balances = (s).balances || $_" } q('{}'), map { qq('{"y":$_}') } 1, 2, 3 ] },
	constant => { calls => [ 'true()', 'false()' ], values => ['n = n'] },
	function => { calls => ['tagged("x")'], values => [ "s.name = NULL", "s.name = 'x'" ] });

our @FACTS = sort keys %facts;

sub new
{
	my ($class, $seed) = @_;

	srand $seed;
	return bless {}, $class;
}

sub _one { return $_[ rand @_ ] }

# A random condition about some facts.
sub condition
{
	my ($self, $depth, @facts) = @_;
	my $dice = rand;

	return _one(@{ $facts{ _one(@facts) }{calls} }) if $depth <= 0 || $dice < 0.15;
	return 'not(' . $self->condition($depth - 1, @facts) . ')' if $dice < 0.35;
	return ($dice < 0.7 ? 'and(' : 'or(') . join(', ', map { $self->condition($depth - 1, @facts) } 1 .. _one(2, 2, 3, 4)) . ')';
}

# Statements that fill a table (n integer, s quota_manager.subject), which must be empty, with users: all combinations of values.
sub product
{
	my ($table, @facts) = @_;
	my @sql = ("INSERT INTO $table (n, s.id, s.balances) VALUES (0, 'u4', '{}')");

	foreach my $fact (@facts)
	{
		my @values = @{ $facts{$fact}{values} };

		push @sql, "CREATE UNLOGGED TABLE ${table}_former AS TABLE $table", "TRUNCATE $table",
		  (map {; "INSERT INTO $table SELECT n * @{[ scalar @values ]} + $_, s FROM ${table}_former", "UPDATE $table SET $values[$_] WHERE n % @{[ scalar @values ]} = $_" } 0 .. $#values),
		  "DROP TABLE ${table}_former";
	}
	return @sql;
}

# Statements that fill it with so many random users.
sub sample
{
	my ($table, $count) = @_;

	return "INSERT INTO $table (n, s.id, s.balances) SELECT i, 'u4', '{}' FROM generate_series(1, $count) i",
	  map {
		my @values = @{ $facts{$_}{values} };
		("ALTER TABLE $table ADD COLUMN pick integer", "UPDATE $table SET pick = floor(random() * @{[ scalar @values ]})",
			(map {; "UPDATE $table SET $values[$_] WHERE pick = $_" } 0 .. $#values), "ALTER TABLE $table DROP COLUMN pick")
	  } @FACTS;
}

# A condition that nobody meets, whatever the others in it are.
sub contradiction
{
	my ($self, $depth) = @_;
	my ($low, $high) = sort { $a <=> $b } map { int rand 100 } 1, 2;
	my @other = map { $self->condition(1, @FACTS) } 0 .. rand 3;
	my @pair = @{ _one(
		[ "is-vip($high)", "not(is-vip($low))" ],
		[ 'belong-to("a", "b")', 'belong-to("c", "d")' ],
		[ 'match-user("u1")', 'not(match-user("u2", "u1"))' ],
		[ qq{register-before("2024-01-@{[ sprintf '%02d', 1 + $low % 28 ]} 00:00:00")}, 'not(register-before("2024-02-01 00:00:00"))' ],
		[ 'access-after("2024-06-01 00:00:00")', 'not(access-after("2024-05-01 00:00:00"))' ],
		[ "quota-le(\"m\", $low)", "not(quota-le(\"n\", $high.0))" ],
		[ 'github-star("p")', 'not(github-star("p"))' ],
		[ 'tagged("y")', 'not(tagged("y"))' ]) };

	return _one('github-star("")', 'github-star("a,b")', 'is-vip(3000000000)') if rand() < 0.1;
	return "or(@{[ $self->contradiction(0) ]}, @{[ $self->contradiction(0) ]})" if $depth > 0 && rand() < 0.2;
	return "not(or(@{[ join ', ', shuffle(@other, map { qq{not($_)} } @pair) ]}))" if rand() < 0.3;
	return "and(@{[ join ', ', shuffle(@other, @pair) ]})" if rand() < 0.6;
	# By cases.
	return "and(or($pair[0], tagged(\"z\")), or($pair[0], not(tagged(\"z\"))), " . join(', ', shuffle(@other, $pair[1])) . ')';
}

# A condition that everybody meets.
sub tautology
{
	my ($self) = @_;
	my ($low, $high) = sort { $a <=> $b } map { int rand 100 } 1, 2;
	my @pair = @{ _one(
		[ "is-vip($low)", "not(is-vip($high))" ],
		[ 'belong-to("a")', 'not(belong-to("a"))' ],
		[ 'match-user("u1", "u2")', 'not(match-user("u1"))' ],
		[ 'register-before("2024-02-01 00:00:00")', 'not(register-before("2024-01-01T08:00:00+08:00"))' ],
		[ 'access-after("2024-05-01 00:00:00")', 'not(access-after("2024-06-01 00:00:00"))' ],
		[ 'github-star("p")', 'not(github-star("p"))' ],
		[ 'true()', 'quota-le("m", 1)' ]) };
	my $all = 'or(' . join(', ', shuffle(@pair, map { $self->condition(1, @FACTS) } (0 .. rand 3))) . ')';

	return rand() < 0.5 ? $all : "not(and(not($all), @{[ $self->condition(1, @FACTS) ]}))";
}

# A condition without any fault: each call is about another fact, and no user's id is asked for.
sub sound
{
	my ($self) = @_;
	my @calls = map { my $call = _one(grep { !/github-star\("(?:|p,q| p)"\)/ } @{ $facts{$_}{calls} }); rand() < 0.3 ? "not($call)" : $call }
	  (shuffle(qw(vip org register access star balance other function)))[ 0 .. 1 + int rand 5 ];

	while (@calls > 1)
	{
		my $count = 2 + int rand(@calls - 1);

		push @calls, _one('and(', 'or(') . join(', ', splice @calls, 0, $count) . ')';
	}
	return $calls[0];
}

# The same condition, written otherwise.
sub rewritten
{
	my ($self, $text) = @_;

	return _one("not(not($text))", "$text and true()", "($text)or($text)", "or(false(), $text)", "and($text, or($text, is-vip(7)))",
		"or(and($text, tagged(\"zz\")), and($text, not(tagged(\"zz\"))))");
}

1;
