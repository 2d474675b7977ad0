
=pod

=head1 NAME

QuotaTest::ConditionGenerator - random conditions and the users to try them on

=head1 DESCRIPTION

  my $generator = QuotaTest::ConditionGenerator->new($seed);
  my @users = $generator->users($count);
  my $text = $generator->condition($n);

Condition $n of a seed is always the same text, whichever were asked for before,
so that one case can be repeated alone. Most follow the grammar, written as
untidily as it allows; about one in ten is then damaged, and some have a wrong
argument.

The users are hashes as L<QuotaTest::ConditionOracle> wants them, with the texts
of their times for SQL besides (register_text, access_text).

=cut

package QuotaTest::ConditionGenerator;

use strict;
use warnings FATAL => 'all';
use utf8;

use Digest::MD5 qw(md5);
use QuotaTest::ConditionValues qw(instant);

# Models that the gateway "other" serves; the default one serves the rest.
our %served_by = ('m2' => 'other', '模型' => 'other', '  ' => 'other');

my @texts = (
	'u1', 'user001', 'U1', ' u1', 'u1 ', 'u 1', 'a"b', '"', "a'b", "''", 'a\\b',
	'\\', '技术部', '🚀', "e\x{301}", "\x{e9}", '%', 'u_', '123', 'true', 'null',
	') or true() or (', "a\nb", "\t", 'org001', 'org001,org002', '{org001}',
	'9b2e6a0e-7a3b-4f0c-9a54-0d9a2c1f5e11', '$1', '--', '/*', 'and', 'not',);

my @projects = (
	'zgsm', 'openai/gpt-4', 'microsoft/vscode', 'ZGSM', 'zgsm-ai.zgsm', 'a b',
	'项目/一', '"', "it's", '123', '1e5', 'NULL', '{zgsm}', 'zgs', 'a\\b',
	"\x{3000}zgsm", "zgsm\x{a0}", "\x{b}zgsm", "\x{c}", 'x:y@z',);

my @vips = (undef, 0, 0, 1, 1, 2, 3, 7, -1, 2147483647, -2147483648);

my @times = (
	'2024-01-01 00:00:00', '2024-01-01 00:00:00.000001Z',
	'2023-12-31 23:59:59.999999Z', '2024-02-29 12:00:00',
	'2025-06-01T00:00:00+08:00', '1970-01-01 00:00:00',
	'1969-12-31 23:59:59.5Z', '9999-12-31 23:59:59.999999Z',
	'0001-01-01 00:00:00', '1999-12-31 23:59:59', '2024-03-10 02:30:00',);

my @balances = (
	'0', '10', '10.000000', '10.000001', '9.999999', '-0.5', '0.1', '0.3', '5',
	'1e30', '1e-10', '9007199254740993', '9007199254740992.5',
	'9223372036854775807', '9223372036854775808', '100',);

my @models = ('m', 'm', 'gpt-4', 'm2', 'm2', 'M2', ' m2', 'm2 ', '模型', '', '  ');

my @levels = (
	0 .. 3, 7, '-1', '+2', '007', '-0', '2147483647', '2147483648',
	'-2147483648', '-2147483649', '9223372036854775807', '-9223372036854775808',
	'000000000000000000000001',);

my @amounts = (
	@balances, '+10', '1e1', '10.0', '1e+1', '0.1e2', '-0', '-0.0', '-1e-3',
	'0.30000000000000001', '0.29999999999999999', '1e400', '1e-400', '00010',);

