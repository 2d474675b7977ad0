-- Sample data: 20 users and 7 strategies.  Load it with one line:
--
--   psql -v gateway_url=http://127.0.0.1:8080 -f examples/sample.sql
--
-- Variables: gateway_url, dialect (zgsm or higress), credential (such as env:QUOTA_MANAGER_KEY).
-- A default gateway that is there already is used as it is.

\set ON_ERROR_STOP on
\if :{?gateway_url}
\else
	\set gateway_url 'http://127.0.0.1:8080'
\endif
\if :{?dialect}
\else
	\set dialect zgsm
\endif
\if :{?credential}
\else
	\set credential ''
\endif

BEGIN;

INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, credential, is_default)
SELECT 'aigateway', :'dialect', :'gateway_url', nullif(:'credential', ''), true
WHERE NOT EXISTS (SELECT FROM quota_manager.quota_gateway WHERE is_default);

INSERT INTO quota_manager.user_info (id, name, github_username, github_star, vip, org, register_time, access_time) VALUES
	('user001', 'zhangsan', 'zhangsan', 'zgsm,openai/gpt-4,microsoft/vscode', 1, 'org001', '2023-01-01 00:00:00+00', now() - interval '2 hours'),
	('user002', 'lisi', 'lisi', 'zgsm,facebook/react', 2, 'org001', '2023-06-15 00:00:00+00', now() - interval '1 hour'),
	('user003', 'wangwu', 'wangwu', 'google/tensorflow,pytorch/pytorch', 0, 'org002', '2024-01-01 00:00:00+00', now() - interval '3 hours'),
	('user004', 'zhaoliu', 'zhaoliu', 'zgsm,kubernetes/kubernetes', 3, 'org002', '2022-12-01 00:00:00+00', now() - interval '30 minutes'),
	('user005', 'sunqi', 'sunqi', NULL, 0, NULL, '2024-05-01 00:00:00+00', now() - interval '24 hours');

-- Fifteen more.  The digest of a fixed seed and the number is the same on every version.
INSERT INTO quota_manager.user_info (id, name, github_star, vip, org, register_time, access_time)
SELECT 'user' || lpad(n::text, 3, '0'), 'sample user ' || n,
	nullif(concat_ws(',', CASE WHEN b[1] < 128 THEN 'zgsm' END, CASE WHEN b[2] < 128 THEN 'facebook/react' END,
		CASE WHEN b[3] < 64 THEN 'kubernetes/kubernetes' END), ''),
	b[4] % 4, 'org00' || (1 + b[5] % 3),
	timestamptz '2022-01-01 00:00:00+00' + b[6] * interval '4 days', now() - b[7] * interval '1 hour'
FROM generate_series(6, 20) n,
	LATERAL (SELECT array_agg(get_byte(digest, i) ORDER BY i) AS b
		FROM sha256(convert_to('quota_manager sample 1 ' || n, 'UTF8')) digest, generate_series(0, 7) i) bytes;

INSERT INTO quota_manager.quota_strategy (name, title, type, amount, model, periodic_expr, condition, state) VALUES
	('recharge-star-everyday', 'Daily recharge for those who starred zgsm', 'periodic', 5, 'claude-3-5-sonnet-latest', '0 8 * * *', 'github-star("zgsm")', 'active'),
	('recharge-star-once', 'Welcome gift for those who starred zgsm', 'single', 20, 'claude-3-5-sonnet-latest', NULL, 'github-star("zgsm")', 'active'),
	('vip-daily-bonus', 'Daily bonus for VIPs', 'periodic', 10, 'gpt-4', '0 9 * * *', 'is-vip(1)', 'active'),
	('new-user-welcome', 'Welcome to the users of the first years', 'single', 50, 'gpt-3.5-turbo', NULL, 'register-before("2024-06-01 00:00:00")', 'active'),
	('org-weekly-bonus', 'Weekly bonus for an organisation', 'periodic', 15, 'claude-3-5-sonnet-latest', '0 10 * * 1', 'belong-to("org001")', 'active'),
	('active-user-bonus', 'Bonus for active VIPs', 'single', 30, 'gpt-4', NULL, 'and(access-after("2024-05-01 00:00:00"), is-vip(2))', 'active'),
	('low-quota-refill', 'Refill when little is left', 'periodic', 25, 'gpt-3.5-turbo', '0 */6 * * *', 'quota-le("gpt-3.5-turbo", 10)', 'active');

COMMIT;
