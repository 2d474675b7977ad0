
# Random conditions on random users: the planned condition, the executed one and
# an oracle written from the description of the language agree, for every user
# and in all three values; what the oracle calls an error is one, and of the same
# kind; the canonical text of a condition means the same and is its own canonical
# text.
#
# QUOTA_MANAGER_ORACLE_CASES  how many conditions (10000)
# QUOTA_MANAGER_SEED          another seed than the usual one
# QUOTA_MANAGER_ORACLE_ONLY   the number of the only case to try

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Encode qw(encode);
use PostgreSQL::Test::Utils;
use QuotaTest::ConditionGenerator;
use QuotaTest::ConditionNode qw(condition_node);
use QuotaTest::ConditionOracle qw(parse check evaluate flatten same_tree);
use QuotaTest::ConditionPaths;
use QuotaTest::ConditionValues qw(number_beyond);
use Test::More;

my $cases = $ENV{QUOTA_MANAGER_ORACLE_CASES} || 10_000;
my $seed = $ENV{QUOTA_MANAGER_SEED} || 20_240_229;
my $only = $ENV{QUOTA_MANAGER_ORACLE_ONLY};
my $batch = 1_000;
my $shown = 5;

# What may be said of a wrong condition.
my %known_state =
  map { $_ => 1 } qw(22P02 22023 22007 22008 22003 42804);

my $generator = QuotaTest::ConditionGenerator->new($seed);
my @users = $generator->users(40);
my $node = condition_node('oracle');
my $paths = QuotaTest::ConditionPaths->new($node, \@users);
my (%failures, %tally);

note("seed $seed, $cases conditions, " . @users . ' users');
$paths->users_in_tables;

my @numbers = defined $only ? ($only) : (1 .. $cases);
while (my @part = splice @numbers, 0, $batch)
{
	my %text = map { ($_ => $generator->condition($_)) } @part;
	my $answers = eval { $paths->ask(\%text) }
	  // BAIL_OUT("seed $seed, cases $part[0] to $part[-1]: $@");

	compare($_, $text{$_}, $answers->{$_}) foreach @part;
}

