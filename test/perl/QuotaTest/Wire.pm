
=pod

=head1 NAME

QuotaTest::Wire - statements for a server without a psql for each

=head1 SYNOPSIS

  perl -MQuotaTest::Wire test/t/030_delivery.pl

  my ($out, $error) = QuotaTest::Wire::ask($node, 'postgres', 'SELECT 1; SELECT 2');    # "1\n2", ''

=head1 DESCRIPTION

To start a psql takes as much of a processor as what most tests ask.  Here a test speaks to the server itself: each call
is a session of its own, each statement is sent alone, and what is returned is what psql -XAtq prints.  What only psql
can do (its commands and variables, COPY, LISTEN) is left to psql: ask() then returns nothing, as it does where it
cannot connect, which psql reports.

Once loaded, safe_psql() of all clusters goes this way where it can.  Its message has no LINE of the statement.

=cut

package QuotaTest::Wire;

use strict;
use warnings FATAL => 'all';

use IO::Socket::UNIX;
use PostgreSQL::Test::Cluster;

# What libpq takes from the environment, with the name that the server knows; what else begins with PG is psql's.
my %SETTING = (
	PGAPPNAME => 'application_name',
	PGCLIENTENCODING => 'client_encoding',
	PGDATESTYLE => 'datestyle',
	PGGEQO => 'geqo',
	PGOPTIONS => 'options',
	PGTZ => 'timezone',
	PGUSER => 'user');

# A quoted text, a quoted name, a text in dollars, a comment.
my $ATOM = qr{'[^']*'|"[^"]*"|(?<dollar>\$(?:[A-Za-z_]\w*)?\$).*?\k<dollar>|--[^\n]*|/\*(?:[^*]|\*(?!/))*\*/}s;

