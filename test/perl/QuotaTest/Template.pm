
=pod

=head1 NAME

QuotaTest::Template - new clusters as copies of one that initdb made

=head1 SYNOPSIS

  perl -MQuotaTest::Template test/t/030_delivery.pl

=head1 DESCRIPTION

Once loaded, the init() of all clusters runs initdb once for each set of its options and each run of the tests; every
cluster is a copy of what it made, with a system identifier of its own, by which copies and restores are told apart.

=cut

package QuotaTest::Template;

use strict;
use warnings FATAL => 'all';

use Digest::MD5 qw(md5_hex);
use Fcntl qw(:flock);
use PostgreSQL::Test::Utils;
use Time::HiRes qw(gettimeofday);

# Where xlp_sysid is in the long header of the first page of a WAL file.
my $WAL_IDENTIFIER_AT = 24;

my @crc32c = map {
	my $value = $_;

	$value = $value & 1 ? $value >> 1 ^ 0x82F63B78 : $value >> 1 foreach 1 .. 8;
	$value;
} 0 .. 255;

sub _crc32c
{
	my $crc = 0xFFFFFFFF;

	$crc = $crc >> 8 ^ $crc32c[ ($crc ^ $_) & 0xFF ] foreach unpack 'C*', $_[0];
	return $crc ^ 0xFFFFFFFF;
}

# Overwrites a part of a file.
sub _patch
{
	my ($file, $at, $bytes) = @_;

	open my $handle, '+<:raw', $file or die "$file: $!";
	seek $handle, $at, 0;
	print $handle $bytes;
	close $handle or die "$file: $!";
	return;
}

# One as initdb makes it.
sub _new_identifier
{
	my ($seconds, $microseconds) = gettimeofday();

	return pack 'Q', $seconds << 32 | $microseconds << 12 | $$ & 0xFFF;
}

# Gives a cluster that was never started a system identifier, which starts pg_control and stands in its only WAL file.
sub _identify
{
	my ($folder, $identifier) = @_;
	my $control = slurp_file("$folder/global/pg_control");
	my ($wal, @more) = glob "$folder/pg_wal/0*";
	my ($end) = grep { _crc32c(substr $control, 0, $_) == unpack 'L', substr $control, $_, 4 } map { 8 + 4 * $_ } 1 .. 120;

	$end && $wal && !@more or die "$folder is not as initdb leaves it";
	$control = $identifier . substr $control, 8, $end - 8;
	_patch("$folder/global/pg_control", 0, $control . pack 'L', _crc32c($control));
	_patch($wal, $WAL_IDENTIFIER_AT, $identifier);
	return;
}

# The folder of a cluster that initdb has made with these options, in the folder of this run of the tests.
sub _template
{
	my ($system_or_bail, @options) = @_;
	my ($initdb) = grep { -x } map { "$_/initdb" } split /:/, $ENV{PATH};
	my $folder = "$PostgreSQL::Test::Utils::tmp_check/template-" . md5_hex(join "\0", $initdb, (stat $initdb)[9], (map { $ENV{$_} // '' } qw(LC_ALL LANG)), @options);

	open my $lock, '>', "$folder.lock" or die "$folder.lock: $!";
	flock $lock, LOCK_EX or die "$folder.lock: $!";
	if (!-d $folder)
	{
		$system_or_bail->('rm', '-rf', "$folder.new");
		$system_or_bail->('initdb', @options, '-D', "$folder.new");
		rename "$folder.new", $folder or die "$folder: $!";
	}
	return $folder;
}

my $system_or_bail = \&PostgreSQL::Test::Utils::system_or_bail;

# Takes the calls of initdb from it.
sub _system_or_bail
{
	my ($program, @options) = @_;

	foreach my $at (grep { $program eq 'initdb' && $options[$_] =~ /^(?:-D|--pgdata)$/ } 0 .. $#options)
	{
		my (undef, $data) = splice @options, $at, 2;

		$system_or_bail->('cp', '-RPp', _template($system_or_bail, @options), $data);
		return _identify($data, _new_identifier());
	}
	return $system_or_bail->($program, @options);
}

{
	no warnings 'redefine';
	*PostgreSQL::Test::Utils::system_or_bail = \&_system_or_bail;
}

1;