foreach my $property (
	'check_condition does not raise',
	'the same texts are conditions',
	'the SQLSTATE is a known one and fits',
	'the position lies in the text',
	'an error has a message',
	'planned as the oracle says',
	'executed as the oracle says',
	'found in the tables as the oracle says',
	'the canonical text is its own canonical text',
	'the canonical text means the same',)
{
	is($failures{$property} // 0, 0, $property);
}

note(join ', ', map { "$tally{$_} $_" } sort keys %tally);
if (!defined $only && $cases >= 1_000)
{
	# The cases are worth something: enough of every kind.
	ok(($tally{$_} // 0) >= $cases / 100, "enough $_")
	  foreach 'conditions', 'syntax errors', 'other errors', 'true', 'false', 'null';
	ok($tally{conditions} > $cases / 2, 'more conditions than errors');
}

limits() if !defined $only;

$node->stop('fast');
done_testing();


# Compares what the extension said of a text with what the oracle says.
sub compare
{
	my ($n, $text, $answer) = @_;
	my ($tree, @errors) = parse($text);
	my $syntactic = !defined $tree;

	@errors = $syntactic ? $errors[0] : check($tree);
	$tally{ $syntactic ? 'syntax errors' : @errors ? 'other errors' : 'conditions' }++;

	fails('check_condition does not raise', $n, $text, $answer->{raised})
	  if defined $answer->{raised};

	if (@errors)
	{
		return compare_error($n, $text, $answer, $syntactic, @errors);
	}

	my $oracle = letters($tree);
	$tally{true} += $oracle =~ tr/t//;
	$tally{false} += $oracle =~ tr/f//;
	$tally{null} += $oracle =~ tr/n//;

	return fails('the same texts are conditions',
		$n, $text,
		'refused: '
		  . join(' ', map { $_ // 'none' } @$answer{qw(sqlstate message)})
		  . "; oracle $oracle")
	  if !$answer->{valid};

	fails('planned as the oracle says', $n, $text, differing($oracle, $answer))
	  if ($answer->{planned} // '') ne $oracle;
	fails('executed as the oracle says', $n, $text, differing($oracle, $answer))
	  if ($answer->{executed} // '') ne $oracle;
	fails('found in the tables as the oracle says',
		$n, $text, 'tables ' . ($answer->{matched} // 'nothing') . ", oracle $oracle")
	  if ($answer->{matched} // '') ne $oracle =~ tr/n/f/r;

	my $canonical = $answer->{canonical} // '';
	fails('the canonical text is its own canonical text',
		$n, $text, "$canonical, then " . ($answer->{again} // 'an error'))
	  if ($answer->{again} // '') ne $canonical;

	my ($read, @bad) = parse($canonical);
	@bad = check($read) if defined $read;
	fails('the canonical text means the same',
		$n, $text, "$canonical" . (@bad ? ": $bad[0]{what}" : ''))
	  if @bad
	  || !same_tree(flatten($read), flatten($tree)) && letters($read) ne $oracle;
	return;
}

# Compares what the extension said of a text that is no condition.
sub compare_error
{
	my ($n, $text, $answer, $syntactic, @errors) = @_;
	my %fits = map { $_ => 1 } map { @{ $_->{states} } } @errors;
	my $state = $answer->{sqlstate} // 'none';
	my $position = $answer->{position};
	my $what = join ', ', map { $_->{what} } @errors;

	$fits{22003} = 1 if number_beyond($text);

	return fails('the same texts are conditions',
		$n, $text, 'taken for ' . ($answer->{canonical} // '?') . "; oracle: $what")
	  if $answer->{valid};

	fails('the SQLSTATE is a known one and fits',
		$n, $text, "$state; oracle: $what, " . join(' ', sort keys %fits))
	  if !$known_state{$state} || !$fits{$state};
	fails('an error has a message', $n, $text, "$state")
	  if ($answer->{message} // '') eq '';
	fails('the position lies in the text', $n, $text, $position // 'none')
	  if !defined $position && $syntactic && $state eq '22P02'
	  || defined $position && ($position < 1 || $position > 1 + length $text);

	# An error stays one when the condition is used, whichever way.
	fails('planned as the oracle says', $n, $text, "$state, then " . ($answer->{planned} // '?'))
	  if ($answer->{planned} // '') ne "!$state";
	fails('executed as the oracle says', $n, $text, "$state, then " . ($answer->{executed} // '?'))
	  if ($answer->{executed} // '') ne "!$state";
	return;
}

# The oracle's letter for each user.
sub letters
{
	my ($tree) = @_;
	my %letter = (true => 't', false => 'f', null => 'n');

	return join '', map { $letter{ evaluate($tree, $_) } } @users;
}

# The answers that differ, and the first user they differ on.
sub differing
{
	my ($oracle, $answer) = @_;
	my ($planned, $executed) = map { $_ // '' } @$answer{qw(planned executed)};
	my ($place) = grep {
		     substr($oracle, $_, 1) ne substr($planned . $oracle, $_, 1)
		  || substr($oracle, $_, 1) ne substr($executed . $oracle, $_, 1)
	} 0 .. $#users;

	return
	    "oracle   $oracle\nplanned  $planned\nexecuted $executed\nfirst user: "
	  . (defined $place ? described($users[$place]) : 'none');
}

sub described
{
	my ($user) = @_;
	my %shown = %$user;

	delete @shown{qw(served_by register_time access_time)};
	$shown{balance} = join ' ', map { "$_=$shown{balance}{$_}" } sort keys %{ $shown{balance} }
	  if $shown{balance};
	return join ', ', map { "$_ " . (defined $shown{$_} ? "<$shown{$_}>" : 'null') }
	  sort keys %shown;
}

# Counts a failure and shows the first few of a property, with the command to
# repeat each.
sub fails
{
	my ($property, $n, $text, $what) = @_;

	return if $failures{$property}++ >= $shown;
	diag("not so: $property\ncase $n: " . visible("<$text>\n$what")
		  . "\nrepeat: QUOTA_MANAGER_SEED=$seed QUOTA_MANAGER_ORACLE_ONLY=$n prove $0");
	return;
}

# Text with everything written out that a terminal would hide, in bytes.
sub visible
{
	my ($text) = @_;

	$text =~ s/([^\n\P{C}]|(?! )\p{Z}|\pM)/sprintf '\x{%x}', ord $1/ge;
	return encode('UTF-8', $text);
}

# The limits: 64 KiB, and a nesting of 500, chains of one operator counting once.
sub limits
{
	my $call = 'is-vip(1)';
	my %accepted = (
		'490 not' => 'not(' x 490 . $call . ')' x 490,
		'490 not, infix' => 'not ' x 490 . $call,
		'490 operators in turn' => 'and(true(),or(false(),' x 245 . $call . '))' x 245,
		'3000 infix or' => join(' or ', ($call) x 3000),
		'3000 in one or' => 'or(' . join(',', ($call) x 3000) . ')',
		'2000 or to the right' => "or($call," x 2000 . $call . ')' x 2000,
		'2000 or to the left' => 'or(' x 2000 . $call . ",$call)" x 2000,
		'2000 groups of infix or' => "($call or " x 2000 . $call . ')' x 2000,
		'64 KiB' => $call . ' ' x (65_536 - length $call),
		'64 KiB of text' => 'match-user("' . 'x' x (65_536 - 14) . '")',);
	my %refused = (
		'510 not' => 'not(' x 510 . $call . ')' x 510,
		'510 not, infix' => 'not ' x 510 . $call,
		'510 operators in turn' => 'and(true(),or(false(),' x 255 . $call . '))' x 255,
		'12000 not' => 'not(' x 12_000 . $call . ')' x 12_000,
		'one byte more than 64 KiB' => $call . ' ' x (65_537 - length $call),
		'64 KiB in characters, more in bytes' => 'match-user("' . '技' x 30_000 . '")',
		'100000 not' => 'not(' x 100_000 . $call . ')' x 100_000,
		'70 KiB of text' => 'match-user("' . 'x' x 71_680 . '")',
		'64 KiB that become more when written' => 'match-user(' . 'a,' x 30_000 . 'a)',);
	my %either = (
		'30000 groups' => '(' x 30_000 . $call . ')' x 30_000,
		'65000 opening brackets' => '(' x 65_000,
		'13000 and without end' => 'and((' x 13_000,);
	my %all = (%accepted, %refused, %either);
	my @names = sort keys %all;
	my $answers = $paths->ask({ map { ($_ => $all{ $names[$_] }) } 0 .. $#names });

	foreach my $n (0 .. $#names)
	{
		my ($name, $answer) = ($names[$n], $answers->{$n});
		my $state = $answer->{sqlstate} // '';

		is($answer->{raised}, undef, "$name: check_condition does not raise");
		if ($accepted{$name})
		{
			my ($tree) = parse($accepted{$name});

			ok($answer->{valid}, "$name: valid") or diag("$state " . ($answer->{message} // ''));
			is($answer->{planned}, letters($tree), "$name: planned");
			is($answer->{executed}, letters($tree), "$name: executed");
			is($answer->{again}, $answer->{canonical}, "$name: canonical");
		}
		elsif ($refused{$name})
		{
			ok(!$answer->{valid}, "$name: refused");
			like($state, qr/^22023$/, "$name: SQLSTATE");
			is($answer->{planned}, "!$state", "$name: planned");
			is($answer->{executed}, "!$state", "$name: executed");
		}
		elsif (!$answer->{valid})
		{
			like($state, qr/^(?:22P02|22023|54001)$/, "$name: SQLSTATE");
		}
	}
	return;
}
