# META.json is what the Meta Spec 1.0.0 of PGXN asks for, and Debian's files tell the same.  scripts/check builds what
# "make dist" makes.

use strict;
use warnings;

use FindBin;
use JSON::PP;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $root = "$FindBin::Bin/../..";
my ($version) = slurp_file("$root/quota_manager.control") =~ /^default_version *= *'(.*)'/m;
my $meta = JSON::PP->new->decode(slurp_file("$root/META.json"));

# The kinds of values of the spec.
my $string = qr/\S/;
my $term = qr/^[^\s\/\\\p{Cntrl}]{2,}$/;
my $semantic = qr/^(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}(?:-[0-9A-Za-z-]+)?$/;
my $range = qr/^(?:0|(?:(?:==|!=|>=?|<=?) *)?\d+\.\d+\.\d+(?:, *(?:==|!=|>=?|<=?) *\d+\.\d+\.\d+)*)$/;
my $url = qr{^https?://[\w.-]+/\S*$};
my $file = qr{^(?!/)(?!.*\.\.)\S+$};
my $tag = qr/^[^\/\\\p{Cntrl}]{1,255}$/;
my $licence = qr/^(?:agpl_3|apache_1_1|apache_2_0|artistic_[12]|bsd|freebsd|gfdl_1_[23]|gpl_[123]|lgpl_(?:2_1|3_0)|mit|mozilla_1_[01]|openssl|perl_5|postgresql|qpl_1_0|ssleay|sun|zlib|open_source|restricted|unrestricted|unknown)$/;

# Keys of the spec, each with what it asks of the value; "!" marks those that must be there.
my %of_extension = ('!file' => $file, '!version' => $semantic, abstract => $string, docfile => $file);
my %of_meta = (
	'!name' => $term, '!version' => $semantic, '!abstract' => $string, '!maintainer' => $string, '!license' => $licence,
	'!provides' => sub { like($_, $term, "$_ is a name"), fits("provides.$_", $_[0]{$_}, \%of_extension) for keys %{ $_[0] } },
	'!meta-spec' => sub { fits('meta-spec', $_[0], { '!version' => qr/^1\.0\.0$/, url => $url }) },
	description => $string, generated_by => $string, release_status => qr/^(?:stable|testing|unstable)$/,
	tags => sub { like($_, $tag, "tag $_") for @{ $_[0] } },
	prereqs => sub {
		my ($phases) = @_;

		for my $phase (keys %$phases)
		{
			like($phase, qr/^(?:configure|build|test|runtime|develop)$/, "phase $phase");
			for my $relation (keys %{ $phases->{$phase} })
			{
				like($relation, qr/^(?:requires|recommends|suggests|conflicts)$/, "relation $relation");
				like($phases->{$phase}{$relation}{$_}, $range, "$relation $_") for keys %{ $phases->{$phase}{$relation} };
			}
		}
	},
	resources => sub { fail('resources name places that there are') });

# That a map has what it must have, nothing that is unknown, and the right values.
sub fits
{
	my ($where, $map, $spec) = @_;
	my %known = map { s/^!//r => $spec->{$_} } keys %$spec;

	ok(defined $map->{$_}, "$where has $_") for map { /^!(.*)/ } sort keys %$spec;
	for my $key (sort keys %$map)
	{
		next if $key =~ /^[xX]_/;
		ok($known{$key}, "$where: $key is known") or next;
		if (ref $known{$key} eq 'CODE') { $known{$key}->($map->{$key}) }
		else { like($map->{$key}, $known{$key}, "$where: $key") }
	}
	return;
}

fits('META.json', $meta, \%of_meta);
is($meta->{version}, $version, 'it has the version of the control file');
is($meta->{provides}{quota_manager}{version}, $version, 'and so has the extension');
is($meta->{provides}{quota_manager}{file}, "sql/quota_manager--$version.sql", 'its file is the install script');

# Debian's files.
like(slurp_file("$root/debian/changelog"), qr/\Aquota-manager \(\Q$version\E-\d+\) /, "the package has the extension's version");
like(slurp_file("$root/debian/changelog"), qr/^ -- \Q$meta->{maintainer}\E </m, 'and its maintainer');
my $licence_text = slurp_file("$root/LICENSE");
my $copyright = slurp_file("$root/debian/copyright");
for my $part ('2026, the quota_manager authors', split /\n\n/, $licence_text =~ s/\A.*?\n\n.*?\n\n//sr)
{
	my $words = join '\s+(?:\.\s+)?', map { quotemeta } split ' ', $part;

	like($copyright, qr/$words/, 'debian/copyright has: ' . substr($part, 0, 30));
}

done_testing();