# Each is wrong wherever it stands as such an argument.
my @bad_times = (
	'2024-02-30 00:00:00', '2023-02-29 00:00:00', '2024-13-01 00:00:00',
	'2024-00-10 00:00:00', '2024-01-00 00:00:00', '2024-01-02 24:00:00',
	'2024-01-02 00:60:00', '2024-01-02 00:00:60', '2024-01-02T23:59:60Z', 'now',
	'infinity', '-infinity', 'epoch', 'today', 'allballs', '', ' ', '2024-01-02',
	'2024-01-02 00:00', '2024-01-02T00:00:00', '2024-01-02 00:00:00.5',
	'2024-01-02 00:00:00z', '2024-01-02t00:00:00Z', '2024-01-02 00:00:00+0800',
	'2024-01-02 00:00:00+08', '2024-01-02 00:00:00+8:00', '2024-01-02 00:00:00 Z',
	'2024-01-02 00:00:00 UTC', '2024-01-02 00:00:00.Z',
	'2024-01-02 00:00:00.1234567Z', '2024-01-02 00:00:00,5Z',
	'2024-01-02 00:00:00Z ', ' 2024-01-02 00:00:00', "2024-01-02 00:00:00\n",
	'10000-01-01 00:00:00', '0000-01-01 00:00:00', '24-01-02 00:00:00',
	'2024-1-2 00:00:00', '2024-01-02  00:00:00', '2024-01-02 00:00:00+24:00',
	'2024-01-02 00:00:00+08:60', '02/01/2024 00:00:00', '20240102T000000Z',
	"\x{ff12}024-01-02 00:00:00", '2024-01-02 00:00:00 BC', '2024-01-02_00:00:00',
	'+2024-01-02 00:00:00', '2024-01-02 00:00:-1', '2024-01-02 00:00:00-',);

my @bad_levels = (
	'1.0', '1e0', '1.5', '9223372036854775808', '-9223372036854775809',
	'99999999999999999999999', '1e999999', '"1"', 'one', '0x10', '1_000', '""',);

my @bad_amounts = (
	'"10"', 'NaN', 'Infinity', 'ten', '1.', '.5', '1e', '1E1', '0x10', '1_000',
	'1e999999', '1e-999999', '1e99999999999', '""', '1.5.2', '5-3',);

# What damage likes to put in.
my @splinters = (
	'(', ')', ',', '"', '""', ' ', "\t", "\n", '.', '-', '+', '_', '0', '9', 'e',
	"'", '\\', '&&', '||', '!', '=', ';', '--', "\x{a0}", "\x{3000}", "\x{b}",
	"\x{c}", "\x{feff}", "\x{e9}", '，', '（', 'and', ' and ', ' or ', 'not ',
	' xor ', 'true()', 'false', 'null', ')))', '(((', 'is-vip(1)', '"x"', '1',
	'AND', 'Not', '()', ', ', '{', '}', '[', '$$', '%', "\x{7f}", "\x{1}", '🚀',);

my %misspelt = (
	'is-vip' => [ 'is-vp', 'is_vip', 'IS-VIP', 'Is-Vip', 'isvip', 'is-vip-', 'is vip' ],
	'match-user' => [ 'match-users', 'match_user', 'matchuser', 'match-User' ],
	'github-star' => [ 'github-stars', 'github_star', 'star' ],
	'quota-le' => [ 'quota-lt', 'quota-ge', 'quota_le' ],
	'belong-to' => [ 'belongs-to', 'belong_to' ],
	'register-before' => [ 'register-after', 'register_before' ],
	'access-after' => [ 'access-before', 'access_after' ],
	'true' => [ 'TRUE', 'yes', 'quota_condition.true' ],
	'false' => [ 'False', 'no' ],);

sub new
{
	my ($class, $seed) = @_;

	return bless { seed => $seed }, $class;
}

# Starts the random numbers of one case.
sub _begin
{
	my ($self, $what) = @_;

	srand(unpack 'L', md5("$self->{seed}/$what"));
	return;
}

sub _one { return $_[ rand @_ ] }

sub _chance { return rand() < $_[0] }


# ---------------------------------------------------------------------------
# Users
# ---------------------------------------------------------------------------

# So many users, each id once.
sub users
{
	my ($self, $count) = @_;
	my @ids = grep { $_ ne '' } @texts;

	$self->_begin('users');
	return map {
		my $id = $_ < @ids ? $ids[$_] : "user$_";
		my $register = _chance(0.15) ? undef : _user_time();
		my $access = _chance(0.25) ? undef : _user_time();

		{
			id => $id,
			vip => _one(@vips),
			org => _one(undef, '', @texts),
			github_star => _stars(),
			register_text => $register,
			access_text => $access,
			register_time => _user_instant($register),
			access_time => _user_instant($access),
			balance => _balance(),
			served_by => \%served_by,
		}
	} 0 .. $count - 1;
}

