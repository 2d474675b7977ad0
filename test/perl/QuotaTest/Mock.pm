
=pod

=head1 NAME

QuotaTest::Mock - an AiGateway for tests

=head1 SYNOPSIS

  my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'secret');
  $mock->fault(kind => 'apply_close', match => 'delta');
  my $public = QuotaTest::Mock->start(dialect => 'zgsm', integers => 1);
  $mock->kill9; $mock->start_again;    # with journal => FILE, what it applied is kept
  my @changes = $mock->applied;

=cut

package QuotaTest::Mock;

use strict;
use warnings FATAL => 'all';

use FindBin;
use HTTP::Tiny;
use JSON::PP;
use QuotaTest::Wait ();

# Starts the mock on a free port, or on that of a mock that was stopped.
sub start
{
	my ($class, %option) = @_;
	my $path = $ENV{QUOTA_MANAGER_MOCK} || "$FindBin::RealBin/../aigateway-mock/aigateway-mock";
	my $self = bless { %option, http => HTTP::Tiny->new(timeout => 30) }, $class;

	$self->{path} = $path;
	$self->_run;
	return $self;
}

sub _run
{
	my ($self) = @_;
	my @command = ($self->{path}, '--dialect', $self->{dialect}, '--port', $self->{port} || 0,
		'--lifetime', $self->{lifetime} // 900);

	push @command, '--key', $self->{key} if defined $self->{key};
	push @command, '--journal', $self->{journal} if defined $self->{journal};
	push @command, '--other-key', $self->{other_key} if defined $self->{other_key};
	push @command, map { "--$_" } grep { $self->{ s/-/_/r } } 'integers', 'group-pools';
	$self->{pid} = open($self->{output}, '-|', @command) || die "cannot run $self->{path}: $!";
	my $line = readline($self->{output}) // '';
	$line =~ /^listening on 127\.0\.0\.1:(\d+)$/ or die "the mock said: $line";
	$self->{port} = $1;
	return;
}

# The base URL of the gateway.
sub url
{
	my ($self) = @_;

	return "http://127.0.0.1:$self->{port}";
}

# Stops it; what it knew is lost, unless it has a journal.
sub stop
{
	my ($self, $signal) = @_;
	my $status = $?;

	return if !$self->{pid};
	kill $signal // 'TERM', $self->{pid};
	close $self->{output};
	delete $self->{pid};
	$? = $status;
	return;
}

# Kills it as it is.
sub kill9
{
	my ($self) = @_;

	$self->stop('KILL');
	return;
}

# Starts one that was stopped again, on the same port.
sub start_again
{
	my ($self) = @_;

	$self->_run;
	return;
}

# Starts it again on the same port.
sub restart
{
	my ($self) = @_;

	$self->stop;
	$self->_run;
	return;
}

sub DESTROY
{
	my ($self) = @_;

	$self->stop;
	return;
}

sub _get_text
{
	my ($self, $path) = @_;
	my $reply = $self->{http}->get($self->url . $path);

	$reply->{success} or die "GET $path: $reply->{status} $reply->{content}";
	return $reply->{content};
}

sub _get
{
	my ($self, $path) = @_;

	return decode_json($self->_get_text($path));
}

sub _post
{
	my ($self, $path, %form) = @_;
	# A body would travel in a packet of its own, and wait for the first one's acknowledgement.
	my $query = $self->{http}->www_form_urlencode(\%form);
	my $reply = $self->{http}->post($self->url . "$path?$query");

	$reply->{success} or die "POST $path: $reply->{status} $reply->{content}";
	return;
}

# Every change it applied, in order: hashes with user, action, amount, idempotency_key. Deltas of 0, by
# which a courier sees whether a gateway takes writes, are left out unless zeros => 1. from => N: from that number on.
sub applied
{
	my ($self, %option) = @_;
	# a list in JSON takes Perl far longer to read
	my $list = $self->_get_text('/mock/applied.tsv?from=' . ($option{from} // 1));

	utf8::decode($list);
	my ($head, @lines) = split /\n/, $list;
	my @names = split /\t/, $head;

	return grep { $option{zeros} || $_->{action} !~ /delta/ || $_->{amount} ne '0' }
	  map { my %change; @change{@names} = map { _uncopied($_) } split /\t/, $_, -1; \%change } @lines;
}

# A value of COPY's text format.
sub _uncopied
{
	my ($value) = @_;
	my %meant = (b => "\b", f => "\f", n => "\n", r => "\r", t => "\t", v => "\x0b");

	return undef if $value eq '\N';
	return $value if $value !~ /\\/;
	return $value =~ s{\\(.)}{$meant{$1} // $1}ger;
}

# Waits until it has applied so many changes for a user; returns how many it has.
sub wait_applied
{
	my ($self, $user, $count) = @_;
	my $applied;

	return $applied if QuotaTest::Wait::happens(
		sub {
			$applied = grep { $_->{user} eq $user } $self->applied;
			return $applied >= $count;
		});
	return $applied;
}

# The names of the kinds of faults that it knows.
sub fault_kinds
{
	my ($self) = @_;

	return @{ $self->_get('/mock/fault/kinds') };
}

# The same without the deltas of zero that only ask whether the gateway takes any.
sub delivered
{
	my ($self) = @_;

	return grep { defined $_->{idempotency_key} || $_->{amount} != 0 } $self->applied;
}

# Counters.
sub stats
{
	my ($self) = @_;

	return $self->_get('/mock/stats');
}

# Requests of one action, by status.
sub requests
{
	my ($self, $action) = @_;

	return $self->stats->{by_action}{$action} // {};
}

# What remains for a user.
sub balance
{
	my ($self, $user) = @_;
	my $answer = $self->_get("/mock/balance?user=$user");

	return $answer->{quota} - $answer->{used};
}

sub set_balance
{
	my ($self, $user, %balance) = @_;

	$self->_post('/mock/balance', user => $user, %balance);
	return;
}

# Arms a fault; README.md of the mock lists kinds and parameters. A match of grant spares deltas of 0.
sub fault
{
	my ($self, %fault) = @_;

	$self->_post('/mock/fault', %fault);
	return;
}

# What a fault of kind status answers with as the gateway itself refuses a
# request for good: no other server says this.
sub own_refusal
{
	my ($self, $why) = @_;
	my $text = "Request denied by ai quota check. $why: value must be integer.";

	return (
		kind => 'status',
		status => 400,
		body => $self->{dialect} eq 'zgsm'
		? qq({"code":"ai-gateway.invalid_params","message":"$text","success":false})
		: $text);
}

sub clear_faults
{
	my ($self) = @_;

	$self->_post('/mock/fault/clear');
	return;
}

# Asks for another key from now on.
sub set_key
{
	my ($self, $key) = @_;

	$self->_post('/mock/key', key => $key);
	return;
}

# Whether a repeated Idempotency-Key is answered and not applied again.
sub honour_idempotency
{
	my ($self, $on) = @_;

	$self->_post('/mock/honour-idempotency', on => $on);
	return;
}

# Forgets what it applied and counted.
sub reset
{
	my ($self) = @_;

	$self->_post('/mock/reset');
	return;
}

1;
