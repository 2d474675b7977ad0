
=pod

=head1 NAME

QuotaTest::ConditionOracle - the condition language, read naively

=head1 DESCRIPTION

A second opinion for the tests: what a condition means for one user, worked out
from the description of the language alone and as plainly as possible. It
shares nothing with the extension, knows no database, and never optimises.

The grammar, which parse() follows rule by rule:

  condition := or
  or        := and { "or" and }
  and       := unary { "and" unary }
  unary     := "not" unary | "(" condition ")" | call
  call      := name "(" [ argument { "," argument } ] ")"
  argument  := string | number | word

and(a, b, ...), or(a, b, ...) and not(a) are the same operators written as
functions.

  my ($tree, $error) = parse($text);             # $text in characters
  my @errors = check($tree);                     # names, types, times, numbers
  my $answer = evaluate($tree, $user);           # 'true', 'false' or 'null'

Errors are hashes: C<states>, the SQLSTATEs that describe it truly, and
C<what>, a few words for a person.

A user is a hash with id, vip, org, github_star, register_time and access_time
(microseconds since 1970, UTC), and balance, a hash from the
name of a gateway to a decimal text. Whatever is not there is not known.
C<served_by> says which models the gateway that is not the default one serves.

=cut

package QuotaTest::ConditionOracle;

use strict;
use warnings FATAL => 'all';
no warnings 'recursion';

use Exporter 'import';
use QuotaTest::ConditionValues
  qw($number instant read_time compare_decimals fits_numeric);

our @EXPORT_OK = qw(parse check flatten evaluate same_tree);

use constant MAX_BYTES => 65536;
use constant MAX_DEPTH => 500;

# The characters of words and names, and the white space.
my $WORD = qr{[A-Za-z0-9_./:@-]};
my $SPACE = qr{[ \t\r\n]};

# What is trimmed from the elements of a list: the white space of Unicode, in characters like everything here.
my $TRIM = qr/[\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]/;

# What each function takes: kinds of its arguments, the last one repeated at
# will when it ends with "...".
my %signature = (
	'match-user' => ['text...'],
	'register-before' => ['time'],
	'access-after' => ['time'],
	'github-star' => ['text'],
	'quota-le' => [ 'text', 'decimal' ],
	'is-vip' => ['integer'],
	'belong-to' => ['text...'],
	'true' => [],
	'false' => [],);


# ---------------------------------------------------------------------------
# Text to tree
# ---------------------------------------------------------------------------

# The tree of a condition, or undef and the error. A node is
# ['and' | 'or', node, node, ...], ['not', node] or ['call', name, argument, ...];
# an argument is ['text' | 'number', its text].
sub parse
{
	my ($text) = @_;
	my $bytes = $text;

	utf8::encode($bytes);
	return (undef, _error('22023', 'longer than 64 KiB'))
	  if length $bytes > MAX_BYTES;

	my $tree = eval {
		pos($text) = 0;
		my $node = _or(\$text);
		_space(\$text);
		_wrong('text after the condition') if pos($text) < length $text;
		$node;
	};
	if ($@)
	{
		die $@ unless ref $@;
		return (undef, $@);
	}

	return (undef, _error('22023', 'nested too deeply'))
	  if depth(flatten($tree)) > MAX_DEPTH;
	return ($tree, undef);
}

# or := and { "or" and }
sub _or
{
	my ($in) = @_;
	my @parts = (_and($in));

	push @parts, _and($in) while _keyword($in, 'or');
	return @parts == 1 ? $parts[0] : [ 'or', @parts ];
}

# and := unary { "and" unary }
sub _and
{
	my ($in) = @_;
	my @parts = (_unary($in));

	push @parts, _unary($in) while _keyword($in, 'and');
	return @parts == 1 ? $parts[0] : [ 'and', @parts ];
}

# unary := "not" unary | "(" condition ")" | call
sub _unary
{
	my ($in) = @_;

	return [ 'not', _unary($in) ] if _keyword($in, 'not');

	if (_sign($in, '('))
	{
		my $inner = _or($in);
		_sign($in, ')') or _wrong('")" wanted');
		return $inner;
	}

	foreach my $operator ('and', 'or')
	{
		return _functional($in, $operator) if _keyword($in, $operator);
	}
	return _call($in);
}

