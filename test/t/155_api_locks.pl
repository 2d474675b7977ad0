# What callers of the API can do to strategies without meaning to, or meaning to: a scan that meets a lock is no failure of the
# strategies, and what is copied into each grant is short.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(begin_session ask_session end_session);
use QuotaTest::PostgREST;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('api_locks');
$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', 'quota_manager.default_strategy_state = active');
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION quota_manager;
	INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('main', 'zgsm', 'http://gateway.example', true);
	INSERT INTO quota_manager.user_info (id, vip) SELECT 'u' || n, n % 2 FROM generate_series(1, 10) n;
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES
		('one', 'single', 1, 'm', 'true()'), ('two', 'single', 2, 'm', 'is-vip(1)'), ('three', 'single', 3, 'm', 'not(is-vip(1))')});
my $api = QuotaTest::PostgREST->new($node, 'postgres');
$api->role('operator', 'operator');

sub sql
{
	my ($query) = @_;

	return $node->safe_psql('postgres', $query);
}

subtest 'scans and locks' => sub {
	my $session = begin_session($node);
	my %locks = (
		'the gateway' => q{SELECT 1 FROM quota_manager.quota_gateway FOR UPDATE},
		'the users' => q{LOCK TABLE quota_manager.user_info IN ACCESS EXCLUSIVE MODE},
		'the grants' => q{LOCK TABLE quota_manager.quota_execute IN SHARE MODE},
		'the first of the strategies' => q{UPDATE quota_manager.quota_strategy SET title = 'x' WHERE name = 'one'},
		'a grant that is about to be there' => q{INSERT INTO quota_manager.quota_execute (strategy_id, strategy_version, user_id, scheduled_time, status, amount, model, gateway, batch_number)
			SELECT s.id, 1, 'u5', '-infinity', 'completed', 1, 'm', 'main', 'x' FROM quota_manager.quota_strategy s WHERE s.name = 'one'});
	foreach my $what (sort keys %locks)
	{
		ask_session($session, "BEGIN; $locks{$what}");
		foreach my $named ({}, { strategy => 'one' })
		{
			my $answer = $api->rpc('operator', 'POST', 'scan', $named);
			is("$answer->{status} " . ($answer->{code} // "none: $answer->{text}"), '409 55P03', "$what: a scan of " . (%$named ? 'one' : 'all'));
		}
		ask_session($session, 'ROLLBACK');
		is(sql('SELECT count(*) FROM quota_manager.quota_run'), 0, "$what: no run is said to have failed");
	}
	end_session($session);
	my $answer = $api->rpc('operator', 'POST', 'scan', {});
	is(join(' ', map { "$_->{strategy_name} $_->{status} $_->{granted}" } @{ $answer->{rows} }), 'one done 10 two done 5 three done 5', 'each is run at once afterwards');
};

subtest 'what each grant has a copy of' => sub {
	my %strategy = (name => 'long', type => 'single', amount => 1, model => 'm' x 2601, condition => 'is-vip(9)');
	my $answer = $api->post('operator', 'strategies', \%strategy);
	is("$answer->{status} $answer->{code}", '400 22001', 'a model that is too long');
	is($api->post('operator', 'strategies', { %strategy, model => 'm' x 2600 })->{status}, 201, 'one that is not');
	$answer = $api->patch('operator', 'strategies', [ [ 'name', '=', 'long' ] ], { model => 'n' x 2601 });
	is("$answer->{status} $answer->{code}", '400 22001', 'another one');

	# One that was there before, or comes out of a dump.
	sql(q{SET session_replication_role = replica; UPDATE quota_manager.quota_strategy SET model = repeat('m', 3000) WHERE name = 'long'});
	is($api->patch('operator', 'strategies', [ [ 'name', '=', 'long' ] ], { title => 'x' })->{status}, 200, 'which is there already, can be edited');
};

$node->stop;
done_testing();
