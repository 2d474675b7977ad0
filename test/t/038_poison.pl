
# Users with ids of any bytes, ids that are too long, and users whom no gateway
# accepts: ids arrive as they are, and who fails, fails alone.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Encode ();
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node start_workers add_gateway grant deliver statuses);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until becomes_true);
use Test::More;
use Time::HiRes qw(time);

my $node = delivery_node('poison', <<'CONF');
shared_preload_libraries = 'quota_manager'
quota_manager.retry_base = 1ms
quota_manager.retry_max = 2ms
quota_manager.max_attempts = 3
quota_manager.linger = 100ms
CONF

# An id of so many bytes, of letters that take one to four of them, that does not compress.
sub long_id
{
	my ($bytes) = @_;
	my @letters = (0x26, 0xe0, 0x4e00, 0x10000);
	my $id = '';
	my $state = 1;

	while ($bytes >= 5)
	{
		$state = ($state * 1103515245 + 12345) % 2**31;
		my $kind = $state >> 29;
		$id .= chr($letters[$kind] + ($state >> 8) % 20) . chr(0x21 + ($state >> 16) % 90);
		$bytes -= $kind + 2;
	}
	return $id . '#' x $bytes;
}

# Every character of ASCII, alone and between others; what means something in a
# URL, a form, JSON, SQL or a shell; and letters that take up to four bytes.
my @ids = (
	(map { chr } 1 .. 127),
	(map { 'a' . chr($_) . 'b' } 1 .. 47, 58 .. 64, 91 .. 96, 123 .. 127),
	'a&value=1000000', '&consumer=x', 'consumer=x&value=9', 'user_id=x;value=9', '%41', '%%', '%zz', '%00', '%C3%A9', '+%2B+',
	' a', 'a ', '  ', "\r\n", "a\r\nX-Header: 1", "'; DROP TABLE quota_manager.quota_execute; --", '$(id)', '{"consumer":"x"}', '\\u0026',
	'../../x', '?a=b', 'http://example.org/#x', 'null', '-1', 'NaN', '{a,b}', '{}', '"{}"', 'NULL', '(1,2)', 'UPPER', 'upper',
	"\x{e9}", "e\x{301}", "\x{df}", "\x{85}", "\x{a0}", "\x{ad}", "\x{7ff}", "\x{800}", "\x{6280}\x{672f}/\x{5f20}\x{4e09}", "\x{2028}", "\x{202e}abc",
	"\x{feff}", "\x{feff}bom", "\x{fffd}", "\x{fffe}", "\x{ffff}", "\x{10000}", "\x{1f600}", "\x{10ffff}", "\x{e9}&\x{6280}#\x{1f600}%",
	long_id(300), long_id(2600), 'x' x 2600, '%' x 2600, "\x{1f600}" x 650);

sub bytes_of
{
	my ($id) = @_;

	return unpack 'H*', Encode::encode('utf8', $id);
}

