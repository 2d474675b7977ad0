
=pod

=head1 NAME

QuotaTest::SourceShape - figures of the C sources, and uses of words that the glossary has replaced

=head1 SYNOPSIS

  my $shape = QuotaTest::SourceShape->new($root);
  print "$_->{file}: $_->{name}\n" foreach $shape->long_functions(60);

Reads C as .clang-format leaves it: a function's name and its braces begin their lines.

=cut

package QuotaTest::SourceShape;

use strict;
use warnings FATAL => 'all';

# Words that are used nowhere, in code, comments and pages.
my $REPLACED = join '|', qw(lanes? flights? flying gates? doorbells? rosters? agendas? cramped dismissals? dismiss(?:ed)? occupants? backlogs?
  complaints? leftovers? fenced troubles?);

# Words for which the glossary has a term where deliveries and workers are meant; elsewhere, and in prose, they may be used
# as English does (a place of a decimal).
my $REPLACED_NAMES = join '|', qw(tap taps armed obstacle obstacles board boards place places turn turns look looks round rounds reading readings proof proofs proving ring
  room rooms touched hot charge charged damage damages probe probes probed admitted);

# Names that are not ours to change: settings, types that people see, symbols that the script of 1.0.0 asks for.
my %kept = map { $_ => 1 } qw(troubled_grant);

sub new
{
	my ($class, $root) = @_;
	my $self = bless { root => $root, code => {}, comments => {} }, $class;

	foreach my $file (sort glob("$root/src/*.[ch] $root/src/*/*.[ch]"))
	{
		my $text = _slurp($file);
		my $name = substr $file, length("$root/");

		$self->{text}{$name} = $text;
		($self->{code}{$name}, $self->{comments}{$name}) = _split_comments($text);
	}
	return $self;
}

sub _slurp
{
	my ($file) = @_;

	open my $in, '<:encoding(UTF-8)', $file or die "$file: $!";
	local $/ = undef;
	my $text = <$in>;
	close $in or die "$file: $!";
	return $text;
}

