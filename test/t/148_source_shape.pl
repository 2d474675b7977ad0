
# The shape that the C sources keep, and the words of the glossary: what scripts/measure-source counts.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use QuotaTest::SourceShape;
use Test::More;

my $shape = QuotaTest::SourceShape->new("$FindBin::RealBin/../..");

# What the lists below are taken from is found; else they would be empty whatever the sources are like.
subtest 'the sources are read' => sub {
	my %found = (
		functions => [ $shape->functions ],
		structs => [ $shape->structs ],
		'static variables' => [ $shape->mutable_statics ],
		durations => [ $shape->time_constants ]);

	cmp_ok(scalar @{ $found{functions} }, '>', 700, 'functions');
	cmp_ok(scalar @{ $found{structs} }, '>', 50, 'structs');
	cmp_ok(scalar @{ $found{'static variables'} }, '>', 20, 'static variables');
	cmp_ok(scalar @{ $found{durations} }, '>', 20, 'durations');
};

is_deeply([ map { "$_->{file}: $_->{name}" } $shape->long_functions(60) ], [], 'no function is longer than 60 lines');
is_deeply([ map { "$_->{file}: $_->{name}" } grep { $_->{fields} > 20 } $shape->structs ], [], 'no struct has more than 20 fields');
is_deeply([ map { join ' ', @{$_} } $shape->circles ], [], 'no files include or call each other in a circle');
is_deeply([ map { "$_->{file}: $_->{name}" } grep { !$_->{unit} } $shape->time_constants ], [], 'the name of a duration says its unit');
is_deeply([ map { "$_->{file}:$_->{line}: $_->{word}" } $shape->replaced_words ], [], 'no word is used that the glossary has replaced');

my %homes;
push @{ $homes{ $_->[1] } }, $_->[0] foreach map { m{^(src/.*/([^/]+\.c))$} ? [ $1, $2 ] : () } $shape->files;
is_deeply([ map { "@{$_}" } grep { @{$_} > 1 } map { $homes{$_} } sort keys %homes ], [], 'no two sources have one name');
done_testing();
