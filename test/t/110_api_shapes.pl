
# quota_api with statements as PostgREST sends them: what clients list, filter, page, count, embed, write and call, as roles that
# authenticator becomes.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::PostgREST;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('api');
$ENV{PGCLIENTENCODING} = 'UTF8';
$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', "log_statement = none\nquota_manager.default_strategy_state = active\n");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION quota_manager;
	INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('main', 'zgsm', 'http://gateway.example', true);
	INSERT INTO quota_manager.user_info (id, vip, org, github_star) SELECT 'user' || to_char(n, 'FM000'), n % 4, 'org' || n % 2, 'a,b' FROM generate_series(1, 40) n;
	INSERT INTO quota_manager.quota_strategy (name, title, type, amount, model, condition) VALUES
		('welcome', 'Welcome', 'single', 50, 'm', 'true()'), ('vip-once', '', 'single', 5.5, 'm', 'is-vip(2)');
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES
		('vip-daily', 'periodic', 10, 'm', '0 9 * * *', 'is-vip(1)'), ('org-weekly', 'periodic', 7, 'm', '0 10 * * 1', 'belong-to("org1")')});
my $api = QuotaTest::PostgREST->new($node, 'postgres');
$api->role('viewer', 'viewer');
$api->role('operator', 'operator');
$api->role('admin', 'admin');
$api->role('anonymous', undef);