# The code of a file without comments and texts, and its comments without code; both keep the numbers of lines.
sub _split_comments
{
	my ($text) = @_;
	my ($code, $comments) = ('', '');

	while ($text =~ m{\G( /\*.*?\*/ | //[^\n]* | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' | [^/"']+ | . )}gsx)
	{
		my $piece = $1;
		(my $blank = $piece) =~ s/[^\n]/ /g;
		if ($piece =~ m{^/[*/]}) { $code .= $blank; $comments .= $piece }
		elsif ($piece =~ /^["']/ && length $piece > 1) { $code .= $blank; $comments .= $blank }
		else { $code .= $piece; $comments .= $blank }
	}
	return ($code, $comments);
}

sub files
{
	my ($self) = @_;
	my @files = sort keys %{ $self->{text} };

	return @files;
}

# Folder => lines and files.
sub lines
{
	my ($self) = @_;
	my %lines;

	while (my ($file, $text) = each %{ $self->{text} })
	{
		my (undef, $folder, $rest) = split m{/}, $file;

		$folder = '.' if !defined $rest;
		$lines{$folder}{lines} += ($text =~ tr/\n//);
		$lines{$folder}{files}++;
	}
	return %lines;
}

# Every function that is defined, with the lines of its body.
sub functions
{
	my ($self) = @_;
	my @found;

	foreach my $file (grep { /\.c$/ } sort keys %{ $self->{code} })
	{
		while ($self->{code}{$file} =~ /^(\w+)\((?:[^;{}]*?)\)\s*^\{\n(.*?)^\}/gms)
		{
			push @found, { file => $file, name => $1, lines => ($2 =~ tr/\n//), body => $2 };
		}
	}
	return @found;
}

sub long_functions
{
	my ($self, $most) = @_;

	return grep { $_->{lines} > $most } $self->functions;
}

# Structs with the number of their fields, the largest first.
sub structs
{
	my ($self) = @_;
	my @found;

	foreach my $file (sort keys %{ $self->{code} })
	{
		while ($self->{code}{$file} =~ /^(?:typedef )?(?:struct|union)(?: (\w+))?\s*^\{\n(.*?)^\}\s*(\w*)/gms)
		{
			my ($tag, $body, $type) = ($1, $2, $3);
			my $depth = 0;
			my $fields = 0;

			$body =~ s/^\s*#.*$//gm;
			foreach my $char (split //, $body)
			{
				$depth++ if $char =~ /[{(\[]/;
				$depth-- if $char =~ /[})\]]/;
				$fields++ if $depth == 0 && ($char eq ';' || $char eq ',');
			}
			push @found, { file => $file, name => $type || $tag || '?', fields => $fields };
		}
	}
	@found = sort { $b->{fields} <=> $a->{fields} || $a->{name} cmp $b->{name} } @found;
	return @found;
}

# Variables of static storage that can change; prepared statements, which keep their plan, are counted too.
sub mutable_statics
{
	my ($self) = @_;
	my @found;

	foreach my $file (sort keys %{ $self->{code} })
	{
		while ($self->{code}{$file} =~ /^[ \t]*static\b(?!\s+inline\b)([^;={]*?)([;={])/gm)
		{
			my ($declaration, $end) = ($1, $2);

			next if $declaration =~ /\w\s*\(/ && $declaration !~ /\(\s*\*/;
			(my $type = $declaration) =~ s/\[.*//s;
			my ($behind) = $type =~ /.*\*(.*)/s;
			next if ($behind // $type) =~ /\bconst\b/;
			$declaration =~ s/\s+/ /g;
			push @found, { file => $file, text => "static$declaration" };
		}
	}
	return @found;
}

# Files (a source with its header) that include or call each other in a circle.
sub circles
{
	my ($self) = @_;
	my (%home, %edges);

	foreach my $function ($self->functions)
	{
		(my $module = $function->{file}) =~ s/\.c$//;
		push @{ $home{ $function->{name} } }, $module;
	}
	foreach my $file (sort keys %{ $self->{text} })
	{
		(my $module = $file) =~ s/\.[ch]$//;
		while ($self->{text}{$file} =~ /^#include "(\w+\/\w+)\.h"/gm)
		{
			$edges{$module}{"src/$1"} = 1 if $self->{text}{"src/$1.h"} && "src/$1" ne $module;
		}
	}
	foreach my $function ($self->functions)
	{
		(my $module = $function->{file}) =~ s/\.c$//;
		while ($function->{body} =~ /\b(\w+)\(/g)
		{
			my $homes = $home{$1};

			# a name of several files is static in them
			next if !$homes || @{$homes} > 1 || $homes->[0] eq $module;
			$edges{$module}{ $homes->[0] } = 1;
		}
	}
	return _components(\%edges);
}

# Strongly connected components of more than one node, after Tarjan.
sub _components
{
	my ($edges) = @_;
	my ($next, @stack, %index, %low, %on_stack, @found) = (0);
	my $visit;

	$visit = sub {
		my ($node) = @_;

		$index{$node} = $low{$node} = $next++;
		push @stack, $node;
		$on_stack{$node} = 1;
		foreach my $other (sort keys %{ $edges->{$node} || {} })
		{
			$visit->($other) if !defined $index{$other};
			$low{$node} = $low{$other} if $on_stack{$other} && $low{$other} < $low{$node};
		}
		return if $low{$node} != $index{$node};
		my @component;
		do
		{
			push @component, pop @stack;
			delete $on_stack{ $component[-1] };
		} while ($component[-1] ne $node);
		push @found, [ sort @component ] if @component > 1;
		return;
	};
	foreach my $node (sort keys %{$edges})
	{
		$visit->($node) if !defined $index{$node};
	}
	return @found;
}

# Durations that have a name, and whether the name says the unit.
sub time_constants
{
	my ($self) = @_;
	my @found;

	foreach my $file (sort keys %{ $self->{text} })
	{
		my $comment = '';

		foreach my $line (split /\n/, $self->{text}{$file})
		{
			if ($line =~ /^#define (\w+)\s+\(?(?:INT64CONST\()?[\d(A-Z]/)
			{
				my $name = $1;
				my $unit = $name =~ /(?:^|_)(?:US|MS|SECONDS|MINUTES|HOURS|DAYS)(?:_|$)/;
				my $says = "$comment $line";

				next if $name =~ /_(?:OFFSET|SHIFT|STEP)$/;
				push @found, { file => $file, name => $name, unit => $unit } if $unit || ($says =~ /\b(?:milliseconds|seconds|minutes|ms)\b/i && $line =~ /\d/);
			}
			elsif ($line =~ m{^(?:/\*| \*)}) { $comment = $line =~ m{^/\*} ? $line : "$comment $line" }
			elsif ($line !~ /^#define/) { $comment = '' }
		}
	}
	return @found;
}

# Functions in schemas that people use, of which no page speaks that a person has written.
sub undocumented_functions
{
	my ($self) = @_;
	my $pages = join "\n", map { _slurp($_) } grep { !m{/reference\.md$} } glob("$self->{root}/README.md $self->{root}/docs/*.md");
	my %found;

	foreach my $part (glob("$self->{root}/sql/parts/*.sql"))
	{
		my $text = _slurp($part);

		while ($text =~ /^CREATE (?:FUNCTION|PROCEDURE) (quota_(?:manager|condition|api))\."?(\w+)/gm)
		{
			(my $dashed = $2) =~ tr/_/-/;
			$found{"$1.$2"} = 1 if $pages !~ /\b(?:\Q$2\E|\Q$dashed\E)\b/;
		}
	}
	my @names = sort keys %found;

	return @names;
}

# Uses of words that the glossary has replaced: in the sources, the comments of SQL, and the pages.
sub replaced_words
{
	my ($self) = @_;
	my @found;

	foreach my $file (sort keys %{ $self->{code} })
	{
		my $number = 0;

		foreach my $line (split /\n/, $self->{code}{$file})
		{
			$number++;
			foreach my $name ($line =~ /\b([a-zA-Z_]\w*)\b/g)
			{
				next if $kept{$name};
				# CamelCase and snake_case, in parts
				(my $parts = $name) =~ s/(?<=[a-z])(?=[A-Z])/_/g;
				$parts = lc $parts =~ s/in_flight//gir;
				foreach my $part (split /_/, $parts)
				{
					push @found, { file => $file, line => $number, word => $part }
						if $part =~ /^(?:$REPLACED)$/ || ($file =~ m{^src/(?:delivery|worker)/} && $part =~ /^(?:$REPLACED_NAMES)$/);
				}
			}
		}
		push @found, _words_of($file, $self->{comments}{$file});
	}
	foreach my $path (sort glob("$self->{root}/sql/parts/*.sql $self->{root}/README.md $self->{root}/docs/*.md"))
	{
		push @found, _words_of(substr($path, length("$self->{root}/")), _slurp($path));
	}
	return @found;
}

# The replaced words in prose.
sub _words_of
{
	my ($file, $text) = @_;
	my $number = 0;
	my @found;

	# "in flight" is one term, also where a line ends between the two
	foreach my $line (split /\n/, $text =~ s/\bin(\s+(?:\*\s+)?)flight\b/$1/gir)
	{
		$number++;
		$line =~ s/\b\w*_\w*\b/ /g;
		push @found, map { { file => $file, line => $number, word => lc $_ } } $line =~ /\b($REPLACED)\b/gi;
	}
	return @found;
}

1;
