
=pod

=head1 NAME

QuotaTest::SqlScript - the statements of a SQL script, and what in them depends on search_path

=head1 SYNOPSIS

  foreach my $statement (statements($script)) { print "line $statement->{line}: $_\n" foreach unqualified($statement->{text}); }

=cut

package QuotaTest::SqlScript;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT_OK = qw(statements bare body unqualified);

my $STRING = qr/'(?:[^']|'')*'/;
my $NAME = qr/"(?:[^"]|"")*"|[a-zA-Z_]\w*/;

# What looks like a function and is the grammar's; what it calls cannot be anybody else's.
my %grammar = map { $_ => 1 } qw(all and any array as by case cast check coalesce collate conflict current_setting distinct else end
  except exists extract filter for from greatest group grouping having if in inner interval into join key language lateral least like limit not nullif
  numeric values on or order over partition primary raise return returning returns row select set setof some table then to
  trim unique using when where while with operator);

# Statements as hashes of line and text, without comments.
sub statements
{
	my ($script) = @_;
	my ($line, @found) = (1);
	my %statement = (text => '');

	while ($script =~ /\G( --[^\n]*\n? | ^\\[^\n]*\n | $STRING | "(?:[^"]|"")*" | (\$\w*\$).*?\g2 | ^BEGIN\ ATOMIC\b.*?^END\b | . )/gmsx)
	{
		my $token = $1;
		my $lines = $token =~ tr/\n//;

		$token = "\n" if $token =~ /^(?:--|\\)/;
		if ($statement{text} ne '' || $token =~ /\S/)
		{
			$statement{line} //= $line;
			$statement{text} .= $token;
		}
		$line += $lines;
		if ($token eq ';')
		{
			push @found, {%statement};
			%statement = (text => '');
		}
	}
	die "line $statement{line}: a statement without an end" if $statement{text} =~ /\S/;
	return @found;
}

# A statement without what its strings and comments say.
sub bare
{
	my ($text) = @_;

	return $text =~ s/--[^\n]*|$STRING/substr($&, 0, 1) eq "'" ? "''" : ''/ger;
}

# The body of a function or a DO block in dollar quotes; undef: it has none.
sub body
{
	my ($text) = @_;

	return $text =~ /(\$\w*\$)(.*?)\g1/s ? $2 : undef;
}

# Operators and functions whose schema is not named; types that a value is made into, too.
sub unqualified
{
	my ($text) = @_;
	my $code = bare($text);
	my @found;

	$code =~ s/\bOPERATOR\s*\(\s*\w+\.[^\w\s]+\s*\)/ /g;
	$code =~ s/\b(?:ERRCODE|MESSAGE|DETAIL|HINT|COLUMN|CONSTRAINT|DATATYPE|TABLE|SCHEMA) =/ /g;
	# arguments by name, assignments, ranges, signs of numbers, lists of columns, all arguments of count()
	$code =~ s/:=|=>|\.\.|(?<=[(,=])\s*-(?=\d)|(?<=[.(\s])\*(?=[\s),])/ /g;
	$code =~ s/\bSET\s+\w+\s*=/ /g;
	$code =~ s/\b(?:CONSTANT|DECLARE)\b/ /gi;
	push @found, "cast to $1" while $code =~ /::\s*($NAME)(?!\s*\.|\w)/g;
	$code =~ s/::/ /g;
	push @found, "operator $1" while $code =~ m{([-+*/<>=~!@#%^&|?]+)}g;
	push @found, 'operator ' . uc($1) while $code =~ /\b(in\s*\(|between|i?like|similar|is\s+(?:not\s+)?distinct|nullif)/gi;
	push @found, 'CASE with a value' while $code =~ /\bcase\s+(?!when\b)/gi;
	# not what follows a row source: that is an alias with its columns
	while ($code =~ /(\)\s*|\bAS\s+)?(?<![\w.])($NAME)\s*\(/gi)
	{
		push @found, "function $2" if !defined $1 && !$grammar{ lc $2 };
	}
	return @found;
}

1;
