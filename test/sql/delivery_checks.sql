-- What gateways and grants must look like, checked where they are written.
\set SHOW_CONTEXT never

-- Amounts, per dialect.
SELECT amount, quota_internal.amount_fits('higress', amount) AS higress, quota_internal.amount_fits('zgsm', amount) AS zgsm
FROM (VALUES (1::numeric), (-5), (0), (20.000), (2.5), (0.000001), (0.0000001), (1.10000000), (9223372036854775807), (9223372036854775808),
	(-9223372036854775808), (9007199254740992), (9007199254740993), (9007199254.740992), (9007199254.740993), (1e30), ('NaN'), ('Infinity')) v(amount);
SELECT quota_internal.amount_fits('smtp', 1);
SELECT quota_internal.amount_fits(NULL, 1) IS NULL AS unknown;

-- Addresses.
SELECT url, quota_internal.check_base_url(url)
FROM (VALUES ('http://gateway.example'), ('https://gateway.example:8443/base/'), ('http://127.0.0.1:80'), ('http://[::1]:8080'),
	(''), ('gateway.example'), ('ftp://gateway.example'), ('file:///etc/passwd'), ('http://'), ('http://user:key@gateway.example'),
	('http://gateway.example/?a=b'), ('http://gateway.example/#a'), ('http://gateway.example:0'), ('http://gateway.example:99999'),
	('http://gateway example'), (E'http://gateway.example\nX: y')) v(url);
SET quota_manager.allowed_hosts = ' gateway.example ,10.0.0.1,[fd00::1], fd00::2';
SELECT url, quota_internal.check_base_url(url)
FROM (VALUES ('http://gateway.example'), ('http://GATEWAY.EXAMPLE:8080/x'), ('http://10.0.0.1'), ('http://[fd00::1]'), ('http://[fd00::2]:80'),
	('http://10.0.0.10'), ('http://0.0.0.1'), ('http://a.gateway.example'), ('http://gateway.example.org'), ('http://[fd00::3]')) v(url);
-- An entry that names a scheme or a port binds it; a scheme alone means its own port.
SET quota_manager.allowed_hosts = 'https://a.example, b.example:8080, HTTP://C.example:81, https://[fd00::1]:8443, [fd00::2]:80, d.example, d.example:1, http://d.example';
SELECT url, quota_internal.check_base_url(url)
FROM (VALUES ('https://a.example'), ('https://a.example:443/x'), ('http://a.example'), ('http://a.example:443'), ('https://a.example:8443'),
	('http://b.example:8080'), ('https://b.example:8080'), ('http://b.example'), ('http://b.example:80800'), ('http://c.example:81'), ('https://c.example:81'),
	('http://c.example'), ('https://[fd00:0:0::1]:8443'), ('https://[fd00::1]'), ('http://[fd00::2]'), ('http://[fd00::2]:8080'),
	('http://d.example:5'), ('https://d.example:6'), ('http://a.example.https'), ('http://b.example:8080.evil.example')) v(url);
-- What nobody could read is refused where it is set.
SET quota_manager.allowed_hosts = 'a.example, b.example:x';
SET quota_manager.allowed_hosts = 'a.example:0';
SET quota_manager.allowed_hosts = 'a.example:70000';
SET quota_manager.allowed_hosts = 'ftp://a.example';
SET quota_manager.allowed_hosts = 'https://';
SET quota_manager.allowed_hosts = 'https://a.example/';
SET quota_manager.allowed_hosts = 'user@a.example';
SET quota_manager.allowed_hosts = '*.example';
SET quota_manager.allowed_hosts = 'a.example b.example';
SET quota_manager.allowed_hosts = '[fd00::1';
SET quota_manager.allowed_hosts = '[fd00::1]8080';
-- What is near, or nowhere, and metadata services: only if the list names the address itself.
SET quota_manager.allowed_hosts = '';
SELECT url, quota_internal.check_base_url(url) IS NULL AS allowed
FROM (VALUES ('http://127.0.0.1'), ('http://10.0.0.1'), ('http://[::1]'), ('http://169.254.169.254'), ('http://0.0.0.0:8080'), ('http://[::]'),
	('http://[fe80::1]'), ('http://[::ffff:169.254.169.254]'), ('http://[fd00:ec2::254]'), ('http://224.0.0.1'), ('http://100.100.100.200')) v(url);
SELECT quota_internal.check_base_url('http://169.254.169.254');
SET quota_manager.allowed_hosts = '169.254.1.2, [FE80::1]:8080';
SELECT url, quota_internal.check_base_url(url) IS NULL AS allowed
FROM (VALUES ('http://169.254.1.2'), ('http://169.254.1.3'), ('http://[fe80:0::1]:8080'), ('http://[fe80::1]')) v(url);
SET quota_manager.allowed_hosts = ',';
SELECT quota_internal.check_base_url('http://gateway.example');
RESET quota_manager.allowed_hosts;

-- References to keys; the message does not repeat them.
SELECT reference, quota_internal.check_credential_reference(reference)
FROM (VALUES ('env:QUOTA_MANAGER_KEY'), ('file:gateway-1.key'), ('row:main'),
	('env:'), ('env:HOME'), ('env:QUOTA_MANAGER_'), ('env:QUOTA_MANAGER_A B'), ('file:'), ('file:.'), ('file:..'), ('file:.key'), ('file:a/b'),
	('file:../a'), (E'file:a\nb'), ('row:'), ('row:a b'), ('secret'), (''), ('ENV:QUOTA_MANAGER_KEY')) v(reference);
INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, credential) VALUES ('g', 'higress', 'http://gateway.example', 'sk-12345');

-- Settings.
SET quota_manager.claim_batch = 0;
SET quota_manager.max_attempts = 0;
SET quota_manager.credential_directory = 'keys';
SELECT name, setting, unit, context FROM pg_catalog.pg_settings
WHERE name IN ('quota_manager.claim_batch', 'quota_manager.retry_base', 'quota_manager.retry_max', 'quota_manager.max_attempts',
	'quota_manager.credential_directory', 'quota_manager.allowed_hosts') ORDER BY name;

-- Without gateways and grants.
CALL quota_manager.deliver();
SELECT * FROM quota_manager.delivery_status;
BEGIN;
CALL quota_manager.deliver();
ROLLBACK;
SELECT quota_manager.gateway_query('user');
SELECT quota_manager.gateway_query('user', 'g');

-- What goes into logs, rows and gateways is short, and none of it is repeated.
SELECT quota_manager.gateway_query(repeat('x', 2601));
SELECT quota_manager.resolve(1, true, repeat('x', 2601));
\set VERBOSITY sqlstate
SELECT quota_manager.gateway_query(repeat('x', 2600));
SELECT quota_manager.gateway_query(repeat('x', 2601));
SELECT quota_manager.gateway_query(repeat('é', 1301));
SELECT quota_manager.gateway_query('user', repeat('x', 2601));
SELECT quota_manager.gateway_refresh(repeat('x', 2601), 1);
SELECT quota_manager.gateway_refresh('user', 1, repeat('x', 10000000));
SELECT quota_manager.gateway_delta(repeat('x', 2601), 1, 'reason');
SELECT quota_manager.gateway_delta('user', 1, repeat('x', 10000000));
SELECT quota_manager.gateway_delta('user', 1, 'reason', repeat('x', 2601));
SELECT quota_manager.audit_balances(repeat('x', 2601));
SELECT quota_manager.resolve(1, true, repeat('x', 2601));
SELECT quota_manager.resolve(ARRAY[1, 2], false, repeat('x', 2601));
SELECT quota_manager.retry(1, repeat('x', 2601));
SELECT quota_manager.cancel(ARRAY[1], repeat('x', 2601));
SELECT quota_manager.release_balances('g', repeat('x', 2601));
SELECT quota_manager.release_balances(repeat('x', 2601), 'note');
-- Nothing is sent where nothing may be changed.
BEGIN READ ONLY;
SELECT quota_manager.gateway_delta('user', 1, 'reason');
ROLLBACK;
BEGIN READ ONLY;
SELECT quota_manager.gateway_refresh('user', 1);
ROLLBACK;
\set VERBOSITY default

-- Grants in doubt.
INSERT INTO quota_manager.quota_run (id, strategy_id, state, first_grant_id, last_grant_id, start_time, finish_time)
	VALUES (1, 1, 'done', 1, 4, now(), now());
INSERT INTO quota_manager.quota_execute (id, strategy_id, user_id, scheduled_time, run_id, strategy_version, amount, model, gateway, batch_number, status, last_error, claim_number)
	VALUES (1, 1, 'a', '-infinity', 1, 1, 5, 'm', 'g', '', 'in_doubt', 'time-out', 1), (2, 1, 'b', '-infinity', 1, 1, 5, 'm', 'g', '', 'in_doubt', 'time-out', 1),
		(3, 1, 'c', '-infinity', 1, 1, 5, 'm', 'g', '', 'completed', NULL, 1), (4, 1, 'd', '-infinity', NULL, 1, 5, 'm', 'g', '', 'in_doubt', 'time-out', 1);
CREATE ROLE regress_quota_operator SUPERUSER;
SET ROLE regress_quota_operator;
SELECT quota_manager.resolve(1, true);
SELECT quota_manager.resolve(2, false, 'not in their list');
RESET ROLE;
SELECT id, status, claim_number, last_error, next_attempt_time > '-infinity' AS due FROM quota_manager.quota_execute ORDER BY id;
SELECT id, undelivered FROM quota_manager.quota_run;
SELECT quota_manager.resolve(1, false);
SELECT quota_manager.resolve(3, true);
SELECT quota_manager.resolve(4, false);
SELECT quota_manager.resolve(5, true);
SELECT quota_manager.resolve(NULL::bigint, true);
SELECT quota_manager.resolve(2, NULL);
SELECT gateway, state, pending, processing FROM quota_manager.delivery_status;

-- A gateway with grants that are not settled stays.
INSERT INTO quota_manager.quota_gateway (name, dialect, base_url) VALUES ('g', 'higress', 'http://gateway.example');
SELECT gateway, state, pending, processing FROM quota_manager.delivery_status;
DELETE FROM quota_manager.quota_gateway WHERE name = 'g';

DELETE FROM quota_manager.quota_execute;
DELETE FROM quota_manager.quota_run;
DELETE FROM quota_manager.quota_gateway;
DROP ROLE regress_quota_operator;