sub _user_time
{
	return _chance(0.1) ? _one('infinity', '-infinity') : _one(@times);
}

sub _user_instant
{
	my ($text) = @_;

	return undef if !defined $text;
	return 9**9**9 if $text eq 'infinity';
	return -9**9**9 if $text eq '-infinity';
	return instant($text);
}

sub _stars
{
	return undef if _chance(0.1);
	return _one('', ' ', ',', ',,', "\n") if _chance(0.1);
	return join ',',
	  map { _padding() . _one(@projects) . _padding() } 0 .. rand 4;
}

sub _padding
{
	return '' if _chance(0.6);
	return join '', map { _one(' ', "\t", "\r", "\n") } 0 .. rand 3;
}

sub _balance
{
	return undef if _chance(0.2);

	my %balance;
	$balance{default} = _one(@balances) if _chance(0.6);
	$balance{other} = _one(@balances) if _chance(0.5);
	$balance{Default} = _one(@balances) if _chance(0.1);
	return \%balance;
}


# ---------------------------------------------------------------------------
# Conditions
# ---------------------------------------------------------------------------

# Condition number n of this seed.
sub condition
{
	my ($self, $n) = @_;

	$self->_begin($n);
	my $text = _space() . _or(int rand 5) . _space();

	if (_chance(0.1))
	{
		$text = _damaged($text) foreach 0 .. rand 3;
	}
	return $text;
}

# White space where none is needed, and where some is.
sub _space
{
	return '' if _chance(0.7);
	return ' ' if _chance(0.6);
	return join '', map { _one(' ', "\t", "\r", "\n") } 0 .. rand 3;
}

sub _gap
{
	my $space = _space();

	return $space eq '' ? ' ' : $space;
}

# How many parts a chain has; at the end of the depth only one.
sub _length
{
	my ($depth) = @_;

	return 1 if $depth <= 0 || _chance(0.65);
	return _chance(0.7) ? 2 : 2 + int rand 4;
}

sub _or
{
	my ($depth) = @_;

	return _chain('or', map { _and($depth - 1) } 1 .. _length($depth));
}

sub _and
{
	my ($depth) = @_;

	return _chain('and', map { _unary($depth - 1) } 1 .. _length($depth));
}

# Parts joined by an infix operator.
sub _chain
{
	my ($operator, $text, @rest) = @_;

	foreach my $part (@rest)
	{
		$text .= _space() . $operator . _before($part);
	}
	return $text;
}

