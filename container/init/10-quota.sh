#!/bin/bash
# The extension, its roles, and the first gateway, in the database of a new volume.
set -eu
psql -X -q -v ON_ERROR_STOP=1 -d "$QUOTA_DATABASE" -v database="$QUOTA_DATABASE" -v password="${AUTHENTICATOR_PASSWORD:-}" \
	-v url="${QUOTA_GATEWAY_URL:-}" -v dialect="${QUOTA_GATEWAY_DIALECT:-higress}" <<'SQL'
CREATE EXTENSION quota_manager;
REVOKE CONNECT, TEMPORARY ON DATABASE :"database" FROM PUBLIC;

CREATE ROLE quota_viewer NOLOGIN;
CREATE ROLE quota_operator NOLOGIN;
CREATE ROLE quota_admin NOLOGIN;
CREATE ROLE quota_worker LOGIN;
SELECT quota_manager.grant_access('quota_viewer', 'viewer'), quota_manager.grant_access('quota_operator', 'operator'),
	quota_manager.grant_access('quota_admin', 'admin'), quota_manager.grant_access('quota_worker', 'worker') \g /dev/null
ALTER ROLE quota_viewer SET statement_timeout = '10s';
ALTER ROLE quota_operator SET statement_timeout = '60s';
ALTER ROLE quota_operator SET lock_timeout = '1s';
ALTER ROLE quota_admin SET statement_timeout = '60s';
ALTER ROLE quota_admin SET lock_timeout = '1s';

-- PostgREST's; without a password it cannot log in over TCP.
CREATE ROLE authenticator LOGIN NOINHERIT NOCREATEDB NOCREATEROLE CONNECTION LIMIT 40;
SELECT :'password' <> '' AS has_password, :'url' <> '' AS has_url \gset
\if :has_password
	ALTER ROLE authenticator PASSWORD :'password';
\endif
GRANT quota_viewer, quota_operator, quota_admin TO authenticator;
GRANT CONNECT ON DATABASE :"database" TO authenticator, quota_worker;

\if :has_url
	INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, credential, is_default)
	VALUES ('aigateway', :'dialect', :'url', 'file:gateway_key', true);
\endif
SQL