# and(a, b, ...) and or(a, b, ...), the name being read already.
sub _functional
{
	my ($in, $operator) = @_;
	my @parts;

	_sign($in, '(') or _wrong('"(" wanted');

	# With nothing inside, or with one, it is the number of arguments that is
	# wrong, which may also be said of a call.
	_wrong("$operator of nothing", '22P02 22023') if _sign($in, ')');
	do { push @parts, _or($in) } while _sign($in, ',');
	_sign($in, ')') or _wrong('")" wanted');
	_wrong("$operator of one", '22P02 22023') if @parts < 2;
	return [ $operator, @parts ];
}

# call := name "(" [ argument { "," argument } ] ")"
sub _call
{
	my ($in) = @_;
	my @arguments;

	_space($in);
	my $name = $$in =~ /\G($WORD+)/gc ? $1 : _wrong('a call wanted');
	_sign($in, '(') or _wrong('"(" wanted');
	if (!_sign($in, ')'))
	{
		do { push @arguments, _argument($in) } while _sign($in, ',');
		_sign($in, ')') or _wrong('")" wanted');
	}
	return [ 'call', $name, @arguments ];
}

# argument := string | number | word
sub _argument
{
	my ($in) = @_;

	_space($in);
	if ($$in =~ /\G"/gc)
	{
		my $value = '';

		while (1)
		{
			if ($$in =~ /\G""/gc) { $value .= '"' }
			elsif ($$in =~ /\G"/gc) { return [ 'text', $value ] }
			elsif ($$in =~ /\G([^"]+)/gc) { $value .= $1 }
			else { _wrong('a string without its end') }
		}
	}
	return [ 'number', $1 ] if $$in =~ /\G($number)(?!$WORD)/gc;
	return [ 'text', $1 ] if $$in =~ /\G($WORD+)/gc;
	_wrong('an argument wanted');
}

# Steps over white space.
sub _space
{
	my ($in) = @_;

	$$in =~ /\G$SPACE*/gc;
	return;
}

# Whether the next thing is this word, which is then read.
sub _keyword
{
	my ($in, $word) = @_;

	_space($in);
	return $$in =~ /\G\Q$word\E(?!$WORD)/gc;
}

# Whether the next thing is this sign, which is then read.
sub _sign
{
	my ($in, $sign) = @_;

	_space($in);
	return $$in =~ /\G\Q$sign\E/gc;
}

sub _error
{
	my ($states, $what) = @_;

	return { states => [ split / /, $states ], what => $what };
}

sub _wrong
{
	my ($what, $states) = @_;

	die _error($states // '22P02', $what);
}


# ---------------------------------------------------------------------------
# Trees
# ---------------------------------------------------------------------------

# The same tree with chains of one operator made one node.
sub flatten
{
	my ($node) = @_;
	my ($kind, @parts) = @$node;

	return $node if $kind eq 'call';
	return [ 'not', flatten($parts[0]) ] if $kind eq 'not';
	return [ $kind,
		map { $_->[0] eq $kind ? @$_[ 1 .. $#$_ ] : $_ }
		map { flatten($_) } @parts ];
}

# How many nodes the longest way down has.
sub depth
{
	my ($node) = @_;
	my ($kind, @parts) = @$node;
	my $deepest = 0;

	return 1 if $kind eq 'call';
	foreach my $part (@parts)
	{
		my $depth = depth($part);
		$deepest = $depth if $depth > $deepest;
	}
	return 1 + $deepest;
}

# Whether two trees are the same, letter by letter.
sub same_tree
{
	my ($left, $right) = @_;

	return 0 if ref $left ne ref $right;
	return $left eq $right unless ref $left;
	return 0 if @$left != @$right;
	foreach my $i (0 .. $#$left)
	{
		return 0 unless same_tree($left->[$i], $right->[$i]);
	}
	return 1;
}

# Everything that is wrong with the calls of a tree.
sub check
{
	my ($node) = @_;
	my ($kind, @parts) = @$node;

	return map { check($_) } @parts if $kind ne 'call';

	my ($name, @arguments) = @parts;
	my $wanted = $signature{$name};

	if (!$wanted)
	{
		# A name that no function could have may also be called bad syntax.
		return _error(
			$name =~ /^[a-z][a-z0-9]*(?:-[a-z0-9]+)*$/ ? '22023' : '22023 22P02',
			"unknown function $name");
	}

	my @kinds = @$wanted;
	if (@kinds && $kinds[-1] =~ s/\.\.\.$//)
	{
		push @kinds, $kinds[-1] while @kinds < @arguments;
	}
	return _error('22023', "$name with " . @arguments . ' arguments')
	  if @kinds != @arguments;
	return
	  grep { defined } map { _check_argument($kinds[$_], $arguments[$_]) } 0 .. $#kinds;
}

# What is wrong with one argument, or undef.
sub _check_argument
{
	my ($kind, $argument) = @_;
	my ($type, $text) = @$argument;
	my $wanted = $kind eq 'text' || $kind eq 'time' ? 'text' : 'number';

	return _error('42804', "$type where $wanted is wanted") if $type ne $wanted;
	if ($kind eq 'integer')
	{
		return _error('42804 22003', 'not an integer') if $text =~ /[.e]/;
		return _error('22003', 'beyond 64 bits')
		  if compare_decimals($text, '9223372036854775807') > 0
		  || compare_decimals($text, '-9223372036854775808') < 0;
	}
	if ($kind eq 'decimal')
	{
		return _error('22003', 'beyond numeric') unless fits_numeric($text);
	}
	if ($kind eq 'time')
	{
		my ($instant, $states) = read_time($text);
		return _error($states, "bad time $text") if !defined $instant;
	}
	return undef;
}


# ---------------------------------------------------------------------------
# Meaning
# ---------------------------------------------------------------------------

# What a condition without errors says of a user. A call that asks for a
# balance nobody could read may be either way, negated or not: 'true' when the
# condition holds with every such call, negation included, taken as false,
# 'null' when it holds only with every one taken as true.
sub evaluate
{
	my ($tree, $user) = @_;

	return 'true' if _holds($tree, $user, 0, 0);
	return 'null' if _holds($tree, $user, 0, 1);
	return 'false';
}

sub _holds
{
	my ($node, $user, $negated, $unread) = @_;
	my ($kind, @parts) = @$node;

	return _holds($parts[0], $user, !$negated, $unread) if $kind eq 'not';

	if ($kind eq 'call')
	{
		my $answer = _call_answer($user, @parts);
		return $unread if !defined $answer;
		return $negated ? !$answer : $answer;
	}

	# Under a negation "and" is "or" of the negated parts, and the reverse.
	my $all = ($kind eq 'and') != !!$negated;
	foreach my $part (@parts)
	{
		my $holds = _holds($part, $user, $negated, $unread);
		return 0 if $all && !$holds;
		return 1 if !$all && $holds;
	}
	return $all;
}

# What one call says of a user: 1, 0, or undef for a balance nobody read.
sub _call_answer
{
	my ($user, $name, @arguments) = @_;
	my @values = map { $_->[1] } @arguments;

	if ($name eq 'true') { return 1 }
	if ($name eq 'false') { return 0 }
	if ($name eq 'match-user') { return _is_one_of($user->{id}, @values) }
	if ($name eq 'belong-to') { return _is_one_of($user->{org}, @values) }
	if ($name eq 'is-vip')
	{
		return compare_decimals($user->{vip} // 0, $values[0]) >= 0 ? 1 : 0;
	}
	if ($name eq 'register-before')
	{
		my $time = $user->{register_time};
		return defined $time && $time < instant($values[0]) ? 1 : 0;
	}
	if ($name eq 'access-after')
	{
		my $time = $user->{access_time};
		return defined $time && $time > instant($values[0]) ? 1 : 0;
	}
	if ($name eq 'github-star')
	{
		return 0 if $values[0] eq '' || !defined $user->{github_star};
		foreach my $element (split /,/, $user->{github_star}, -1)
		{
			$element =~ s/\A$TRIM+//;
			$element =~ s/$TRIM+\z//;
			return 1 if $element eq $values[0];
		}
		return 0;
	}
	if ($name eq 'quota-le')
	{
		my $gateway = $user->{served_by}{ $values[0] } // 'default';
		my $balance = $user->{balance}{$gateway};
		return undef if !defined $balance;
		return compare_decimals($balance, $values[1]) <= 0 ? 1 : 0;
	}
	die "no function $name";
}

sub _is_one_of
{
	my ($value, @texts) = @_;

	return 0 if !defined $value;
	foreach my $text (@texts)
	{
		return 1 if $text eq $value;
	}
	return 0;
}

1;
