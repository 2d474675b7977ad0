
=pod

=head1 NAME

QuotaTest::Walkthrough - runs the examples of a document and compares the answers

=head1 SYNOPSIS

  my @steps = QuotaTest::Walkthrough::steps($file);
  my $walk = QuotaTest::Walkthrough->new(sql => sub { ... }, replace => { 'http://127.0.0.1:3000' => $url });
  $walk->run_step($_) foreach @steps;    # a test for each

=head1 DESCRIPTION

A block of C<sh> is run, all of them by one shell, and must succeed; what it prints must be what the
block right behind it shows: C<json> and C<csv>, C<text>, or C<http> (the status line, headers that are
among those that came, and a body). A block of C<sql> is run by the code given, as are comments of the
form C<< <!-- sql: ... --> >>, which readers do not see. A comment C<< <!-- not run --> >> spares the
block behind it. Other languages are shown only.

Where QUOTA_MANAGER_SHOW_ANSWERS names a file, what each step printed is added to it, for whoever writes
the document.

In what is shown, C<...> stands for anything: a value, the rest of a text or of a list, or lines. Times
and intervals stand for any.

=cut

package QuotaTest::Walkthrough;

use strict;
use warnings FATAL => 'all';

use Encode ();
use IPC::Open2 ();
use JSON::PP;
use PostgreSQL::Test::Utils ();
use Test::More ();

my $time = qr/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d(?::?\d\d)?)?/;
my $interval = qr/\d\d:\d\d:\d\d(?:\.\d+)?/;

