
=pod

=head1 NAME

QuotaTest::Clock - a wall clock for servers that a test can move

=head1 SYNOPSIS

  my $clock = QuotaTest::Clock->new('2026-12-31 23:58:30');    # UTC; runs from there
  $clock->with(sub { $node->start });
  $clock->advance(3600);

=head1 DESCRIPTION

Servers that are started within with() have the clock, with all their processes; a library is preloaded into them.
Their clocks of durations, and those of the test, are the real ones.

=cut

package QuotaTest::Clock;

use strict;
use warnings FATAL => 'all';

use FindBin;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time);
use Time::Local qw(timegm);

# A clock that shows a time.
sub new
{
	my ($class, $show) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir();
	my $self = bless { file => "$folder/shift", library => "$folder/shift.so" }, $class;
	my @command = ($ENV{CC} // 'cc', qw(-shared -fPIC -O2 -o), $self->{library}, "$FindBin::RealBin/../clock/shift.c");

	system(@command) == 0 or die "cannot compile: @command";
	open($self->{handle}, '+>', $self->{file}) or die "$self->{file}: $!";
	$self->show($show);
	return $self;
}

# Runs code whose servers have this clock.
sub with
{
	my ($self, $code) = @_;
	local $ENV{LD_PRELOAD} = join ' ', grep { $_ } $self->{library}, $ENV{LD_PRELOAD};
	local $ENV{QUOTA_TEST_CLOCK} = $self->{file};

	return $code->();
}

# What it shows, in seconds since 1970.
sub now
{
	my ($self) = @_;

	return time() + $self->{shift};
}

# Lets it show a time 'YYYY-MM-DD HH:MM:SS' UTC.
sub show
{
	my ($self, $show) = @_;
	my ($year, $month, @rest) = $show =~ /^(\d+)-(\d+)-(\d+) (\d+):(\d+):(\d+)$/ or die "no time: $show";

	$self->{shift} = 0;
	$self->advance(timegm(reverse(@rest), $month - 1, $year) - time());
	return;
}

# Moves it by so many seconds.
sub advance
{
	my ($self, $seconds) = @_;

	$self->{shift} += $seconds;
	sysseek($self->{handle}, 0, 0);
	# in one piece, since it is being read
	syswrite($self->{handle}, pack('q', $self->{shift} * 1_000_000)) == 8 or die "cannot move the clock: $!";
	return;
}

1;
