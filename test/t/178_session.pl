
# docs/session.md: what the page shows is what psql prints.

use strict;
use warnings FATAL => 'all';
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Encode ();
use IPC::Run ();
use PostgreSQL::Test::Utils;
use QuotaTest::Mock;
use QuotaTest::ScanNode qw(scan_node);
use QuotaTest::Transcript;
use Test::More;

my $mock = QuotaTest::Mock->start(dialect => 'zgsm');
my $node = scan_node('session', <<'CONF');
quota_manager.schedule_clock = '2025-06-30 12:30:00+00'
quota_manager.default_strategy_state = draft
CONF

$node->safe_psql('postgres', 'CREATE DATABASE quota');
$node->safe_psql('quota', 'CREATE EXTENSION quota_manager');
$ENV{PGOPTIONS} = '-c search_path=quota_manager';

# What psql prints, as at a terminal.
sub psql
{
	my ($typed) = @_;
	my $printed;

	IPC::Run::run([ 'psql', '-X', '-v', "gateway_url=" . $mock->url, '-d', $node->connstr('quota'), '-P', 'pager=off', '-f', '-' ],
		'<', \Encode::encode('UTF-8', $typed), '>&', \$printed);
	# a script's place in it is not shown at a terminal
	return Encode::decode('UTF-8', $printed) =~ s/^psql:<stdin>:\d+: //gmr;
}

my $transcript = '';

foreach my $step (QuotaTest::Transcript::steps("$FindBin::RealBin/../../docs/session.md"))
{
	my $printed = psql($step->{typed});

	if (!defined $step->{shown})
	{
		unlike($printed, qr/^(?:ERROR|FATAL)/m, "line $step->{line}: what the page does not show");
		next;
	}
	$transcript .= 'quota=# ' . ($step->{typed} =~ s/\n(?=.)/\nquota-# /gr) . $printed;
	is(QuotaTest::Transcript::differences($step, $printed), '', "line $step->{line}: " . (split /\n/, $step->{typed})[0]);
}
append_to_file($ENV{QUOTA_MANAGER_SHOW_ANSWERS}, Encode::encode('UTF-8', $transcript)) if $ENV{QUOTA_MANAGER_SHOW_ANSWERS};

done_testing();