# What stands between an operator and the text behind it, that text included.
sub _before
{
	my ($text) = @_;

	return ($text =~ /^\(/ ? _space() : _gap()) . $text;
}

sub _unary
{
	my ($depth) = @_;
	my $dice = rand;

	return 'not' . _before(_unary($depth - 1)) if $dice < 0.14;
	return _call() if $depth <= 0;
	return '(' . _space() . _or($depth - 1) . _space() . ')' if $dice < 0.24;
	return 'not' . _space() . _list(_or($depth - 1)) if $dice < 0.32;
	return _one('and', 'or')
	  . _space()
	  . _list(map { _or($depth - 1) } 0 .. 1 + int(rand() * rand() * 4))
	  if $dice < 0.6;
	return _call();
}

sub _list
{
	return
	    '('
	  . _space()
	  . join(_space() . ',' . _space(), @_)
	  . _space() . ')';
}

sub _call
{
	my $dice = rand;

	return _named('quota-le', _text(_one(@models)), _amount()) if $dice < 0.3;
	return _named('is-vip', _level()) if $dice < 0.45;
	return _named('github-star', _text(_one(@projects, @projects, '', ' ', ' zgsm')))
	  if $dice < 0.57;
	return _named('match-user', map { _text(_one(@texts)) } 0 .. rand() * rand() * 6)
	  if $dice < 0.69;
	return _named('belong-to', map { _text(_one(@texts, '')) } 0 .. rand() * rand() * 6)
	  if $dice < 0.81;
	return _named(_one('register-before', 'access-after'), _time()) if $dice < 0.96;
	return _named(_one('true', 'false'));
}

sub _named
{
	my ($name, @arguments) = @_;

	# Now and then one argument too many, or too few.
	push @arguments, _one('1', 'x', '""') if _chance(0.003);
	pop @arguments if _chance(0.003);
	return $name . _space() . _list(@arguments);
}

# A text as a string, or as a word where it can be one.
sub _text
{
	my ($text) = @_;

	return _one(5, '-1', '1e3', '0.5') if _chance(0.004);
	return $text
	  if $text =~ m{^[A-Za-z0-9_./:@-]+$}
	  && $text !~ /^[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?$/
	  && _chance(0.5);
	return '"' . $text =~ s/"/""/gr . '"';
}

sub _level
{
	return _one(@bad_levels) if _chance(0.01);
	return _one(@levels);
}

sub _amount
{
	return _one(@bad_amounts) if _chance(0.01);
	return _one(@amounts);
}

# One of the users' times, or one beside it, in one of the forms.
sub _time
{
	return _text(_one(@bad_times)) if _chance(0.015);

	my $micros = instant(_one(@times));
	my $form = rand;

	$micros += _one(0, 0, 1, -1, 500_000, 1_000_000, -1_000_000, 86_400_000_000)
	  if $micros > instant('0002-01-01 00:00:00')
	  && $micros < instant('9999-01-01 00:00:00');

	my $part = $micros % 1_000_000;
	my $seconds = ($micros - $part) / 1_000_000;

	# Without a zone there are whole seconds only.
	return _text(_clock($seconds, ' ')) if $form < 0.5 && $part == 0;

	my ($offset, $zone) = (0, _one('Z', 'Z', '+00:00', '-00:00'));
	if (   $form < 0.8
		&& $micros > instant('0002-01-01 00:00:00')
		&& $micros < instant('9999-01-01 00:00:00'))
	{
		my ($sign, $hours, $minutes) = (_one(1, -1), int rand 15, _one(0, 30, 45, 59));
		$offset = $sign * ($hours * 60 + $minutes) * 60;
		$zone = sprintf '%s%02d:%02d', $sign < 0 ? '-' : '+', $hours, $minutes;
	}

	my $fraction = $part ? sprintf('.%06d', $part) : _one('', '', '.0', '.000', '.000000');
	$fraction =~ s/0+$// if $part && _chance(0.5);
	return _text(_clock($seconds + $offset, _one(' ', 'T')) . $fraction . $zone);
}

sub _clock
{
	my ($seconds, $between) = @_;
	my ($s, $m, $h, $day, $month, $year) = gmtime $seconds;

	return sprintf '%04d-%02d-%02d%s%02d:%02d:%02d', $year + 1900, $month + 1,
	  $day, $between, $h, $m, $s;
}


# ---------------------------------------------------------------------------
# Damage
# ---------------------------------------------------------------------------

sub _damaged
{
	my ($text) = @_;
	my $at = int rand(1 + length $text);
	my $length = 1 + int(rand() * rand() * 8);

	my @ways = (
		sub { substr $text, $at, $length, ''; $text },
		sub { substr $text, $at, 0, _one(@splinters); $text },
		sub { substr $text, $at, 1, _one(@splinters); $text },
		sub { substr $text, $at, 0, substr $text, $at, $length; $text },
		sub { substr $text, 0, $at },
		sub { substr $text, $at },
		sub { $text . _one(@splinters) },
		sub { _one(@splinters) . $text },
		sub { $text . _one(' ', '') . _call() },
		sub { $text =~ s/"//r },
		sub { $text =~ s/\s+//gr },
		sub { $text =~ s/,\s*\)?/)/r },
		sub { reverse $text },
		sub { uc $text },
		sub {
			my @known = grep { $text =~ /\Q$_\E/ } sort keys %misspelt;
			return $text if !@known;
			my $name = _one(@known);
			my $wrong = _one(@{ $misspelt{$name} });
			return $text =~ s/\Q$name\E/$wrong/r;
		},);
	my $way = _one(@ways, @ways[ 0 .. 3 ], $ways[-1], $ways[-1]);

	return scalar $way->();
}

1;