# What a document has to run: hashes with kind (sh or sql), line, text, and for sh shown and answer if there is one.
sub steps
{
	my ($file) = @_;
	my $text = Encode::decode('UTF-8', PostgreSQL::Test::Utils::slurp_file($file));
	my ($line, $spared, @steps) = (1, 0);

	while ($text =~ /\G(?:
			^<!--\ sql:\s(?<hidden>.*?)-->\n
			| ^(?<spare><!--\ not\ run\ -->)\n
			| ^```(?<language>\w*)\n(?<block>.*?)^```\n
			| (?<other>[^\n]*\n))/gmsx)
	{
		my $all = $&;

		if (defined $+{hidden})
		{
			push @steps, { kind => 'sql', line => $line, text => $+{hidden} };
		}
		elsif (defined $+{spare})
		{
			$spared = 1;
		}
		elsif (defined $+{block})
		{
			my ($language, $block) = @+{ 'language', 'block' };

			if (!$spared && $language =~ /^(?:sh|sql)$/)
			{
				push @steps, { kind => $language, line => $line, text => $block, end => $line + ($all =~ tr/\n//) };
			}
			elsif (!$spared && $language =~ /^(?:json|http|text|csv)$/ && @steps && $steps[-1]{kind} eq 'sh'
				&& !$steps[-1]{shown} && $steps[-1]{end} == $line)
			{
				@{ $steps[-1] }{ 'shown', 'answer' } = ($language, $block);
			}
			$spared = 0;
		}
		$line += $all =~ tr/\n//;
	}
	return @steps;
}

# The shell sees the environment as it is now.
sub new
{
	my ($class, %option) = @_;
	my $self = bless { replace => {}, %option, folder => PostgreSQL::Test::Utils::tempdir() }, $class;

	$self->{pid} = IPC::Open2::open2($self->{from}, $self->{to}, 'bash', '--norc');
	print { $self->{to} } "cd $self->{folder}\nset -u\n";
	return $self;
}

sub DESTROY
{
	my ($self) = @_;
	local $?;

	close $self->{to};
	waitpid $self->{pid}, 0;
	return;
}

# Runs a step, as one test.
sub run_step
{
	my ($self, $step) = @_;
	my $name = "line $step->{line}: " . (split /\n/, $step->{text})[0];
	my $text = $self->_replaced($step->{text});

	if ($step->{kind} eq 'sql')
	{
		$self->{sql}->($text);
		Test::More::pass($name);
		return;
	}

	my ($code, $out, $err) = $self->_shell($text);
	PostgreSQL::Test::Utils::append_to_file($ENV{QUOTA_MANAGER_SHOW_ANSWERS}, Encode::encode('UTF-8', "line $step->{line}:\n$out$err\n"))
	  if $ENV{QUOTA_MANAGER_SHOW_ANSWERS};

	my @differences = $code == 0 ? () : ("the exit code is $code");

	push @differences, _differences($step->{shown}, $out, $self->_replaced($step->{answer})) if defined $step->{shown};
	Test::More::is(join("\n", @differences), '', $name)
	  or Test::More::diag("$text\nprinted:\n$out\n$err");
	return;
}

sub _replaced
{
	my ($self, $text) = @_;

	foreach my $from (sort keys %{ $self->{replace} })
	{
		$text =~ s/\Q$from\E/$self->{replace}{$from}/g;
	}
	return $text;
}

# Exit code, output and errors.
sub _shell
{
	my ($self, $text) = @_;
	my $base = "$self->{folder}/step";

	print { $self->{to} } Encode::encode('UTF-8', "{\n$text\n} >$base.out 2>$base.err </dev/null\necho ended \$?\n");
	$self->{to}->flush;
	my $end = readline $self->{from};

	defined $end && $end =~ /^ended (\d+)$/ or die "the shell ended at: $text";
	return ($1, map { Encode::decode('UTF-8', PostgreSQL::Test::Utils::slurp_file("$base.$_")) } 'out', 'err');
}

# How an answer differs from what is shown.
sub _differences
{
	my ($shown, $got, $want) = @_;

	return _json_differences($got, $want) if $shown eq 'json';
	return _text_differences($got, $want) if $shown ne 'http';

	my ($got_head, $got_body) = split /\r?\n\r?\n/, $got, 2;
	my ($want_head, $want_body) = split /\n\n/, $want, 2;
	my ($status, @headers) = split /\n/, $want_head;
	my @got = split /\r?\n/, $got_head;
	my @differences;

	push @differences, "$got[0] instead of $status" if $got[0] ne $status;
	foreach my $header (@headers)
	{
		my $pattern = _pattern($header);

		push @differences, "no header $header" if !grep { /^$pattern$/i } @got;
	}
	if (defined $want_body)
	{
		push @differences, $want_body =~ /^\s*[\[{"]/ ? _json_differences($got_body, $want_body) : _text_differences($got_body, $want_body);
	}
	return @differences;
}

# What is shown, as a regular expression.
sub _pattern
{
	my ($text) = @_;
	my $pattern = '';

	foreach my $part (split /(\.\.\.|$time|$interval)/, $text)
	{
		$pattern .= $part eq '...' ? '.*' : $part =~ /^$time$/ ? $time : $part =~ /^$interval$/ ? $interval : quotemeta $part;
	}
	return $pattern;
}

sub _text_differences
{
	my ($got, $want) = @_;
	my $pattern = join '', map { /^\s*\.\.\.\n$/ ? '(?:.*\n)*?' : _pattern($_ =~ s/\n$//r) . '\n' } $want =~ /(.*\n)/g;

	$got .= "\n" if $got !~ /\n\z/;
	return $got =~ /^$pattern\z/ ? () : ("text differs from what is shown:\n$want");
}

sub _json_differences
{
	my ($got, $want) = @_;
	my $json = JSON::PP->new->allow_nonref;
	my ($got_data, $want_data) = map { eval { [ $json->decode($_) ] } } $got, _quoted_dots($want);

	return ("what is shown is no JSON: $@") if !$want_data;
	return ('no JSON came') if !$got_data;
	return _value_differences('', $got_data->[0], $want_data->[0]);
}

# Dots that stand for values become texts.
sub _quoted_dots
{
	my ($text) = @_;

	return $text =~ s/("(?:[^"\\]|\\.)*")|\.\.\./$1 \/\/ '"..."'/ger;
}

# How values differ, each with its place.
sub _value_differences
{
	my ($place, $got, $want) = @_;
	my ($got_text, $want_text) = map { defined $_ ? "$_" : 'null' } $got, $want;

	return () if $want_text eq '...';
	if (ref $want eq 'ARRAY' && ref $got eq 'ARRAY')
	{
		my @want = @$want;
		my $open = @want && defined $want[-1] && $want[-1] eq '...' && pop @want;

		return ("$place: " . @$got . ' elements instead of ' . @want) if @$got < @want || @$got > @want && !$open;
		return map { _value_differences("$place\[$_]", $got->[$_], $want[$_]) } 0 .. $#want;
	}
	if (ref $want eq 'HASH' && ref $got eq 'HASH')
	{
		my %keys = (%$got, %$want);

		return map {
			!exists $got->{$_} ? "$place.$_ is missing"
			  : !exists $want->{$_} ? "$place.$_ is not shown"
			  : _value_differences("$place.$_", $got->{$_}, $want->{$_})
		} sort keys %keys;
	}
	my $pattern = _pattern($want_text);

	return ("$place: $got_text instead of $want_text") if ref $got ne ref $want || $got_text !~ /^$pattern\z/s;
	return ();
}

1;