# What differs between two hashes from ids, as hexadecimal numbers, to numbers.
sub differences
{
	my ($got, $expected) = @_;
	my %all = (%$got, %$expected);

	return join ', ',
	  map { substr($_, 0, 40) . ': ' . ($got->{$_} // 'missing') . ' for ' . ($expected->{$_} // 'nothing') }
	  grep { ($got->{$_} // '') ne ($expected->{$_} // '') } sort keys %all;
}

# Ids on the wire. Each has an amount of its own.
my $number = 0;
my %amount_of = map { bytes_of($_) => ++$number } @ids;
is(scalar(keys %amount_of), scalar(@ids), 'all ids differ');
my $list = join ', ', map { "('\\x$_'::bytea, $amount_of{$_})" } sort keys %amount_of;

foreach my $dialect ('higress', 'zgsm')
{
	my $mock = QuotaTest::Mock->start(dialect => $dialect);

	add_gateway($node, $dialect, $mock);
	$node->safe_psql('postgres', qq{
		SELECT count(quota_test.make_grants('$dialect', n, ARRAY[convert_from(id, 'UTF8')])) FROM (VALUES $list) AS x(id, n)});
	is(deliver($node), scalar(@ids) . '|0|0|0', "$dialect: all are delivered");
	my @applied = $mock->applied;
	is(scalar(@applied), scalar(@ids), "$dialect: each once");
	is(differences({ map { bytes_of($_->{user}) => $_->{amount} } @applied }, \%amount_of),
		'', "$dialect: each to the user whom it was granted to, byte for byte");

	subtest "$dialect: the gateway has another balance for each, and tells the one that is asked for" => sub {
		$mock->set_balance($_, quota => $amount_of{ bytes_of($_) } + 1000) foreach @ids;
		$node->safe_psql('postgres', qq{
			INSERT INTO quota_manager.user_info (id) SELECT convert_from(id, 'UTF8') FROM (VALUES $list) AS x(id, n);
			INSERT INTO quota_manager.quota_model VALUES ('$dialect', '$dialect');
			INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)
				VALUES ('$dialect', 'single', 1, '$dialect', 'quota-le("$dialect", 0)')});
		is($node->safe_psql('postgres', 'CALL quota_manager.tick()'), '1|0', "$dialect: balances are read");
		my %balance_of = map { split /\|/ } split /\n/, $node->safe_psql('postgres', qq{
			SELECT encode(convert_to(user_id, 'UTF8'), 'hex'), balance - 1000
			FROM quota_manager.user_balance WHERE gateway = '$dialect'});
		is(differences(\%balance_of, \%amount_of), '', "$dialect: of each user the own one");
		is($node->safe_psql('postgres', 'SELECT state, reason FROM quota_manager.quota_run ORDER BY id DESC LIMIT 1'),
			'done|', "$dialect: none is left unknown");
	};

	subtest "$dialect: by hand an id may be as long as that of a grant" => sub {
		my $long = long_id(2600);
		my $hex = bytes_of($long);
		$mock->reset;
		$node->safe_psql('postgres', qq{
			SELECT quota_manager.gateway_delta(convert_from('\\x$hex', 'UTF8'), 7, 'by hand', '$dialect')});
		@applied = $mock->applied;
		ok(@applied == 1 && bytes_of($applied[0]{user}) eq $hex, "$dialect: the longest id arrives as it is");
		is($node->safe_psql('postgres', qq{
			SELECT quota_manager.gateway_query(convert_from('\\x$hex', 'UTF8'), '$dialect')}), 7, "$dialect: and can be asked about");
		my ($status, $out, $err) = $node->psql('postgres', qq{
			SELECT quota_manager.gateway_delta(convert_from('\\x${hex}61', 'UTF8'), 7, 'by hand', '$dialect')}, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
		like($err, qr/ERROR:  22001: the user's id has 2601 bytes/, "$dialect: and no longer one");
	};

	$node->safe_psql('postgres', q{
		TRUNCATE quota_manager.quota_execute, quota_manager.quota_run, quota_manager.user_balance, quota_manager.gateway_call;
		DELETE FROM quota_manager.quota_strategy;
		DELETE FROM quota_manager.quota_model;
		DELETE FROM quota_manager.user_info});
}

# Users whom a gateway does not accept come first, there is one connection, and
# the workers deliver.
start_workers($node);

my $wrong_parameters = q{Request denied by ai quota check. consumer can't be empty and value must be integer.};
my %poison = (
	'unprocessable &#%' => [ 'failed', kind => 'status', status => 422 ],
	"bad \x{6280}\x{1f600}" => [ 'failed', kind => 'status', status => 400 ],
	'wrong parameters' => [ 'failed', kind => 'status', status => 403, body => $wrong_parameters ],
	'forbidden' => [ 'failed', kind => 'status', status => 403, body => 'not you' ],
	'not found' => [ 'failed', kind => 'status', status => 404, body => 'no such user' ],
	'redirected' => [ 'failed', kind => 'status', status => 302, body => 'elsewhere' ],
	'throttled' => [ 'failed', kind => 'status', status => 429, body => 'slow down' ],
	'broken' => [ 'in_doubt', kind => 'status', status => 500 ],
	'page' => [ 'in_doubt', kind => 'html' ],
	'reset' => [ 'in_doubt', kind => 'reset' ],
	'closed' => [ 'in_doubt', kind => 'close' ],
	'hangs' => [ 'in_doubt', kind => 'hang' ]);

foreach my $dialect ('higress', 'zgsm')
{
	foreach my $match ('delta', 'any')
	{
		my $mock = QuotaTest::Mock->start(dialect => $dialect);
		my $gateway = "poisoned-$dialect-$match";
		my $name = $match eq 'any' ? "$dialect, queries too" : $dialect;
		my $started;

		$mock->fault(@{ $poison{$_} }[ 1 .. $#{ $poison{$_} } ], match => $match, count => 1000000, user => $_) foreach keys %poison;
		add_gateway($node, $gateway, $mock, max_connections => 1, request_timeout => '300 ms');
		$started = time;
		grant($node, $gateway, 3, (map { Encode::encode('utf8', $_) } sort keys %poison), map { "user$_" } 1 .. 200);
		ok(becomes_true($node, qq{
				SELECT count(*) = 0 FROM quota_manager.quota_execute
				WHERE gateway = '$gateway' AND status IN ('pending', 'processing')}), "$name: nobody is left over");
		note sprintf '%s: 200 users behind %d whom the gateway does not accept: %.1f s', $name, scalar(keys %poison), time - $started;
		is( $node->safe_psql('postgres', qq{
				SELECT string_agg(status || ' ' || n, ', ' ORDER BY status) FROM (SELECT status, count(*) AS n
				FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND user_id LIKE 'user%' GROUP BY status) x}),
			'completed 200', "$name: users beside them get what is theirs");
		is( $node->safe_psql('postgres', qq{
				SELECT user_id, status FROM quota_manager.quota_execute
				WHERE gateway = '$gateway' AND user_id NOT LIKE 'user%' ORDER BY user_id COLLATE "C"}),
			join("\n", map { Encode::encode('utf8', "$_|$poison{$_}[0]") } sort keys %poison), "$name: each of them fails alone, as the table says");
		my @applied = $mock->delivered;
		is(scalar(grep { $_->{user} =~ /^user/ } @applied), 200, "$name: each once");
		is(scalar(@applied), 200, "$name: and nothing else was applied");
	}

	subtest "$dialect: whatever is done about attempts in doubt" => sub {
		foreach my $policy ('resend', 'reconcile')
		{
			my $mock = QuotaTest::Mock->start(dialect => $dialect);
			my $gateway = "poisoned-$dialect-$policy";
			my $started = time;

			$mock->fault(@{ $poison{$_} }[ 1 .. $#{ $poison{$_} } ], match => 'any', count => 1000000, user => $_) foreach keys %poison;
			add_gateway($node, $gateway, $mock, max_connections => 2, request_timeout => '300 ms', doubt_policy => $policy, sole_writer => 'true');
			grant($node, $gateway, 3, (map { Encode::encode('utf8', $_) } sort keys %poison), map { "user$_" } 1 .. 200);
			ok(becomes_true($node, qq{
					SELECT count(*) = 200 FROM quota_manager.quota_execute
					WHERE gateway = '$gateway' AND user_id LIKE 'user%' AND status = 'completed'}), "$dialect, $policy: users beside them get what is theirs");
			note sprintf '%s, %s: %.1f s', $dialect, $policy, time - $started;
			$started = time;
			grant($node, $gateway, 3, map { "user$_" } 201 .. 210);
			ok(becomes_true($node, qq{
					SELECT count(*) = 210 FROM quota_manager.quota_execute
					WHERE gateway = '$gateway' AND user_id LIKE 'user%' AND status = 'completed'}), "$dialect, $policy: and later ones");
			note sprintf '%s, %s, later: %.1f s', $dialect, $policy, time - $started;
			is(scalar(() = $mock->delivered), 210, "$dialect, $policy: each once, and nothing else was applied");
			is( $node->safe_psql('postgres', qq{
					SELECT count(*) FROM quota_manager.quota_execute
					WHERE gateway = '$gateway' AND user_id NOT LIKE 'user%' AND status NOT IN ('failed', 'in_doubt', 'pending', 'processing')}),
				0, "$dialect, $policy: nobody whom the gateway does not accept counts as paid");
		}
	};

	my $mock;
	subtest "$dialect: nobody else is there to be asked about when the gateway's state is in question" => sub {
		$mock = QuotaTest::Mock->start(dialect => $dialect);
		my $gateway = "alone-$dialect";

		add_gateway($node, $gateway, $mock, request_timeout => '300 ms');
		foreach my $user (sort keys %poison)
		{
			my $name = Encode::encode('utf8', "$dialect, $user");
			my $count = () = $mock->delivered;
			my $started;

			$mock->fault(@{ $poison{$user} }[ 1 .. $#{ $poison{$user} } ], match => 'any', count => 1000000, user => $user);
			grant($node, $gateway, 3, Encode::encode('utf8', $user));
			# It has been tried: it is settled, or the gateway is suspected.
			wait_until($node, qq{SELECT claim_number > 0 AND status <> 'processing' FROM quota_manager.quota_execute
				WHERE gateway = '$gateway' ORDER BY id DESC LIMIT 1});
			$started = time;
			grant($node, $gateway, 3, 'after 1', 'after 2');
			ok(becomes_true($node, qq{
					SELECT count(*) = $count + 2 FROM quota_manager.quota_execute
					WHERE gateway = '$gateway' AND status = 'completed'}), "$name: those who come later are paid");
			cmp_ok(time - $started, '<', 3, "$name: soon");
			is(scalar(() = $mock->delivered), $count + 2, "$name: once");
		}
	};
}

my $mock;
subtest 'an id of a megabyte among users who are kept elsewhere' => sub {
	$mock = QuotaTest::Mock->start(dialect => 'zgsm');
	my $giant = bytes_of(long_id(1048576));
	add_gateway($node, 'giants', $mock, is_default => 'true');
	$mock->set_balance("user$_", quota => $_) foreach 1 .. 20;
	$node->safe_psql('postgres', qq{
		CREATE TABLE public.person AS SELECT 'user' || n AS id FROM generate_series(1, 20) n;
		GRANT SELECT ON public.person TO quota_worker;
		INSERT INTO public.person VALUES (convert_from('\\x$giant', 'UTF8')), (repeat('#', 1048576)), (repeat('&', 2600)), ('');
		SELECT quota_manager.set_user_source('public.person');
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES
			('everybody', 'single', 5, 'm', 'true()'), ('poor', 'single', 7, 'm', 'quota-le("m", 30)')});
	ok(becomes_true($node, q{
			SELECT count(*) = 42 FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
			WHERE e.status = 'completed' AND e.user_id ~ '^(user\d+|&+)$'}), 'giants: everybody else is paid by both strategies');
	is( $node->safe_psql('postgres', q{
			SELECT DISTINCT ON (s.name) s.name, r.state, r.reason FROM quota_manager.quota_run r
			JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE r.state = 'done' ORDER BY s.name, r.id}),
		"everybody|done|users left out because their ids are longer than 2600 bytes: 2\n"
		  . 'poor|done|users left out because their ids are longer than 2600 bytes: 2', 'giants: and it is said whom they leave out');
	is(scalar(grep { length($_->{user}) > 2600 } $mock->applied), 0, 'giants: nothing went to them');
};

$node->stop;
done_testing();
