-- The schema that PostgREST exposes.  Everything in it becomes an endpoint; its helpers are in quota_internal.
-- The first line of each comment is its title on the page of OpenAPI, the rest its text.

CREATE SCHEMA quota_api;
COMMENT ON SCHEMA quota_api IS
'quota_manager
Strategies hand out quota to users of an AI gateway: which users (a condition), how much of which model, and when. The database decides, records each grant, and delivers it to the gateway.

Read strategies, users, executions (grants and their delivery), runs, decisions, balances, deliveries and workers. Change strategies and users; administrators also gateways and models. Everything else is done by POST to /rpc.

Errors have code (an SQLSTATE), message, details and hint.';

-- PostgREST reads the schema anew when this is committed.
NOTIFY pgrst, 'reload schema';
