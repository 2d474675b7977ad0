
=pod

=head1 NAME

QuotaTest::Wait - waits for what the database says, also while it is down

=cut

package QuotaTest::Wait;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use IPC::Run ();
use PostgreSQL::Test::Utils ();
use Test::More ();
use Time::HiRes qw(time usleep);

our @EXPORT_OK = qw(poll_sql);

# Waits until a query gives a result ('t'); returns whether it did in time. A server that is starting or refuses
# is asked again. The query is not piped in, as poll_query_until() does: a psql that cannot connect does not read
# it, and whoever writes to it then dies.
sub poll_sql
{
	my ($node, $database, $query, $expected) = @_;
	my @command = ('psql', '-XAtq', '-d', $node->connstr($database), '-c', $query);
	my $end = time() + $PostgreSQL::Test::Utils::timeout_default;
	my ($out, $err);

	$expected //= 't';
	while (1)
	{
		IPC::Run::run([@command], '<', '/dev/null', '>', \$out, '2>', \$err);
		chomp($out);
		return 1 if $out eq $expected && $err eq '';
		last if time() > $end;
		usleep(20_000);
	}
	Test::More::diag("not in time: $query\nwanted: $expected\nlast: $out $err");
	return 0;
}

1;