# Whether a token outside of quotes, or a quoted one after these letters, is psql's: a command or variable of its own, an
# escape, a quote or comment that does not end here, a statement that talks on beside its answer or holds semicolons.
sub _is_psqls
{
	my ($before, $token) = @_;

	return $token =~ /\\'$/ || $before =~ /(?<!:):$/ if $token =~ /^['"]./s;
	return $token =~ m{/\*.*/\*}s if $token =~ m{^/\*};
	return 0 if $token =~ /^(?:--|\$.*\$$)/s;
	return $token =~ /^['"]|\\|(?<!:):[{A-Z]|\b(?i:copy|listen|atomic)\b/;
}

# The statements of a text, each with the line where it ends; nothing if they need psql.
sub _statements
{
	my ($sql) = @_;
	my @statements;
	my ($text, $depth, $line) = ('', 0, 1);

	$sql =~ s/\s+$//;
	while ($sql =~ /\G($ATOM|[^'"\$\/();\-]+|.)/gs)
	{
		my $token = $1;

		return if _is_psqls(length $text > 1 ? substr($text, -2) : $text, $token);
		$line += $token =~ tr/\n//;
		$depth += $token eq '(' ? 1 : $token eq ')' ? -1 : 0;
		# what precedes a statement is not sent
		$text .= $token if $text ne '' || $token !~ m{^(?:\s+$|--|/\*|;)};
		if ($text ne '' && (pos($sql) == length $sql || $token eq ';' && $depth == 0))
		{
			push @statements, [ $text =~ s/^\s+//r, $line ];
			$text = '';
		}
	}
	return @statements;
}

# The next message of a server: its type and what it holds; nothing if the connection has ended.
sub _message
{
	my ($socket) = @_;
	my ($head, $body) = ('', '');

	# of a server that was killed the connection is reset
	(read($socket, $head, 5) // 0) == 5 or return;
	my ($type, $length) = unpack('a1 N', $head);

	$length -= 4;
	$length == 0 || (read($socket, $body, $length) // 0) == $length or return;
	return ($type, $body);
}

# A session; nothing if there is none to have.
sub _connect
{
	my ($node, $database) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => $node->host . '/.s.PGSQL.' . $node->port) or return;
	my %option = (user => scalar getpwuid($<), database => $database, application_name => 'psql');

	foreach my $name (grep { defined $ENV{$_} && $ENV{$_} ne '' } keys %SETTING)
	{
		$option{ $SETTING{$name} } = $ENV{$name};
	}
	my $start = pack('N (Z*)*', 196608, %option) . "\0";

	$socket->autoflush(1);
	print $socket pack('N', 4 + length $start) . $start;
	while (my ($type, $body) = _message($socket))
	{
		return $socket if $type eq 'Z';
		# an error, or a server that asks who this is
		return if $type eq 'E' || $type eq 'R' && unpack('N', $body) != 0;
	}
	return;
}

# An error or a notice as psql writes it.
sub _report
{
	my ($body, $line) = @_;
	my %field = map { /^(.)(.*)$/s ? ($1 => $2) : () } split /\0/, $body;
	my $text = "psql:<stdin>:$line: $field{S}:  $field{M}\n";

	$text .= "DETAIL:  $field{D}\n" if defined $field{D};
	$text .= "HINT:  $field{H}\n" if defined $field{H};
	$text .= "CONTEXT:  $field{W}\n" if defined $field{W} && $field{V} =~ /ERROR|FATAL|PANIC/;
	return $text;
}

# What psql prints of a row.
sub _row
{
	my ($body) = @_;
	my $count = unpack('n', $body);
	my $at = 2;
	my @cells;

	foreach (1 .. $count)
	{
		my $length = unpack('l>', substr($body, $at, 4));

		$at += 4;
		push @cells, $length < 0 ? '' : substr($body, $at, $length);
		$at += $length if $length > 0;
	}
	return $count ? join('|', @cells) . "\n" : '';
}

# Runs one statement: appends what it prints and the notices.  Returns its error, '' if there is none, undef if the
# connection has ended.
sub _run
{
	my ($socket, $statement, $line, $out, $notices) = @_;
	my $error = '';

	print $socket pack('a1 N Z*', 'Q', 5 + length $statement, $statement) or return;
	while (my ($type, $body) = _message($socket))
	{
		if ($type eq 'D') { $$out .= _row($body) }
		elsif ($type eq 'N') { $$notices .= _report($body, $line) }
		elsif ($type eq 'E') { $$notices .= $error = _report($body, $line) }
		elsif ($type eq 'Z') { return $error }
	}
	return;
}

# Runs statements in a session of their own, until one fails.  Returns what psql prints, its errors and notices, and
# with which code it ends; nothing if psql has to be asked.
sub ask
{
	my ($node, $database, $sql) = @_;
	my @statements = utf8::downgrade($sql, 1) ? _statements($sql) : ();
	my ($out, $told, $code) = ('', '', 0);
	local $SIG{PIPE} = 'IGNORE';

	# settings that psql has to see to
	return if grep { /^PG/ && !$SETTING{$_} && !/^PG(?:HOST|PORT|DATABASE|DATA|CTLTIMEOUT|_)/ } keys %ENV;
	my $socket = @statements ? _connect($node, $database) : undef;

	return if !$socket;
	foreach my $statement (@statements)
	{
		my $error = _run($socket, @$statement, \$out, \$told);

		$code = !defined $error ? 2 : $error ne '' ? 3 : next;
		$told .= "server closed the connection unexpectedly\n" if $code == 2;
		last;
	}
	print $socket pack('a1 N', 'X', 4);
	# whoever asks next finds this session gone
	1 while _message($socket);
	close $socket;
	chomp($out, $told);
	return ($out, $told, $code);
}

# safe_psql() of the clusters, by ask() where nothing special is wanted.
my $safe_psql = \&PostgreSQL::Test::Cluster::safe_psql;

sub _safe_psql
{
	my ($node, $database, $sql, %option) = @_;
	my ($out, $told, $code) = %option ? () : ask($node, $database, $sql);

	return $safe_psql->($node, $database, $sql, %option) if !defined $code;
	die +($code == 2 ? 'connection error' : 'error running SQL') . ": '$told'\nwhile running '$sql' in '$database'" if $code;
	print "#### Begin standard error\n$told\n#### End standard error\n" if $told ne '';
	return $out;
}

{
	no warnings 'redefine';
	*PostgreSQL::Test::Cluster::safe_psql = \&_safe_psql;
}

1;
