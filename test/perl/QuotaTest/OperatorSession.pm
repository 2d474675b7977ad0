
=pod

=head1 NAME

QuotaTest::OperatorSession - a psql session that goes on after errors, and tells them

=head1 SYNOPSIS

  my $session = QuotaTest::OperatorSession->new($node, 'database');
  my ($rows, $code, $message) = $session->run('SELECT ...');    # rows: array of arrays; code: SQLSTATE of the first error, or ''

=cut

package QuotaTest::OperatorSession;

use strict;
use warnings FATAL => 'all';

use IPC::Open3 ();
use PostgreSQL::Test::Utils;

my $END = 'end of answer';

sub new
{
	my ($class, $node, $database) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir();
	my $self = bless { errors => "$folder/errors", read => 0 }, $class;

	open my $errors, '>', $self->{errors} or die "$self->{errors}: $!";
	$self->{pid} = IPC::Open3::open3($self->{in}, $self->{out}, '>&' . fileno($errors),
		'psql', '-XAtq', '-F', "\t", '-v', 'VERBOSITY=verbose', '-d', $node->connstr($database));
	close $errors;
	$self->run("SET client_min_messages = warning; SET TimeZone = 'UTC'");
	return $self;
}

# Runs statements. Returns rows, the SQLSTATE of the first error ('' if there was none; 'gone' if the session ended) and
# what was printed as errors and warnings.
sub run
{
	my ($self, $statement) = @_;
	my @rows;
	my $gone;

	local $SIG{PIPE} = 'IGNORE';
	# psql prints it however the statements end.
	print { $self->{in} } "$statement;\n\\echo $END\n";
	$self->{in}->flush;
	while (1)
	{
		my $line = readline $self->{out};

		if (!defined $line)
		{
			$gone = 1;
			last;
		}
		chomp $line;
		last if $line eq $END;
		# An empty line is one empty column, of which split() makes none.
		push @rows, [ $line eq '' ? '' : split /\t/, $line, -1 ];
	}
	my $messages = PostgreSQL::Test::Utils::slurp_file($self->{errors}, $self->{read});
	$self->{read} += length $messages;
	my ($code) = $messages =~ /^(?:psql:.*?: )?(?:ERROR|FATAL|PANIC):  (\w{5}):/m;
	return (\@rows, $gone ? 'gone' : $code // '', $messages);
}

sub end
{
	my ($self) = @_;
	my $status = $?;

	close $self->{in};
	close $self->{out};
	waitpid $self->{pid}, 0;
	$? = $status;
	return;
}

1;