sub column
{
	my ($answer, $name) = @_;

	return join ' ', map { $_->{$name} // 'null' } @{ $answer->{rows} // [] };
}

sub failed
{
	my ($answer) = @_;

	return join ' ', map { $answer->{$_} // '' } qw(status code message details);
}

my $answer = $api->rpc('operator', 'POST', 'scan', {});
is(column($answer, 'strategy_name'), 'welcome vip-once', 'POST /rpc/scan runs what is due') or diag failed($answer);
is(column($answer, 'granted'), '40 20', 'and tells how many were granted');
$answer = $api->rpc('operator', 'POST', 'scan', { strategy => 'vip-daily' });
is_deeply([ @{ $answer->{rows}[0] }{qw(done status)} ], [ JSON::PP::false, 'not due' ], 'a named one that is not due says so');

$node->safe_psql('postgres', q{INSERT INTO quota_manager.user_balance (user_id, gateway, balance) VALUES ('user001', 'main', 3.25)});

subtest 'lists' => sub {
	$answer = $api->get('viewer', 'strategies');
	is($answer->{page}, 4, 'all') or diag failed($answer);
	is_deeply([ sort keys %{ $answer->{rows}[0] } ], [ sort qw(id name title type amount model periodic_expr time_zone condition enabled archived state
		max_exec_per_user catch_up catch_up_window catch_up_max valid_from valid_until schedule_since version create_time update_time edit_note allowance) ], 'with all columns');
	$answer = $api->get('viewer', 'strategies', where => [ [ 'name', '=', 'vip-daily' ] ], format => 'object');
	is_deeply([ @{ $answer->{rows} }{qw(periodic_expr condition amount)} ], [ '0 9 * * *', 'is-vip(1)', 10 ], 'one row as an object');
	$answer = $api->get('viewer', 'strategies', select => [ 'id', 'name' ], where => [ [ 'enabled', 'is TRUE' ], [ 'type', '=', 'periodic' ] ],
		order => '"quota_api"."strategies"."name" ASC', limit => 3, offset => 1);
	is(column($answer, 'name'), 'vip-daily', 'filter, order, limit and offset');
	$answer = $api->get('viewer', 'strategies', select => ['name'], where => [ [ 'condition', 'like', '%vip%' ], [ 'periodic_expr', '=', '0 9 * * *' ] ]);
	is(column($answer, 'name'), 'vip-daily', 'conditions and schedules compare as text');
	$answer = $api->get('viewer', 'strategies', select => [ 'name', \'CAST("quota_api"."strategies"."amount" AS text)', \'"quota_api"."strategies"."create_time" AS "at"' ],
		where => [ [ 'name', 'like any', '{vip%,wel%}' ] ], order => 'name');
	is(column($answer, 'amount'), '10 5.5 50', 'casts, aliases and any of several patterns');
	$answer = $api->get('viewer', 'executions', select => ['id'], where => [ [ 'status', 'in', '{pending,failed}' ], [ 'user_id', 'like', 'user00%' ], [ 'last_error', 'is NULL' ] ]);
	is($answer->{page}, 13, 'in, like and is null') or diag failed($answer);
	$answer = $api->get('viewer', 'executions', select => [\'"quota_api"."executions"."status", COUNT("quota_api"."executions".*) AS "n"'],
		embed => 'WHERE true GROUP BY "quota_api"."executions"."status"');
	is_deeply($answer->{rows}, [ { status => 'pending', n => 60 } ], 'aggregates');
	$answer = $api->get('viewer', 'strategies', select => [ 'name', \'"quota_api"."strategies"."schedule_text"' ], where => [ [ 'type', '=', 'periodic' ] ], order => 'name');
	is(column($answer, 'schedule_text'), 'at 10:00 on Monday every day at 09:00', 'a computed field');
	foreach my $view (qw(users gateways models executions runs decisions balances deliveries workers))
	{
		is($api->get('viewer', $view, limit => 1)->{status}, 200, "$view can be listed");
	}
	is(failed($api->get('anonymous', 'strategies')), '401 42501 permission denied for schema quota_api ', 'not by anonymous');
	is($api->get('viewer', 'gateway_credentials')->{status}, 403, 'credentials not by viewers');
	$answer = $api->get('viewer', 'executions', select => [ 'id', 'create_time' ], limit => 1, settings => { timezone => 'Asia/Shanghai' });
	like($answer->{rows}[0]{create_time}, qr/\+08:00$/, 'in the time zone that is preferred');
};

subtest 'pages and counts' => sub {
	my $newest = $api->get('viewer', 'executions', select => [ 'id', 'user_id' ], order => '"quota_api"."executions"."id" DESC', limit => 5, offset => 0);
	is($newest->{page}, 5, 'the newest page');
	my $next = $api->get('viewer', 'executions', select => ['id'], where => [ [ 'id', '<', $newest->{rows}[4]{id} ] ], order => '"quota_api"."executions"."id" DESC', limit => 5);
	ok($next->{rows}[0]{id} < $newest->{rows}[4]{id} && $next->{page} == 5, 'the next one by id');
	$answer = $api->get('viewer', 'executions', select => ['id'], where => [ [ 'status', '=', 'pending' ] ], order => '"quota_api"."executions"."id" DESC', limit => 5, count => 'exact');
	is_deeply([ @{$answer}{qw(page total)} ], [ 5, 60 ], 'count exact');
	$answer = $api->get('viewer', 'executions', where => [ [ 'status', '=', 'pending' ] ], count => 'planned');
	ok(JSON::PP->new->decode($answer->{text})->[0]{Plan}{'Plan Rows'} > 0, 'count planned');
	$answer = $api->get('viewer', 'executions', where => [ [ 'status', '=', 'pending' ] ], count => 'exact', head => 1);
	is($answer->{total}, 60, 'HEAD counts');
	$answer = $api->get('viewer', 'executions', select => [ 'strategy_name', 'amount', 'status', 'scheduled_time' ], where => [ [ 'user_id', '=', 'user002' ] ],
		order => '"quota_api"."executions"."id" DESC', limit => 20);
	is(column($answer, 'strategy_name'), 'vip-once welcome', 'what one user got');
	is(column($answer, 'scheduled_time'), 'null null', 'a time that is none is null');
	$answer = $api->get('viewer', 'users', select => [ 'id', 'vip', 'org' ], order => 'id', limit => 2, format => 'csv');
	is($answer->{text}, "id,vip,org\nuser001,1,org1\nuser002,2,org0", 'csv');
};

subtest 'embedding' => sub {
	$answer = $api->get('viewer', 'executions', select => [ 'id', \'row_to_json("e_strategy".*)::jsonb AS "strategy"' ],
		embed => q{INNER JOIN LATERAL (SELECT "s1"."name", "s1"."type" FROM "quota_api"."strategy"("executions"::"quota_api"."executions") AS "s1"
			WHERE "s1"."name" = 'vip-once') AS "e_strategy" ON TRUE}, limit => 3);
	is_deeply($answer->{rows}[0]{strategy}, { name => 'vip-once', type => 'single' }, 'the strategy of an execution, as a filter too') or diag failed($answer);
	$answer = $api->get('viewer', 'executions', select => [ 'id', \'row_to_json("r".*)::jsonb AS "run"', \'row_to_json("u".*)::jsonb AS "user"' ],
		embed => q{LEFT JOIN LATERAL (SELECT "r1"."state", "r1"."granted" FROM "quota_api"."run"("executions"::"quota_api"."executions") AS "r1") AS "r" ON TRUE
			LEFT JOIN LATERAL (SELECT "u1"."id", "u1"."org" FROM "quota_api"."user"("executions"::"quota_api"."executions") AS "u1") AS "u" ON TRUE},
		where => [ [ 'user_id', '=', 'user003' ], [ 'strategy_name', '=', 'welcome' ] ]);
	is_deeply([ @{ $answer->{rows}[0] }{qw(run user)} ], [ { state => 'done', granted => 40 }, { id => 'user003', org => 'org1' } ], 'its run and its user');
	$answer = $api->get('viewer', 'runs', select => [ 'id', 'strategy_name', \'COALESCE("e"."e", \'[]\') AS "executions"' ],
		embed => q{LEFT JOIN LATERAL (SELECT json_agg("e")::jsonb AS "e" FROM (SELECT "e1"."id", "e1"."user_id" FROM "quota_api"."executions"("runs"::"quota_api"."runs") AS "e1"
			ORDER BY "e1"."id" DESC LIMIT 2) AS "e") AS "e" ON TRUE}, order => '"quota_api"."runs"."id"');
	is_deeply([ map { scalar @{ $_->{executions} } } @{ $answer->{rows} } ], [ 2, 2 ], 'executions of runs, so many of each');
	$answer = $api->get('viewer', 'users', select => [ 'id', \'COALESCE("e"."e", \'[]\') AS "executions"', \'COALESCE("b"."b", \'[]\') AS "balances"' ],
		embed => q{LEFT JOIN LATERAL (SELECT json_agg("e")::jsonb AS "e" FROM (SELECT "e1"."amount" FROM "quota_api"."executions"("users"::"quota_api"."users") AS "e1") AS "e") AS "e" ON TRUE
			LEFT JOIN LATERAL (SELECT json_agg("b")::jsonb AS "b" FROM (SELECT "b1"."gateway", "b1"."balance" FROM "quota_api"."balances"("users"::"quota_api"."users") AS "b1") AS "b") AS "b" ON TRUE},
		where => [ [ 'id', '=', 'user001' ] ]);
	is_deeply($answer->{rows}, [ { id => 'user001', executions => [ { amount => 50 } ], balances => [ { gateway => 'main', balance => 3.25 } ] } ], 'executions and balances of a user');
	$answer = $api->get('viewer', 'strategies', select => [ 'name', \'COALESCE("r"."r", \'[]\') AS "runs"' ],
		embed => q{LEFT JOIN LATERAL (SELECT json_agg("r")::jsonb AS "r" FROM (SELECT "r1"."count" FROM "quota_api"."runs"("strategies"::"quota_api"."strategies") AS "r1") AS "r") AS "r" ON TRUE},
		where => [ [ 'name', 'in', '{welcome,org-weekly}' ] ], order => 'name');
	is_deeply([ map { $_->{runs} } @{ $answer->{rows} } ], [ [ { count => 0 } ], [ { count => 1 } ] ], 'runs of strategies, counted');
};

subtest 'writing strategies' => sub {
	my %new = (name => 'cap-1', type => 'single', amount => 1, model => 'm', condition => 'is-vip(1)');

	$answer = $api->post('operator', 'strategies', \%new);
	is($answer->{status}, 201, 'one is made') or diag failed($answer);
	$answer = $api->post('operator', 'strategies', { %new, name => 'cap-2' }, returning => [ 'id', 'name', 'version' ], columns => undef);
	is($answer->{rows}[0]{version}, 1, 'and shown as it is then');
	$answer = $api->post('operator', 'strategies', [ { %new, name => 'cap-3', enabled => \0 }, { %new, name => 'cap-4' } ], columns => [ qw(name type amount model condition enabled title) ],
		default => 1, returning => '*');
	is(join(' ', map { $_->{enabled} ? 'on' : 'off' } @{ $answer->{rows} // [] }), 'off on', 'in bulk with differing keys, where what is missing is the default') or diag failed($answer);
	is($answer->{rows}[1]{title}, '', 'also of other columns');
	$answer = $api->post('operator', 'strategies', { %new, amount => 5 }, upsert => 'name', returning => [ 'id', 'name', 'amount', 'version' ]);
	is_deeply([ @{ $answer->{rows}[0] // {} }{qw(amount version)} ], [ 5, 2 ], 'an upsert by name edits') or diag failed($answer);
	$answer = $api->post('operator', 'strategies', { %new, name => 'cap-5' }, upsert => 'name', returning => ['version']);
	is(column($answer, 'version'), 1, 'or makes');
	$answer = $api->patch('operator', 'strategies', [ [ 'name', 'like', 'cap%' ] ], { enabled => \0 }, returning => [ 'id', 'enabled' ]);
	is($answer->{page}, 5, 'PATCH changes what the filter finds');
	$answer = $api->patch('operator', 'strategies', [ [ 'id', '=', 99999 ] ], { enabled => \0 }, returning => '*');
	is($answer->{page}, 0, 'or nothing');
	is($api->delete('admin', 'strategies', [ [ 'name', '=', 'cap-5' ] ])->{status}, 403, 'nobody deletes one');
	my $ids = [ map { $_->{id} } @{ $api->get('operator', 'strategies', where => [ [ 'name', 'in', '{cap-1,cap-2}' ] ], order => 'id')->{rows} } ];
	$answer = $api->rpc('operator', 'POST', 'enable', { ids => [ @$ids, 99999 ] });
	is_deeply([ map { [ map { ref $_ ? 0 + $_ : $_ } @{$_}{qw(id done status obstacle)} ] } @{ $answer->{rows} } ],
		[ (map { [ $_, 1, 'enabled', undef ] } @$ids), [ 99999, 0, undef, 'not found' ] ], 'enable says of each what became of it') or diag failed($answer);
	is(column($api->rpc('operator', 'POST', 'disable', { ids => $ids }), 'status'), 'disabled disabled', 'disable');
	is(column($api->rpc('operator', 'POST', 'archive', { ids => $ids }), 'status'), 'archived archived', 'archive');
	is(column($api->rpc('operator', 'POST', 'enable', { ids => $ids }), 'obstacle'), 'archived archived', 'what is archived is not enabled');

	# What a restore alone writes.
	foreach my $column (qw(id version schedule_since create_time update_time))
	{
		my %value = (id => 1000, version => 1, map { $_ => '2020-01-01' } qw(schedule_since create_time update_time));

		is($api->post('admin', 'strategies', { %new, name => 'forged', condition => 'is-vipp(1)', $column => $value{$column} })->{status}, 403, "$column is not inserted");
		is($api->patch('admin', 'strategies', [ [ 'name', '=', 'cap-3' ] ], { $column => $value{$column} })->{status}, 403, "nor $column updated");
	}
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_strategy WHERE name = 'forged'}), 0, 'nothing was forged');
};

subtest 'writing users' => sub {
	$answer = $api->post('operator', 'users', [ { id => 'cap1', vip => 1, org => 'o' }, { id => 'cap2', vip => 2 } ], columns => [qw(id vip org)], default => 1, returning => '*');
	is(column($answer, 'org'), 'o null', 'in bulk with differing keys') or diag failed($answer);
	$answer = $api->post('operator', 'users', [ { id => 'cap3', vip => '1', org => 'o' }, { id => 'cap4', vip => undef, org => 'o' } ]);
	is($answer->{status}, 201, 'from csv, which becomes texts');
	$answer = $api->post('operator', 'users', [ { id => 'cap1', vip => 3 }, { id => 'cap5', vip => 2 } ], upsert => 'id', returning => '*');
	is(column($answer, 'vip'), '3 2', 'an upsert by id') or diag failed($answer);
	is($answer->{rows}[0]{org}, 'o', 'leaves alone what it does not name');
	$answer = $api->post('operator', 'users', [ { id => 'cap1', vip => 9 }, { id => 'cap6', vip => 2 } ], ignore => 'id');
	is($answer->{page}, 1, 'duplicates are ignored');
	$answer = $api->post('operator', 'users', { id => 'cap7', name => 'x', vip => 1, org => undef }, put => 'id');
	is($answer->{page}, 1, 'PUT') or diag failed($answer);
	is(failed($api->patch('operator', 'users', [ [ 'id', '=', 'cap7' ] ], { id => 'cap8' })), "400 22023 the id of user \"cap7\" cannot be changed Grants, balances and the gateway know the user by it.",
		'a user keeps its id');
	is($api->delete('operator', 'users', [ [ 'id', 'like', 'cap%' ] ])->{status}, 403, 'operators delete none');
	$answer = $api->delete('admin', 'users', [ [ 'id', 'like', 'cap%' ] ], returning => '*');
	is($answer->{page}, 7, 'administrators do') or diag failed($answer);
};

subtest 'writing gateways' => sub {
	is($api->patch('operator', 'gateways', [ [ 'name', '=', 'main' ] ], { max_connections => 8 })->{status}, 403, 'not by operators');
	$answer = $api->patch('admin', 'gateways', [ [ 'name', '=', 'main' ] ], { max_connections => 8 }, returning => '*');
	is(column($answer, 'max_connections'), 8, 'by administrators') or diag failed($answer);
	ok(!exists $answer->{rows}[0]{credential}, 'where the key is does not show');
	$answer = $api->post('admin', 'gateways', [ { name => 'second', dialect => 'higress', base_url => 'http://second.example', doubt_policy => undef } ],
		columns => [qw(name dialect base_url max_connections)], default => 1, returning => '*');
	is(column($answer, 'max_connections'), 16, 'with the defaults of the table') or diag failed($answer);
	$answer = $api->post('admin', 'gateways', { name => 'second', dialect => 'higress', base_url => 'http://other.example' }, upsert => 'name', returning => '*');
	is(column($answer, 'base_url'), 'http://other.example', 'an upsert by name') or diag failed($answer);
	$answer = $api->patch('admin', 'gateway_credentials', [ [ 'name', '=', 'second' ] ], { credential => 'env:QUOTA_MANAGER_KEY' }, returning => '*');
	is(column($answer, 'credential'), 'env:QUOTA_MANAGER_KEY', 'where the key is') or diag failed($answer);
	is($api->post('admin', 'gateway_credentials', { name => 'third', credential => 'row:x' })->{status}, 403, 'makes no gateway');
	is($api->patch('admin', 'gateways', [ [ 'name', '=', 'second' ] ], { state => 'closed' })->{status}, 403, 'the state is not written');
	is($api->post('admin', 'models', [ { model => 'x', gateway => 'second' } ], upsert => 'model')->{status}, 201, 'models');
	is($api->delete('admin', 'models', [ [ 'model', '=', 'x' ] ], returning => '*')->{page}, 1, 'and away with them');
	is($api->delete('admin', 'gateways', [ [ 'name', '=', 'second' ] ])->{page}, 1, 'and with gateways');
};

subtest 'deciding' => sub {
	my @ids = map { $_->{id} } @{ $api->get('viewer', 'executions', select => ['id'], order => '"quota_api"."executions"."id"', limit => 4)->{rows} };

	$node->safe_psql('postgres', "UPDATE quota_manager.quota_execute SET status = 'in_doubt', next_attempt_time = 'infinity' WHERE id IN ($ids[0], $ids[1])");
	is_deeply([ map { $_->{awaits_decision} ? 1 : 0 } @{ $api->get('viewer', 'executions', where => [ [ 'id', 'in', "{$ids[0],$ids[2]}" ] ], order => '"quota_api"."executions"."id"')->{rows} } ],
		[ 1, 0 ], 'who waits for an operator');
	$answer = $api->rpc('operator', 'POST', 'resolve', { ids => [ $ids[0], $ids[2], 999999, $ids[0] ], applied => \1, note => 'seen' });
	is_deeply([ map { [ $_->{id}, $_->{done} ? 1 : 0, $_->{status}, $_->{obstacle} ] } @{ $answer->{rows} } ],
		[ [ $ids[0], 1, 'completed', undef ], [ $ids[2], 0, 'pending', 'pending' ], [ 999999, 0, undef, 'not found' ] ], 'resolve says of each what became of it') or diag failed($answer);
	is(column($api->rpc('operator', 'POST', 'resolve', { ids => [ $ids[1] ], applied => \0 }), 'status'), 'pending', 'not applied');
	is(column($api->rpc('operator', 'POST', 'cancel', { ids => [ $ids[3] ], note => "a\r\nb" }), 'status'), 'cancelled', 'cancel');
	is(column($api->rpc('operator', 'POST', 'retry', { ids => [ $ids[3] ] }), 'obstacle'), 'cancelled', 'retry');
	is_deeply($api->rpc('operator', 'POST', 'retry', { ids => [] })->{rows}, [], 'nothing of nothing');
	$answer = $api->get('viewer', 'decisions', order => '"quota_api"."decisions"."id"');
	is(column($answer, 'action'), 'resolve_applied resolve_not_applied cancel', 'what was decided is kept');
	is(column($answer, 'role'), 'operator operator operator', 'with the role');
	is(column($answer, 'session_role'), 'authenticator authenticator authenticator', 'that of the session');
	is(column($answer, 'said_by'), ('operator@example.org ' x 3) =~ s/ $//r, 'and the person');
	$answer = $api->get('viewer', 'executions', select => [\'COALESCE("d"."d", \'[]\') AS "decisions"'],
		embed => q{LEFT JOIN LATERAL (SELECT json_agg("d")::jsonb AS "d" FROM (SELECT "d1"."note" FROM "quota_api"."decisions"("executions"::"quota_api"."executions") AS "d1") AS "d") AS "d" ON TRUE},
		where => [ [ 'id', '=', $ids[0] ] ]);
	is_deeply($answer->{rows}, [ { decisions => [ { note => 'seen' } ] } ], 'decisions are embedded');
	foreach my $claims ('', 'no json', '[1]', '{"sub":null}', '{"sub":{"a":1}}', '"text"', '{"sub":"' . 'x' x 500 . '"}')
	{
		is($api->rpc('operator', 'POST', 'cancel', { ids => [ $ids[1] ], note => $claims }, raw_claims => $claims)->{status}, 200, 'claims that say nobody: ' . substr($claims, 0, 20));
	}
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_attribute a, quota_manager.grant_decision d WHERE a.attrelid = 'quota_manager.grant_decision'::regclass AND d::text ~ 'secret-token'}),
		0, 'headers are not kept');
};

subtest 'functions that only read' => sub {
	foreach my $method ('GET', 'POST')
	{
		is($api->rpc('viewer', $method, 'describe', { schedule => '0 8 * * *' })->{rows}, 'every day at 08:00', "$method describe");
		$answer = $api->rpc('viewer', $method, 'check_condition', { expression => 'is-vip(' });
		is_deeply([ $answer->{rows}{valid}, $answer->{rows}{position} ], [ JSON::PP::false, 8 ], "$method check_condition") or diag failed($answer);
		$answer = $api->rpc('viewer', $method, 'check_schedule', { expression => '0 9 * * 1', time_zone => 'Asia/Shanghai', n => 2 });
		is(scalar @{ $answer->{rows}{firings} // [] }, 2, "$method check_schedule") or diag failed($answer);
		ok(!$api->rpc('viewer', $method, 'check_schedule', { expression => '61 9 * * 1' })->{rows}{valid}, "$method check_schedule of one that is wrong");
		$answer = $api->rpc('viewer', $method, 'preview', { condition => 'is-vip(1)' }, select => [ 'id', 'vip' ], where => [ [ 'vip', '>=', 3 ] ], order => '"record"."id"', limit => 3);
		is(column($answer, 'id'), 'user003 user007 user011', "$method preview of a condition, filtered, ordered and paged") or diag failed($answer);
		is($api->rpc('viewer', $method, 'preview', { strategy => 'vip-daily' })->{page}, 30, "$method preview of a strategy");
		is($api->rpc('viewer', $method, 'preview', { strategy => 'welcome' })->{page}, 0, "$method preview of one that granted to all");
		$answer = $api->rpc('viewer', $method, 'forecast', {});
		is(column($answer, 'strategy_name'), 'welcome vip-once vip-daily org-weekly', "$method forecast") or diag failed($answer);
		is(column($answer, 'granted'), '0 0 30 20', "$method forecast: what would be granted");
		is(column($answer, 'already_granted'), '40 20 0 0', "$method forecast: what was already");
		$answer = $api->rpc('viewer', $method, 'preview_counts', { strategy => 'vip-daily' });
		is_deeply([ @{ $answer->{rows}[0] }{qw(reason users amount)} ], [ 'granted', 30, 300 ], "$method preview_counts") or diag failed($answer);
		$answer = $api->rpc('viewer', $method, 'preview_counts', { strategy => 'vip-daily', changes => $method eq 'GET' ? '{"condition": "is-vip(3)", "amount": 2}' : { condition => 'is-vip(3)', amount => 2 } });
		is_deeply([ @{ $answer->{rows}[0] }{qw(reason users amount)} ], [ 'granted', 10, 20 ], "$method preview_counts of an edit") or diag failed($answer);
		$answer = $api->rpc('viewer', $method, 'preview_users', { condition => 'is-vip(3)', after => 'user003', n => 2 });
		is(column($answer, 'user_id'), 'user007 user011', "$method preview_users") or diag failed($answer);
		$answer = $api->rpc('viewer', $method, 'forecast_firings', { strategy => 'vip-daily', n => 2 });
		is(column($answer, 'users'), '30 30', "$method forecast_firings") or diag failed($answer);
		$answer = $api->rpc('viewer', $method, 'explain', { strategy => 'vip-once', user_id => 'user001' });
		is(join(' ', map { $_->{holds} ? 'yes' : 'no' } @{ $answer->{rows} // [] }), 'yes yes yes yes yes no yes yes no', "$method explain") or diag failed($answer);
		$answer = $api->rpc('viewer', $method, 'explain_match', { condition => 'is-vip(2) and quota-le("m", 3)', user_id => 'user001' });
		is(column($answer, 'to_change'), '2 and 3 to hold vip to be at least 2 balance at most 3', "$method explain_match of a condition") or diag failed($answer);
		is(column($api->rpc('viewer', $method, 'explain_match', { strategy => 'vip-once', user_id => 'user002' }), 'result'), 'true', "$method explain_match of a strategy");
		is(column($api->rpc('viewer', $method, 'funnel', { condition => 'is-vip(2) and belong-to("org1")' }), 'holds'), '10 20 20', "$method funnel of a condition");
		is(column($api->rpc('viewer', $method, 'why', { strategy => 'vip-once', user_id => 'user002' }), 'kind'), 'grant delivery now now next', "$method why");
		is(column($api->rpc('viewer', $method, 'funnel', { strategy => 'vip-daily' }), 'fails'), '10', "$method funnel of a strategy");
		is($api->rpc('viewer', $method, 'upcoming', { strategy => 'vip-daily', n => 3 })->{page}, 3, "$method upcoming");
		$answer = $api->rpc('viewer', $method, 'lint', {});
		like(column($answer, 'severity'), qr/^(?:warning )+(?:notice ?)*$/, "$method lint") or diag failed($answer);
		is($api->rpc('viewer', $method, 'health', {})->{rows}{status}, 'ok', "$method health");
	}
};

$answer = $api->rpc('viewer', 'GET', 'metrics', {}, format => 'text/plain');
like($answer->{text} // '', qr/^quota_manager_\w+(?:\{gateway="main"\})? \d/m, 'figures for Prometheus') or diag failed($answer);

subtest 'what stands still, and what leaves no room, is said' => sub {
	$answer = $api->rpc('operator', 'POST', 'pause_all', {});
	is_deeply([ @{ $api->rpc('viewer', 'GET', 'health', {})->{rows} }{qw(status problems)} ], [ 'degraded', ['everything is paused'] ], 'health: everything is paused');
	$answer = $api->rpc('viewer', 'GET', 'preview_counts', { strategy => 'vip-daily' });
	like($answer->{rows}[0]{note}, qr/^nothing is granted, as everything is paused(?:;|$)/, 'preview_counts: without a note') or diag failed($answer);
	$api->rpc('operator', 'POST', 'pause_gateway', { gateway => 'main', note => 'x' });
	$api->rpc('operator', 'POST', 'pause_strategy', { strategy => 'org-weekly', note => 'x' });
	$api->rpc('operator', 'POST', 'unpause_all', {});
	is_deeply($api->rpc('viewer', 'GET', 'health', {})->{rows}{problems}, ['gateway "main" is paused'], 'a gateway; a strategy that an operator paused is like one that was disabled');
	$api->rpc('operator', 'POST', 'unpause_gateway', { gateway => 'main' });
	$node->safe_psql('postgres', q{INSERT INTO quota_manager.quota_pause (scope, strategy_id, cause, note) SELECT 'strategy', id, 'breaker', 'x' FROM quota_manager.quota_strategy WHERE name = 'vip-daily'});
	is_deeply($api->rpc('viewer', 'GET', 'health', {})->{rows}{problems}, ['the breaker stopped strategy "vip-daily"'], 'and what the breaker stopped');
	$api->rpc('operator', 'POST', "unpause_strategy", { strategy => $_ }) foreach 'vip-daily', 'org-weekly';
	is($api->rpc('viewer', 'GET', 'health', {})->{rows}{status}, 'ok', 'all goes on');

	$node->safe_psql('postgres', q{INSERT INTO quota_manager.balance_suspension (gateway, reason) VALUES ('main', 'all fell to 0')});
	is_deeply($api->rpc('viewer', 'GET', 'health', {})->{rows}{problems}, ['balances of gateway "main" are suspended'], 'balances that do not count');
	is_deeply($api->rpc('operator', 'POST', 'release_balances', { gateway => 'main', note => 'true zeros' })->{rows},
		[ { id => 'main', done => JSON::PP::true, status => 'counted', obstacle => undef } ], 'count again when they are released');
	is_deeply($api->rpc('operator', 'POST', 'release_balances', { gateway => 'main', note => 'true zeros' })->{rows},
		[ { id => 'main', done => JSON::PP::false, status => 'counted', obstacle => 'not suspended' } ], 'which is done once');
	is(failed($api->rpc('operator', 'POST', 'release_balances', { gateway => 'main', note => '' })), '400 22004 why the balances are released must be given ', 'and wants a reason');
	is(failed($api->rpc('operator', 'POST', 'release_balances', { gateway => 'nosuch', note => 'x' })), '404 42704 gateway "nosuch" does not exist ', 'of a gateway that there is');
	is($api->rpc('viewer', 'GET', 'health', {})->{rows}{status}, 'ok', 'all is well');
	# All of them are to be read again.
	$node->safe_psql('postgres', q{UPDATE quota_manager.user_balance SET balance = 3.25, read_time = clock_timestamp() WHERE user_id = 'user001'});

	# What explain says of a user with a balance of 3.25.
	my $explained = sub { my $rows = $api->rpc('viewer', 'GET', 'explain', { strategy => 'fill', user_id => $_[0] })->{rows}; return join '; ', map { $_->{answer} } @$rows[-2, -1] };
	$api->post('operator', 'strategies', { name => 'fill', type => 'single', amount => 3, allowance => 'top_up', model => 'm', condition => 'true()' });
	is($explained->('user001'), 'had 0 of any number; has a balance of 3.25 of 3; no, as things are', 'explain: the balance is there already');
	is($explained->('user002'), 'had 0 of any number; the balance is not known; no, as things are', 'or is not known');
	$api->patch('operator', 'strategies', [ [ 'name', '=', 'fill' ] ], { amount => 10 });
	is($explained->('user001'), 'had 0 of any number; has a balance of 3.25 of 10; yes, 6.75 of model "m"', 'what it lacks is granted');
	$api->post('admin', 'ceilings', { period => 'total', max_grants => 60 });
	is($explained->('user001'), 'had 0 of any number; has a balance of 3.25 of 10; 60 grants in total of all strategies, or refused: 0 left; no, as things are', 'unless a ceiling is reached');
	$node->safe_psql('postgres', 'DELETE FROM quota_manager.quota_ceiling');
	$api->post('admin', 'ceilings', { period => 'day', max_grants => 2 });
	like($explained->('user001'), qr/; 2 grants per day of all strategies, or refused: 0 left; no, as things are$/, 'per day, too');
	$api->post('operator', 'strategies', { name => 'yearly', type => 'periodic', periodic_expr => '0 0 1 1 *', amount => 3, model => 'm', condition => 'true()' });
	my $yearly = sub { my $rows = $api->rpc('viewer', 'GET', 'explain', { strategy => 'yearly', user_id => 'user001' })->{rows}; return join '; ', map { $_->{answer} } @$rows[-2, -1] };
	is($yearly->(), 'had 0 of any number; yes, 3 of model "m"', 'which leaves room on another day');
	foreach my $ceiling (
		[ { period => 'day', max_amount => 2.5, on_excess => 'cut' }, 'an amount of 2.5 per day of all strategies, then cut: an amount of 2.5 left' ],
		[ { period => 'run', max_grants => 0, on_excess => 'cut' }, '0 grants per run of any strategy, then cut: 0 left' ])
	{
		$node->safe_psql('postgres', 'DELETE FROM quota_manager.quota_ceiling');
		$api->post('admin', 'ceilings', $ceiling->[0]);
		is($yearly->(), "had 0 of any number; $ceiling->[1]; no, as things are", "but not for more than a ceiling allows at all: $ceiling->[0]{period}");
	}
	$node->safe_psql('postgres', q{DELETE FROM quota_manager.quota_ceiling; DELETE FROM quota_manager.quota_strategy WHERE name IN ('fill', 'yearly')});

	$node->safe_psql('postgres', q{INSERT INTO quota_manager.user_balance (user_id, gateway, balance, read_time) VALUES ('user002', 'main', 1, '-infinity')});
	$answer = $api->get('viewer', 'balances', where => [ [ 'user_id', '=', 'user002' ] ]);
	is_deeply([ @{ $answer->{rows}[0] }{qw(read_time counts)} ], [ undef, JSON::PP::false ], 'a balance that was never read has no time');
};

subtest 'lists of what is large cost what is asked of them' => sub {
	my $plan = $node->safe_psql('postgres', q{SET ROLE viewer; EXPLAIN SELECT id, what, note FROM quota_api.reversals ORDER BY id DESC LIMIT 5; EXPLAIN SELECT count(*) FROM quota_api.reversals});
	unlike($plan, qr/quota_execute|quota_reversal_item/, 'reversals: nothing is counted that is not shown');
	$plan = $node->safe_psql('postgres', q{SET ROLE viewer; SET enable_seqscan = off; EXPLAIN SELECT * FROM quota_api.reversals ORDER BY id DESC LIMIT 5});
	unlike($plan, qr/Sort|quota_execute/, 'and what is shown is, reversal by reversal');
	$node->safe_psql('postgres', q{INSERT INTO quota_manager.bulk_call (key, user_id, value, reason, gateway, state, role, said_by) SELECT 'k' || n % 2, 'user' || n, n, 'r', 'main',
		(ARRAY['applied', 'in_doubt', 'waiting'])[n % 3 + 1], 'role' || n % 5, CASE WHEN n % 2 = 0 THEN 'ann' END FROM generate_series(1, 600) n});
	$plan = $node->safe_psql('postgres', q{ANALYZE quota_manager.bulk_call; SET ROLE viewer; EXPLAIN SELECT * FROM quota_api.bulk_calls});
	like($plan, qr/\bHashAggregate\b[^\n]*\n *Group Key[^\n]*\n *->  Seq Scan on bulk_call/, 'bulk calls are counted without sorting their rows');
	$answer = $api->get('viewer', 'bulk_calls', where => [ [ 'key', '=', 'k1' ] ]);
	is_deeply([ @{ $answer->{rows}[0] }{qw(users total applied applied_total in_doubt waiting called_by)} ],
		[ 300, 90000, 100, 30000, 100, 100, 'role0, role1, role2, role3, role4' ], 'with the right figures') or diag failed($answer);
	like($node->safe_psql('postgres', q{SET ROLE viewer; EXPLAIN SELECT * FROM quota_api.bulk_call_rows WHERE key = 'k1' AND user_id > 'user3' ORDER BY user_id LIMIT 5}), qr/Index Scan using bulk_call_pkey/, 'their rows are paged by user');
	$node->safe_psql('postgres', q{SET quota_manager.delete_proof = on; DELETE FROM quota_manager.bulk_call});
};

subtest q{a user source of the site's is previewed and explained too} => sub {
	$node->safe_psql('postgres', q{
		CREATE TABLE public.member (id text PRIMARY KEY, vip integer, org text);
		INSERT INTO public.member VALUES ('m1', 1, 'o'), ('m2', 2, 'o');
		GRANT SELECT ON public.member TO viewer;
		SELECT quota_manager.set_user_source('public.member')});
	$answer = $api->rpc('viewer', 'GET', 'preview', { condition => 'is-vip(2)' });
	is(column($answer, 'id'), 'm2', 'users of the site by a condition') or diag failed($answer);
	is(column($api->rpc('viewer', 'GET', 'preview', { strategy => 'welcome' }), 'id'), 'm1 m2', 'and by a strategy');
	is($api->rpc('viewer', 'GET', 'preview', { condition => 'is-vip(2)' }, where => [ [ 'vip', '>', 5 ] ])->{page}, 0, 'filtered');
	is($api->rpc('operator', 'GET', 'preview', { condition => 'is-vip(2)' })->{status}, 403, 'by who may read them');
	is($api->rpc('viewer', 'GET', 'explain', { strategy => 'welcome', user_id => 'm1' })->{rows}[-1]{holds}, JSON::PP::true, 'and explained');
};

$node->stop;
done_testing();
