
=pod

=head1 NAME

QuotaTest::Transcript - runs the psql sessions of a document and compares what psql prints

=head1 SYNOPSIS

  my @steps = QuotaTest::Transcript::steps($file);
  print QuotaTest::Transcript::differences($step, $printed) foreach @steps;

=head1 DESCRIPTION

A block of C<psql> is what a terminal shows: lines that begin with the prompt C<< quota=# >> (continued by
C<< quota-# >>) are typed, the lines behind them are printed. Comments of the form C<< <!-- sql: ... --> >> are run
as well, but readers do not see them.

In what is shown, a line of C<...> stands for any number of lines, C<...> within a line for anything, and a time for
any time.

=cut

package QuotaTest::Transcript;

use strict;
use warnings FATAL => 'all';

use Encode ();
use PostgreSQL::Test::Utils ();

my $time = qr/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?(?:[+-]\d\d(?::?\d\d)?)?/;

# Hashes with line, typed, and shown (undef: the reader does not see the step).
sub steps
{
	my ($file) = @_;
	my $text = Encode::decode('UTF-8', PostgreSQL::Test::Utils::slurp_file($file));
	my $line = 1;
	my @steps;

	while ($text =~ /\G(?:^<!--\ sql:\s(?<hidden>.*?)-->\n | ^```psql\n(?<block>.*?)^```\n | [^\n]*\n)/gmsx)
	{
		my $lines = $& =~ tr/\n//;

		push @steps, { line => $line, typed => $+{hidden} } if defined $+{hidden};
		push @steps, _steps_of_block($+{block}, $line + 1) if defined $+{block};
		$line += $lines;
	}
	return @steps;
}

# The steps of one block.
sub _steps_of_block
{
	my ($block, $line) = @_;
	my @steps;

	foreach my $text (split /^/, $block)
	{
		if ($text =~ /^quota=# (.*)/s) { push @steps, { line => $line, typed => $1, shown => '' }; }
		elsif ($text =~ /^quota-# (.*)/s && @steps && $steps[-1]{shown} eq '') { $steps[-1]{typed} .= $1; }
		elsif (@steps) { $steps[-1]{shown} .= $text; }
		else { die "line $line: a block of psql begins with its prompt\n"; }
		$line++;
	}
	return @steps;
}

# A line that is shown, as a regular expression.
sub _pattern
{
	my ($text) = @_;

	return join '', map { $_ eq '...' ? '.*' : /^$time$/ ? $time : quotemeta } split /(\.\.\.|$time)/, $text;
}

# What is wrong with what was printed; empty: nothing is. White space at the end of lines, and empty lines at the end, do not count.
sub differences
{
	my ($step, $printed) = @_;
	my ($got, $want) = map { s/[ \t]+$//gmr =~ s/\n*\z/\n/r } $printed, $step->{shown};
	my $pattern = join '', map { /^\.\.\.\n$/ ? '(?:.*\n)*?' : _pattern(s/\n$//r) . '\n' } $want =~ /(.*\n)/g;

	return $got =~ /\A$pattern\z/ ? '' : "printed:\n$got";
}

1;
