
# Every kind of fault that the mock knows, through the whole stack: what becomes
# of the grant that meets it, and of the one behind it.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use POSIX qw(strftime);
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway);
use QuotaTest::Mock;
use Test::More;

# What is put off stays so until a row of the table is done with it.
my $node = delivery_node('faults', "quota_manager.retry_base = 1min\n");

# A row: the fault; what becomes of the grant and its last_status, in both
# dialects or in one and the other; how often it is applied; what last_error says.
my $in_an_hour = strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime(time + 3600));
my $unreadable = qr/^HTTP 200: not the reply of an AiGateway/;
my $undecided = qr/^HTTP 200: (?:not the reply of an AiGateway|the reply does not say whether it succeeded)/;
my $no_reply = qr/^the connection closed (?:without a reply|before the reply was whole)$/;
my $timed_out = qr/[Tt]ime(?:d out|out)/;
my @rows = (
	# answered as usual, or nearly
	[ { kind => 'slow', delay_ms => 30 }, 'completed 200', 1 ],
	[ { kind => 'apply_wrong_type' }, 'completed 200', 1 ],
	[ { kind => 'apply_huge', size => 40000 }, 'completed 200', 1 ],
	[ { kind => 'apply_drip', delay_ms => 1 }, 'completed 200', 1 ],
	[ { kind => 'apply_extra' }, 'completed 200', 1 ],

	# refused: it fails
	[ { kind => 'refuse' }, [ 'failed 403', 'failed 400' ], 0, qr/can't be empty/ ],
	[ { kind => 'failure' }, [ 'in_doubt 200', 'failed 200' ], 0, qr/redis error/ ],

	# not applied, and perhaps not the gateway's words: it is sent again
	[ { kind => 'status', status => 400 }, 'pending 400', 0, qr/^HTTP 400: .*redis error/ ],
	[ { kind => 'status', status => 413, body => 'too large' }, 'pending 413', 0, qr/^HTTP 413 \(/ ],
	[ { kind => 'status', status => 422 }, 'pending 422', 0, qr/^HTTP 422/ ],
	[ { kind => 'status', status => 401 }, 'pending 401', 0, qr/^HTTP 401/ ],
	[ { kind => 'status', status => 403 }, 'pending 403', 0, qr/^HTTP 403/ ],
	[ { kind => 'status', status => 404 }, 'pending 404', 0, qr/^HTTP 404/ ],
	[ { kind => 'status', status => 405 }, 'pending 405', 0, qr/^HTTP 405/ ],
	[ { kind => 'status', status => 408 }, 'pending 408', 0, qr/^HTTP 408/ ],
	[ { kind => 'status', status => 429 }, 'pending 429', 0, qr/^HTTP 429/ ],
	[ { kind => 'status', status => 429, retry_after => 120 }, 'pending 429', 0, qr/^HTTP 429/ ],
	[ { kind => 'status', status => 429, retry_after => $in_an_hour }, 'pending 429', 0, qr/^HTTP 429/ ],
	[ { kind => 'drip', status => 429, delay_ms => 1 }, 'pending 429', 0, qr/^HTTP 429/ ],
	[ { kind => 'extra', status => 404 }, 'pending 404', 0, qr/^HTTP 404/ ],
	[ { kind => 'redirect' }, 'pending 307', 0, qr{^HTTP 307 \(text/plain\)$} ],
	[ { kind => 'redirect', status => 302 }, 'pending 302', 0, qr{^HTTP 302 \(text/plain\)$} ],
	[ { kind => 'raw', body => "HTTP/1.1 429 Later\r\n\r\n" }, 'pending 429', 0, qr/^HTTP 429/ ],

	# answered, and yet in doubt
	[ { kind => 'status' }, 'in_doubt 503', 0, qr/^HTTP 503: .*redis error/ ],
	[ { kind => 'apply_status', status => 500 }, 'in_doubt 500', 1, qr/^HTTP 500/ ],
	[ { kind => 'apply_status', status => 504, body => '' }, 'in_doubt 504', 1, qr/^HTTP 504/ ],
	[ { kind => 'html' }, 'in_doubt 200', 0, qr{$unreadable \(text/html\)$} ],
	[ { kind => 'html', content_type => 'application/json' }, 'in_doubt 200', 0, $unreadable ],
	[ { kind => 'apply_html' }, 'in_doubt 200', 1, $unreadable ],
	[ { kind => 'unparsable' }, 'in_doubt 200', 0, $unreadable ],
	[ { kind => 'apply_unparsable' }, 'in_doubt 200', 1, $unreadable ],
	[ { kind => 'truncated' }, 'in_doubt 200', 0, $unreadable ],
	[ { kind => 'apply_truncated' }, 'in_doubt 200', 1, $unreadable ],
	[ { kind => 'nested' }, 'in_doubt 200', 0, qr/larger than allowed/ ],
	[ { kind => 'apply_nested' }, 'in_doubt 200', 1, qr/larger than allowed/ ],
	[ { kind => 'not_utf8' }, 'in_doubt 200', 0, $unreadable ],
	[ { kind => 'apply_not_utf8' }, 'in_doubt 200', 1, $unreadable ],
	[ { kind => 'duplicate_key' }, 'in_doubt 200', 0, $unreadable ],
	[ { kind => 'apply_duplicate_key' }, 'in_doubt 200', 1, $unreadable ],
	[ { kind => 'quoted_number' }, 'in_doubt 200', 0, $undecided ],
	[ { kind => 'apply_quoted_number' }, 'in_doubt 200', 1, $undecided ],
	[ { kind => 'exponent' }, 'in_doubt 200', 0, $undecided ],
	[ { kind => 'apply_exponent' }, 'in_doubt 200', 1, $undecided ],
	[ { kind => 'long_number' }, 'in_doubt 200', 0, $undecided ],
	[ { kind => 'apply_long_number' }, 'in_doubt 200', 1, $undecided ],
	[ { kind => 'huge' }, 'in_doubt 200', 0, qr/larger than allowed/ ],
	[ { kind => 'apply_huge' }, 'in_doubt 200', 1, qr/larger than allowed/ ],
	[ { kind => 'extra' }, 'in_doubt 503', 0, qr/^HTTP 503/ ],
	[ { kind => 'drip', delay_ms => 1 }, 'in_doubt 503', 0, qr/^HTTP 503/ ],

	# not answered, or not to the end
	[ { kind => 'slow', delay_ms => 2000 }, 'in_doubt -', 1, $timed_out, 'hasty' ],
	[ { kind => 'drip', delay_ms => 100 }, 'in_doubt -', 0, $timed_out, 'hasty' ],
	[ { kind => 'apply_drip', delay_ms => 100 }, 'in_doubt -', 1, $timed_out, 'hasty' ],
	[ { kind => 'half_header' }, 'in_doubt -', 0, $no_reply ],
	[ { kind => 'apply_half_header' }, 'in_doubt -', 1, $no_reply ],
	[ { kind => 'cut_off' }, 'in_doubt 200', 0, qr/^HTTP 200: transfer closed|^HTTP 200: end of response/ ],
	[ { kind => 'apply_cut_off' }, 'in_doubt 200', 1, qr/^HTTP 200: transfer closed|^HTTP 200: end of response/ ],
	[ { kind => 'raw', body => "220 ready\r\n" }, 'in_doubt -', 0, qr/\S/ ],
	[ { kind => 'apply_raw', body => "HTTP/1.1 100 Continue\r\n\r\n" }, 'in_doubt 100', 1, qr/^HTTP 100/ ],
	[ { kind => 'close' }, 'in_doubt -', 0, $no_reply ],
	[ { kind => 'apply_close' }, 'in_doubt -', 1, $no_reply ],
	[ { kind => 'reset' }, 'in_doubt -', 0, $no_reply ],
	[ { kind => 'apply_reset' }, 'in_doubt -', 1, $no_reply ],
	[ { kind => 'hang' }, 'in_doubt -', 0, $timed_out, 'hasty' ],
	[ { kind => 'apply_hang' }, 'in_doubt -', 1, $timed_out, 'hasty' ],
	[ { kind => 'apply_late', delay_ms => 200 }, 'in_doubt -', 1, $timed_out, 'hasty' ]);

# Faults of the queries by which a gateway that lost an answer is asked whether it works.
my @probes = (
	{ kind => 'status' },
	{ kind => 'html' },
	{ kind => 'truncated' },
	{ kind => 'not_utf8' },
	{ kind => 'duplicate_key' },
	{ kind => 'quoted_number' },
	{ kind => 'exponent' },
	{ kind => 'huge' },
	{ kind => 'extra' },
	{ kind => 'reset' },
	{ kind => 'redirect' },
	{ kind => 'status', status => 429, retry_after => 1 });

# The words of a fault, for the name of a test.
sub words
{
	my ($fault) = @_;
	my %rest = %$fault;
	my $kind = delete $rest{kind};

	$rest{body} =~ s/[^ -~].*//s if defined $rest{body};
	return join ' ', $kind, map { "$_=$rest{$_}" } sort keys %rest;
}

# What the grants are: "user status last_status", and last_error by user.
sub outcome
{
	my (@lines) = split /\n/, $node->safe_psql('postgres', q{
		SELECT user_id, status || ' ' || coalesce(last_status::text, '-'), coalesce(last_error, '')
		FROM quota_manager.quota_execute ORDER BY id});

	return map { my ($user, $state, $error) = split /\|/, $_, 3; ($user => [ $state, $error ]) } @lines;
}

# One row: a grant that meets the fault, and another one behind it on the only connection.
sub check_row
{
	my ($mock, $dialect, $row, $number) = @_;
	my ($fault, $expected, $applied, $error, $session) = @$row;
	my $gateway = ($session // 'patient') . "-$dialect";
	my $name = "$dialect " . words($fault);
	my ($user, $next) = ("struck$number", "next$number");
	my $waits = $fault->{retry_after};

	$expected = $expected->[ $dialect eq 'zgsm' ] if ref $expected;
	$mock->reset;
	$mock->fault(%$fault, match => 'grant', user => $user);
	$node->safe_psql('postgres', qq{
		DELETE FROM quota_manager.quota_execute;
		UPDATE quota_manager.quota_gateway SET state = 'open', state_reason = NULL, next_probe_time = NULL
			WHERE name = '$gateway';
		SELECT quota_test.make_grants('$gateway', 7, ARRAY['$user', '$next']);
		CALL quota_manager.deliver()});
	my %outcome = outcome();
	is($outcome{$user}[0], $expected, "$name: what becomes of the grant");
	$error //= qr/^$/;
	like($outcome{$user}[1], $error, "$name: why");
	is($mock->wait_applied($user, $applied), $applied, "$name: applied");
	is_deeply($mock->stats->{faults}, 1, "$name: the fault struck");

	# The gateway works again: the next one is delivered once, and what is settled stays as it is.
	for (1 .. 200)
	{
		last if $waits || ($outcome{$next}[0] eq 'completed 200' && $outcome{$user}[0] !~ /pending/);
		$node->safe_psql('postgres', q{
			UPDATE quota_manager.quota_execute SET next_attempt_time = now() WHERE status = 'pending';
			CALL quota_manager.deliver()});
		%outcome = outcome();
	}
	if ($waits)
	{
		like($outcome{$next}[0], qr/^pending/, "$name: the next grant waits too");
	}
	else
	{
		is($outcome{$next}[0], 'completed 200', "$name: the next grant");
		is(scalar(grep { $_->{user} eq $next } $mock->applied), 1, "$name: once");
		($expected, $applied) = ('completed 200', 1) if $expected =~ /pending/;
		is($outcome{$user}[0], $expected, "$name: afterwards");
		is(scalar(grep { $_->{user} eq $user } $mock->applied), $applied, "$name: applied no more than that");
	}
	return;
}

# A gateway that lost an answer, and answers queries wrongly.
sub check_probe
{
	my ($mock, $dialect, $fault, $number) = @_;
	my $gateway = "patient-$dialect";
	my $name = "$dialect asked, " . words($fault);
	my $state;

	$mock->reset;
	$mock->fault(kind => 'apply_close', match => 'grant', user => 'lost');
	$mock->fault(%$fault, match => 'query', count => 0);
	$node->safe_psql('postgres', qq{
		DELETE FROM quota_manager.quota_execute;
		SELECT quota_test.make_grants('$gateway', 7, ARRAY['lost', 'next']);
		CALL quota_manager.deliver()});
	my %outcome = outcome();
	is($outcome{next}[0], 'pending -', "$name: nothing is sent");
	$state = $node->safe_psql('postgres', "SELECT state FROM quota_manager.quota_gateway WHERE name = '$gateway'");
	is($state, $fault->{kind} eq 'redirect' ? 'misconfigured' : 'closed', "$name: the gateway");
	$mock->clear_faults;
	for (1 .. 200)
	{
		last if $outcome{next}[0] =~ /completed/;
		$node->safe_psql('postgres', 'CALL quota_manager.deliver()');
		%outcome = outcome();
	}
	is($outcome{next}[0], 'completed 200', "$name: then it is delivered");
	is(join(' ', sort map { $_->{user} } $mock->applied), 'lost next', "$name: each once");
	return;
}

foreach my $dialect ('higress', 'zgsm')
{
	my $mock = QuotaTest::Mock->start(dialect => $dialect, key => 'key');
	my %checked = map { $_->[0]{kind} => 1 } @rows;
	my $number = 0;

	add_gateway($node, "patient-$dialect", $mock, max_connections => 1);
	add_gateway($node, "hasty-$dialect", $mock, max_connections => 1, request_timeout => '500 ms');
	is(join(' ', grep { !$checked{$_} } $mock->fault_kinds), '', "$dialect: every kind of fault has a row");
	check_row($mock, $dialect, $_, ++$number) foreach @rows;
	check_probe($mock, $dialect, $_) foreach @probes;
	$mock->stop;
}

$node->stop;
done_testing();
