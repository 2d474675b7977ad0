
# Numbers that count have an end. A row that has come to it, however it did, stops nothing but itself, if that.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver deliver_all statuses);
use QuotaTest::Mock;
use Test::More;

use constant HIGHEST => 2147483647;

my $node = delivery_node('counters', <<'CONF');
shared_preload_libraries = 'quota_manager'
autovacuum = off
quota_manager.delete_proof = on
quota_manager.retry_base = 1ms
quota_manager.retry_max = 2ms
CONF
my $mock = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key');

add_gateway($node, 'hold', $mock, is_default => 'true');
add_gateway($node, 'resend', $mock, doubt_policy => 'resend');

# What a statement answers, and what it says.
sub say_and_do
{
	my ($sql) = @_;
	my ($code, $out, $err) = $node->psql('postgres', $sql);

	return ($code, $out, $err);
}

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub start_over
{
	sql('TRUNCATE quota_manager.quota_execute, quota_manager.quota_run');
	$mock->reset;
	return;
}

# Of one grant.
sub of_user
{
	my ($user, $columns) = @_;

	return sql("SELECT $columns FROM quota_manager.quota_execute WHERE user_id = '$user'");
}

my ($code, $out, $err);
subtest 'the number of a claim: it begins again, and still tells one claim from the next' => sub {
	grant($node, 'hold', 1, map { "user$_" } 1 .. 20);
	grant($node, 'resend', 1, map { "user$_" } 21 .. 40);
	sql('UPDATE quota_manager.quota_execute SET claim_number = ' . HIGHEST . q{ WHERE user_id IN ('user7', 'user8', 'user27')});
	$mock->fault(kind => 'apply_close', match => 'delta', user => 'user8', count => 1);
	$mock->fault(kind => 'apply_close', match => 'delta', user => 'user27', count => 1);
	$mock->honour_idempotency(1);
	($code, $out, $err) = say_and_do('CALL quota_manager.deliver()');
	is($code, 0, 'deliver() does its work beside the highest number of a claim');
	my $id = of_user('user7', 'id');
	like($err, qr/WARNING:  the claim numbers of grant $id begin again with 0\n/, 'the grant is named');
	is(scalar(() = $err =~ /begin again with 0/g), 3, 'and each other');
	is(of_user('user7', 'status, claim_number'), 'completed|0', 'it is delivered');
	is(of_user('user8', 'status, claim_number'), 'in_doubt|0', 'so is one whose answer is lost');
	sql(q{SELECT quota_manager.resolve(id, false) FROM quota_manager.quota_execute WHERE user_id = 'user8'});
	deliver($node);
	is(of_user('user8', 'status, claim_number'), 'completed|1', 'the next claim has the next number');
	ok(deliver_all($node, 'resend'), 'an answer lost where it is sent again');
	is(of_user('user27', 'status, claim_number'), 'completed|1', 'it was claimed twice');
	is(statuses($node, 'hold') . ', ' . statuses($node, 'resend'), 'completed 20, completed 20', 'all are delivered');
};

subtest 'attempts that failed: the number stays, and is above max_attempts' => sub {
	start_over();
	grant($node, 'hold', 1, 'later', 'never', 'fine');
	sql('UPDATE quota_manager.quota_execute SET attempts = ' . HIGHEST . q{ WHERE user_id <> 'later'});
	$mock->fault(kind => 'status', match => 'delta', user => $_, count => 1, status => 429) foreach 'later', 'never';
	($code, $out, $err) = say_and_do('CALL quota_manager.deliver()');
	is($code, 0, 'deliver() does its work beside the highest number of attempts');
	ok(deliver_all($node, 'hold'), 'and comes to an end');
	is(of_user('later', 'status, attempts'), 'completed|1', 'who was throttled is tried again');
	is(of_user('never', 'status, attempts'), 'failed|' . HIGHEST, 'but not after so many attempts');
	is(of_user('fine', 'status, attempts'), 'completed|' . HIGHEST, 'which matter only if it fails again');

	start_over();
	grant($node, 'resend', 1, 'lost', 'left', 'fine');
	sql('UPDATE quota_manager.quota_execute SET attempts = ' . HIGHEST . q{ WHERE user_id <> 'fine';
		UPDATE quota_manager.quota_execute SET status = 'processing', claim_number = 1 WHERE user_id = 'left'});
	$mock->fault(kind => 'apply_close', match => 'delta', user => 'lost', count => 1);
	($code, $out, $err) = say_and_do('CALL quota_manager.deliver()');
	is($code, 0, 'deliver() settles what was lost after so many attempts');
	ok(deliver_all($node, 'resend'), 'and comes to an end');
	is(of_user($_, 'status, attempts, next_attempt_time'), 'in_doubt|' . HIGHEST . '|infinity', "$_: an operator decides") foreach 'lost', 'left';
	is(of_user('fine', 'status'), 'completed', 'the others are delivered');
};

