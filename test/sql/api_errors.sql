-- How errors of the API reach clients, and what its functions are made of.
\pset format unaligned
\pset tuples_only on
\pset null '~'
\set SHOW_CONTEXT never
\set VERBOSITY default
SET timezone = 'UTC';
SET client_min_messages = warning;

-- The status where PostgREST's own would be wrong.
SELECT code, quota_internal.http_status(code) FROM unnest(ARRAY['22P02', '22003', '22023', '23502', '23514', '42804', '42809', '42704', 'P0002', '55000', '55006', '23001', '23503', '23505',
	'08000', '08001', '08006', '08007', '53000', '53100', '53300', '54000', '55P03', '57014', '57P01', '25006', '25000', '42501', '42P01', '40001', '40P01', 'XX000', 'PGRST', '', NULL]) code;
-- As JSON in message and detail, whatever a text holds; what needs no mapping is not raised.
SELECT quota_internal.raise_http_error('55000', E'a "b" \\ c\r\nX-Header: d\t\u00e9', '', E'e\r\n\r\nf');
SELECT quota_internal.raise_http_error('53000', 'later', 'Nothing was applied. It asks to wait 30 s.', NULL);
SELECT quota_internal.raise_http_error('53000', 'later', E'wait 5\r\nX: y', NULL);
SELECT quota_internal.raise_http_error('53000', 'later', 'wait 1000000 s', NULL);
SELECT quota_internal.raise_http_error('53000', NULL, NULL, NULL);
SELECT quota_internal.raise_http_error('22P02', 'a', 'b', 'c') IS NOT NULL;

-- Who is said to act.
SELECT quota_internal.said_by();
SET request.jwt.claims = '';
SELECT quota_internal.said_by();
SET request.jwt.claims = '{"sub": "alice@example.org", "role": "x"}';
SELECT quota_internal.said_by();
SET request.jwt.claims = '{"sub": ""}';
SELECT quota_internal.said_by();
SET request.jwt.claims = '{"sub": 5}';
SELECT quota_internal.said_by();
SET request.jwt.claims = '[1]';
SELECT quota_internal.said_by();
SET request.jwt.claims = '"sub"';
SELECT quota_internal.said_by();
SET request.jwt.claims = 'sub';
SELECT quota_internal.said_by();
SET request.jwt.claims = '{"sub": "\u0000"}';
SELECT quota_internal.said_by();
SELECT set_config('request.jwt.claims', format('{"sub": "%s"}', repeat('é', 1000)), false) IS NOT NULL;
SELECT length(quota_internal.said_by());
RESET request.jwt.claims;
