
=pod

=head1 NAME

QuotaTest::ConditionExamples - examples of the condition language, from a file

=head1 DESCRIPTION

The file has a line per example: id, expression, user, expected (true, false, null:
undecided, error), note, with the escapes \\ \t \n \r.

=cut

package QuotaTest::ConditionExamples;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use JSON::PP;
use QuotaTest::ConditionGenerator;
use QuotaTest::ConditionValues qw(instant);

our @EXPORT_OK = qw(read_examples user_of);

# The rows of a file of examples.
sub read_examples
{
	my ($path) = @_;
	my %sign = ('\\' => '\\', t => "\t", n => "\n", r => "\r");
	my @rows;

	open my $file, '<:encoding(UTF-8)', $path or die "$path: $!";
	while (my $line = <$file>)
	{
		my %row;

		chomp $line;
		next if $. == 1;
		@row{qw(id expression user expected note)} =
		  map { s/\\([\\tnr])/$sign{$1}/gr } split /\t/, $line, -1;
		push @rows, \%row;
	}
	close $file;
	return @rows;
}

# The user that the JSON of an example describes. Its quota is the balance at
# the default gateway, null when nobody could read it.
sub user_of
{
	my ($text) = @_;
	my $json = JSON::PP->new->loose->decode($text);
	my %user = %$json;

	$user{register_text} = $user{register_time};
	$user{access_text} = $user{access_time};
	foreach my $time (@user{qw(register_time access_time)})
	{
		$time = instant($time) if defined $time;
	}
	$user{balance} = defined $user{quota} ? { default => $user{quota} } : undef;
	$user{served_by} = \%QuotaTest::ConditionGenerator::served_by;
	return \%user;
}

1;
