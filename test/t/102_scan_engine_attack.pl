# What a scan holds while it works, and who else may act then: nothing is left
# behind, and nothing goes wrong, when it is broken off or when what it does
# sets off something else.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::Bin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node add_gateway);
use Test::More;

my $node = scan_node('attack', "wal_level = minimal\nmax_wal_senders = 0\nwal_skip_threshold = 0\nquota_manager.delete_proof = on\n");

add_gateway($node, 'postgres');

sub sql
{
	my ($statements) = @_;

	return $node->safe_psql('postgres', $statements);
}

# The answer of a session, its errors and messages included.
sub session
{
	my ($statements) = @_;
	my ($code, $out, $err) = $node->psql('postgres', $statements, on_error_stop => 0);

	return "$out\n$err";
}

sub strategy
{
	my ($name, $condition, $more) = @_;

	sql(      "INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)"
			. " VALUES ('$name', 'single', 5, 'm', '$condition')");
	return;
}

sub granted
{
	my ($name) = @_;

	return sql("SELECT count(*) FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s"
			. " ON s.id = e.strategy_id WHERE s.name = '$name'");
}

# Users whose ids do not come in order, and fill the memory of a scan several times.
sql(<<'SQL');
INSERT INTO quota_manager.user_info (id, vip)
	SELECT md5(i::text) || repeat('x', 200), i % 3 FROM generate_series(1, 30000) i
SQL

subtest 'out of temporary files' => sub {
	strategy('full', 'is-vip(0)');
	my $answer = session(<<'SQL');
SET work_mem = '64kB';
SET temp_file_limit = '1MB';
SELECT granted, error FROM quota_manager.scan('full');
SELECT 'goes on';
SQL
	like($answer, qr/temp_file_limit/, 'it says what is missing');
	like($answer, qr/0\|.*temp_file_limit.*\ngoes on/s, 'as the error of the strategy');
	unlike($answer, qr/WARNING|PANIC/, 'nothing is complained about');
	strategy('full too', 'is-vip(1)');
	for my $limit (1, 3, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24)
	{
		$answer = session(<<"SQL");
SET work_mem = '64kB';
SET temp_file_limit = '${limit}MB';
BEGIN;
SELECT strategy, granted, error FROM quota_manager.scan();
ROLLBACK;
SELECT 'goes on';
SQL
		note $limit, ' ', $answer;
		like($answer, qr/full\|.*full too\|.*goes on/s, "two strategies have $limit MB");
		unlike($answer, qr/WARNING|PANIC/, 'nothing is complained about');
	}
	is(granted('full'), 0, 'nothing was granted');
	sql("SELECT quota_manager.scan()");
	is(granted('full'), 30000, 'until there was room');
};

subtest 'pages whose changes are not in the log' => sub {
	sql('DELETE FROM quota_manager.quota_execute; DELETE FROM quota_manager.quota_run; DELETE FROM quota_manager.quota_strategy');
	strategy('new', 'is-vip(0)');
	sql(<<'SQL');
BEGIN;
SELECT quota_manager.scan();
TRUNCATE quota_manager.user_info;
INSERT INTO quota_manager.user_info (id, vip) VALUES ('first', 1);
SELECT quota_manager.scan();
INSERT INTO quota_manager.user_info (id, vip) SELECT 'later' || i, 1 FROM generate_series(1, 1000) i;
COMMIT;
SELECT quota_manager.scan();
SQL
	is(sql(q{SELECT count(*) FROM quota_manager.quota_execute WHERE user_id ~ '^(first|later)'}), 1001, 'are looked at');
};

subtest 'triggers and domains on grants' => sub {
	sql('DELETE FROM quota_manager.quota_execute; DELETE FROM quota_manager.quota_run; DELETE FROM quota_manager.quota_strategy');
	sql(q{TRUNCATE quota_manager.user_info; INSERT INTO quota_manager.user_info (id, vip) SELECT 'u' || i, 1 FROM generate_series(1, 3000) i});
	strategy('some', 'is-vip(1)');
	my $answer = session(<<'SQL');
BEGIN;
CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN CASE WHEN NEW.user_id < ''u2'' THEN NEW END; END';
CREATE TRIGGER skip BEFORE INSERT ON quota_manager.quota_execute FOR EACH ROW EXECUTE FUNCTION skip();
SELECT granted FROM quota_manager.scan('some');
SELECT (SELECT sum(granted) FROM quota_manager.quota_run) - count(*), count(*) > 0 FROM quota_manager.quota_execute;
ROLLBACK;
SQL
	like($answer, qr/^0\|t$/m, 'what a trigger leaves out is not counted');
	$answer = session(<<'SQL');
BEGIN;
CREATE DOMAIN site AS text NOT NULL;
ALTER TABLE quota_manager.quota_execute ADD COLUMN site site;
SELECT granted, error FROM quota_manager.scan('some');
ROLLBACK;
SQL
	like($answer, qr/^0\|domain public[.]site does not allow null values/m, 'a domain refuses what it does not allow');
	$answer = session(<<'SQL');
BEGIN;
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM quota_manager.scan(''some''); RETURN NULL; END';
CREATE TRIGGER again AFTER INSERT ON quota_manager.quota_execute FOR EACH STATEMENT EXECUTE FUNCTION again();
SELECT granted, error FROM quota_manager.scan('some');
DROP TRIGGER again ON quota_manager.quota_execute;
SELECT granted, error FROM quota_manager.scan('some');
ROLLBACK;
SQL
	like($answer, qr/^0\|strategies are not evaluated while a scan writes grants/m, 'a trigger on grants cannot scan');
	unlike($answer, qr/server closed/, 'nor crash the server');
	strategy('some more', 'not(is-vip(2))');
	$answer = session(<<'SQL');
BEGIN;
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM quota_manager.scan(''some''); RETURN NULL; END';
CREATE TRIGGER again AFTER INSERT OR UPDATE ON quota_manager.quota_run FOR EACH STATEMENT EXECUTE FUNCTION again();
SELECT count(*) FROM quota_manager.scan();
ROLLBACK;
SELECT sum(granted) FROM quota_manager.scan();
SQL
	like($answer, qr/ERROR:  a scan is running in this transaction/, 'a trigger on runs cannot either');
	like($answer, qr/^6000$/m, 'and nothing of it is left');
};

subtest 'cancelled anywhere' => sub {
	sql('DELETE FROM quota_manager.quota_execute; DELETE FROM quota_manager.quota_run; DELETE FROM quota_internal.scan_mark');
	sql(q{INSERT INTO quota_manager.user_info (id, vip) SELECT md5(i::text), 1 FROM generate_series(1, 20000) i});
	my ($complaints, $cancelled) = ('', 0);

	foreach my $limit (map { $_ * 4 } 1 .. 60)
	{
		my $answer = session(<<"SQL");
SET work_mem = '64kB';
SET statement_timeout = '${limit}ms';
BEGIN;
SELECT count(*) FROM quota_manager.scan();
ROLLBACK;
SET statement_timeout = 0;
SELECT 'goes on';
SQL
		$cancelled++ if $answer =~ /canceling statement/;
		$complaints .= $answer if $answer =~ /WARNING|PANIC|FATAL/ || $answer !~ /goes on/;
	}
	cmp_ok($cancelled, '>', 5, 'scans were cancelled');
	is($complaints, '', 'nothing is complained about');
	is(sql('SELECT sum(granted) FROM quota_manager.scan()'), 46000, 'and the next scan finds everybody');
};

$node->stop;
done_testing();