subtest 'ids of grants from one end to the other, in one run and in two' => sub {
	start_over();
	my ($first, $last) = ('(-9223372036854775807)', '9223372036854775807');
	grant($node, 'hold', 1, 'first', 'middle', 'last');
	sql(qq{UPDATE quota_manager.quota_execute SET id = CASE user_id WHEN 'first' THEN $first WHEN 'last' THEN $last ELSE id END;
		UPDATE quota_manager.quota_run SET first_grant_id = $first, last_grant_id = $last});
	grant($node, 'hold', 1, 'lowest');
	grant($node, 'hold', 1, 'highest');
	sql(qq{UPDATE quota_manager.quota_run r SET first_grant_id = x.id, last_grant_id = x.id
			FROM quota_manager.quota_execute e, LATERAL (SELECT CASE e.user_id WHEN 'lowest' THEN $first ELSE $last END AS id) x
			WHERE e.run_id = r.id AND e.user_id IN ('lowest', 'highest');
		UPDATE quota_manager.quota_execute SET id = CASE user_id WHEN 'lowest' THEN $first ELSE $last END WHERE user_id IN ('lowest', 'highest')});
	is(sql(q{SELECT queue_depth FROM quota_manager.worker_status WHERE kind = 'courier'}), 5, 'worker_status counts grants with such ids');
	is(sql(q{SELECT pending FROM quota_manager.delivery_status WHERE gateway = 'hold'}), 5, 'so does delivery_status');
	is(deliver($node), '5|0|0|0', 'and they are delivered');
	is(sql('SELECT count(*) FROM quota_manager.quota_run WHERE undelivered'), 0, 'and their runs found delivered');
};

subtest 'the version of a strategy: it begins again, and is not the one before' => sub {
	start_over();
	sql(q{INSERT INTO quota_manager.user_info (id) VALUES ('user1');
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('a "name"', 'single', 1, 'm', 'true()');
		ALTER TABLE quota_manager.quota_strategy DISABLE TRIGGER ALL;
		UPDATE quota_manager.quota_strategy SET version = 2147483647;
		ALTER TABLE quota_manager.quota_strategy ENABLE TRIGGER ALL});
	is(sql(q{SELECT granted FROM quota_manager.scan()}), 1, 'a strategy of the highest version is scanned');
	($code, $out, $err) = say_and_do('UPDATE quota_manager.quota_strategy SET enabled = false');
	is($code, 0, 'it can be disabled');
	like($err, qr/WARNING:  the versions of strategy "a "name"" begin again with 1\n/, 'it is named');
	is(sql('SELECT version, enabled FROM quota_manager.quota_strategy'), '1|f', 'its version begins again');
	($code, $out, $err) = say_and_do('UPDATE quota_manager.quota_strategy SET enabled = true');
	is($err, '', 'which is said once');
	is(sql('SELECT version, enabled FROM quota_manager.quota_strategy'), '2|t', 'and goes on');
};

subtest 'runs: how many scans a row stands for, and how many tries there were' => sub {
	sql('UPDATE quota_manager.quota_run SET occurrences = 9223372036854775807, granted = 0, matched = 1, already_granted = 1, strategy_version = 2');
	is(sql(q{SELECT error IS NULL FROM quota_manager.scan()}), 't', 'a scan that finds nothing new, once more than can be counted');
	is(sql('SELECT count(*), max(occurrences) FROM quota_manager.quota_run'), '1|9223372036854775807', 'is counted by the row that there is');
	foreach my $tries (-2147483648, 2147483647)
	{
		sql(qq{UPDATE quota_manager.quota_strategy SET model = 'm';
			UPDATE quota_manager.quota_run SET state = 'incomplete', tries = $tries, strategy_version = s.version FROM quota_manager.quota_strategy s;
			DELETE FROM quota_manager.quota_execute});
		is(sql(q{SELECT granted FROM quota_manager.scan()}), 1, "a run that was tried $tries times is tried again");
		is(sql(qq{SELECT quota_internal.retry_delay($tries) BETWEEN '5 s' AND '5 min'}), 't', 'and its pause can be told');
	}
};

$node->stop;
done_testing();
