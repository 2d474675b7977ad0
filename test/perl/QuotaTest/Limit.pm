
=pod

=head1 NAME

QuotaTest::Limit - ends a test file that takes too long, and says where it was

=head1 SYNOPSIS

  perl -MQuotaTest::Limit test/t/030_delivery.pl

=head1 DESCRIPTION

QUOTA_MANAGER_TEST_LIMIT is the time in seconds that a file may take; 0: any.  A file that takes longer, or that is
asked to end, writes a trace of its calls and ends as after any other failure, so that its servers are stopped.

=cut

package QuotaTest::Limit;

use strict;
use warnings FATAL => 'all';

use Carp ();
use POSIX ();

my $limit = $ENV{QUOTA_MANAGER_TEST_LIMIT} // 900;
my $main = $$;

# Says where the test is and ends it, which no eval hinders; a child that has not yet become another program just ends.
sub _end
{
	my ($why) = @_;

	POSIX::_exit(255) if $$ != $main;
	print STDERR Carp::longmess("the test was broken off: $why");
	exit 255;
}

$SIG{ALRM} = sub { _end("it took longer than $limit s (QUOTA_MANAGER_TEST_LIMIT)") };
$SIG{TERM} = sub { _end('SIGTERM') };
$SIG{INT} = sub { _end('SIGINT') };
alarm $limit;

1;
