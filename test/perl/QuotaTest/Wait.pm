
=pod

=head1 NAME

QuotaTest::Wait - waits for what the database says, also while it is down, or for what a test finds out

=head1 SYNOPSIS

  wait_until($node, 'SELECT count(*) = 3 FROM t');                 # dies if it does not come true in time
  wait_until($node, 'SHOW work_mem', result => '4MB', database => 'other');
  ok(becomes_true($node, 'SELECT ...'), 'it comes true');          # the same, as a check of the test
  wait_for('three requests', sub { ($_ = $mock->stats->{requests}) >= 3 });
  ok(happens(sub { $mock->stats->{requests} >= 3 }), 'three requests');

=head1 DESCRIPTION

A wait that times out fails its test: wait_until() and wait_for() die, with what they waited for and what they saw
last. becomes_true() and happens() return whether it came true, and die where nobody takes what they return.

=cut

package QuotaTest::Wait;

use strict;
use warnings FATAL => 'all';

use Carp qw(croak);
use Exporter 'import';
use IPC::Run ();
use List::Util qw(max min);
use PostgreSQL::Test::Utils ();
use QuotaTest::Wire;
use Test::More ();
use Time::HiRes qw(time usleep);

our @EXPORT_OK = qw(wait_until becomes_true wait_for happens);

# Between two questions: a tenth of the time that the wait has taken, within these.
my ($PAUSE_US, $MOST_US) = (10_000, 100_000);

# Calls code again and again until it returns true; returns whether it did within so many seconds.
sub _poll
{
	my ($code, $seconds) = @_;
	my $begun = time();
	my $end = $begun + ($seconds // $PostgreSQL::Test::Utils::timeout_default);

	while (1)
	{
		return 1 if $code->();
		return 0 if time() > $end;
		usleep(max($PAUSE_US, min($MOST_US, (time() - $begun) * 100_000)));
	}
}

# Waits until a query gives a result, 't' unless another is named. Returns nothing, or why it did not come true in
# time. A server that is starting or refuses is asked again. The query is not piped in, as poll_query_until() does: a
# psql that cannot connect does not read it, and whoever writes to it then dies.
sub _poll_sql
{
	my ($node, $query, %option) = @_;
	my $database = $option{database} // 'postgres';
	my $wanted = $option{result} // 't';
	my ($out, $err) = ('', '');
	my $came = _poll(
		sub {
			($out, $err) = QuotaTest::Wire::ask($node, $database, $query);
			if (!defined $out)
			{
				IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr($database), '-c', $query ], '<', '/dev/null', '>', \$out, '2>', \$err);
				chomp($out);
			}
			return $out eq $wanted && $err eq '';
		},
		$option{seconds});

	return $came ? '' : "not in time: $query\nwanted: $wanted\nlast: $out $err";
}

# Waits until a query gives a result; dies if it does not in time.
sub wait_until
{
	my $why = _poll_sql(@_);

	croak($why) if $why ne '';
	return;
}

# Waits until a query gives a result; returns whether it did in time.
sub becomes_true
{
	my $why;

	defined wantarray or croak('becomes_true() is not checked; wait_until() dies by itself');
	$why = _poll_sql(@_);
	Test::More::diag($why) if $why ne '';
	return $why eq '';
}

# Waits until code returns true; dies if it does not in time, or within so many seconds. The code may leave in $_ what
# it saw.
sub wait_for
{
	my ($what, $code, $seconds) = @_;
	local $_ = 'not known';

	_poll($code, $seconds) or croak("not in time: $what\nlast: $_");
	return;
}

# Waits until code returns true; returns whether it did in time, or within so many seconds.
sub happens
{
	my ($code, $seconds) = @_;

	defined wantarray or croak('happens() is not checked; wait_for() dies by itself');
	return _poll($code, $seconds);
}

1;
