# What the documentation refers to is there: links, their anchors, and files named in backticks. Its lines are short.

use strict;
use warnings;

use File::Basename qw(dirname);
use FindBin;
use Test::More;

my $root = "$FindBin::Bin/../..";
my @pages = map { s/^\Q$root\E\///r } "$root/README.md", "$root/CHANGELOG.md", glob("$root/docs/*.md $root/bench/README.md $root/test/README.md");

sub text
{
	my ($page) = @_;

	open my $in, '<:encoding(UTF-8)', "$root/$page" or die "$page: $!";
	local $/ = undef;
	my $text = <$in>;
	close $in or die "$page: $!";
	return $text;
}

# The anchors that GitHub makes of the headings of a page.
sub anchors
{
	my ($page) = @_;
	my $text = text($page) =~ s/^```.*?^```//gmsr;
	my (%seen, %anchors);

	while ($text =~ /^#+ +(.*?) *$/gm)
	{
		my $anchor = lc($1 =~ s/\[([^]]*)\]\([^)]*\)/$1/gr);

		$anchor =~ s/[^\w\- ]//g;
		$anchor =~ s/ /-/g;
		$anchors{ $anchor . ($seen{$anchor} ? "-$seen{$anchor}" : '') } = 1;
		$seen{$anchor}++;
	}
	return \%anchors;
}

foreach my $page (@pages)
{
	my $text = text($page) =~ s/^```.*?^```//gmsr;
	my @missing;

	while ($text =~ /\]\(([^)\s]+)\)/g)
	{
		my ($file, $anchor) = split /#/, $1, 2;
		my $target;

		next if $file =~ /^[a-z]+:/;
		$target = $file eq '' ? $page : dirname($page) eq '.' ? $file : dirname($page) . "/$file";
		$target =~ s{(?:^|/)\w+/\.\./}{/}g;
		$target =~ s{^/}{};
		if (!-e "$root/$target") { push @missing, "link to $1"; }
		elsif (defined $anchor && !anchors($target)->{$anchor}) { push @missing, "link to $1: no such heading"; }
	}
	while ($page ne 'CHANGELOG.md' && $text =~ /`((?:src|sql|test|bench|scripts|docs|examples|container|debian|expected)\/[\w.\/-]*)`/g)
	{
		push @missing, "file $1" if !-e "$root/$1";
	}
	is(join("\n", @missing), '', "what $page refers to is there");
}

# Lines of hand-written pages have at most 100 characters, but in code and where a link alone is longer.
foreach my $page (grep { $_ ne 'docs/reference.md' } @pages)
{
	my $in_code = 0;
	my @long;

	foreach my $line (split /\n/, text($page))
	{
		$in_code = !$in_code if $line =~ /^\s*```/;
		push @long, $line if !$in_code && length $line > 100 && $line !~ /^\s*(?:- )?\S+$/;
	}
	is(join("\n", @long), '', "$page has no long lines");
}

# In the table of folders, files are named within the folder of their row.
my @lost;
my $folder = '';
foreach my $line (split /\n/, text('docs/architecture.md'))
{
	$folder = $1 if $line =~ /^\| `(\w+)\/`/;
	next if $line !~ /^\| `\w+\/` .*\|.*\|.*\.[ch]`/;
	push @lost, grep { !-e "$root/src/$folder/$_" } $line =~ /`(\w+\.[ch])`/g;
}
is(join(' ', @lost), '', 'the files of the table of folders are in them');

# Each TAP file is known by its number.
my %numbered;
push @{ $numbered{ substr $_, 0, 3 } }, $_ foreach map { s{.*/}{}r } glob("$FindBin::Bin/*.pl");
is(join(' ', map { @$_ > 1 ? @$_ : () } values %numbered), '', 'no two TAP files have one number');

done_testing();
