/*
 * gateway_row.c
 *		A row of quota_gateway as a session needs it, key included.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "common/version.h"
#include "endpoint/credential.h"
#include "endpoint/gateway_row.h"
#include "endpoint/allowed_hosts.h"
#include "common/statement.h"

#define USER_AGENT "quota_manager/" QUOTA_MANAGER_VERSION

/* An answer about a quota has a few hundred bytes. */
#define MAX_REPLY_BYTES 65536

static Statement read_gateways = {
	"SELECT g.id, g.name, g.dialect, g.base_url, g.admin_path, g.key_header, g.route_model,"
	" ceil(extract(epoch FROM g.connect_timeout) * 1000)::int4,"
	" ceil(extract(epoch FROM g.request_timeout) * 1000)::int4,"
	" g.max_connections, g.state, g.update_time, g.is_default, g.credential,"
	" coalesce(g.rate_limit, 0), g.doubt_policy, coalesce(g.max_usage_rate, -1),"
	" g.doubt_policy_since"
	" FROM quota_manager.quota_gateway g ORDER BY g.id"};

static Statement see_gateway = {"SELECT 1 FROM quota_manager.quota_gateway g WHERE g.id = $1",
								{INT4OID}};

/* Reads the name of a dialect; false if there is none of that name. */
bool
gateway_dialect_read(const char *name, GatewayDialect *dialect)
{
	if (strcmp(name, "higress") == 0)
		*dialect = GATEWAY_HIGRESS;
	else if (strcmp(name, "zgsm") == 0)
		*dialect = GATEWAY_ZGSM;
	else
		return false;
	return true;
}

/* Reads the name of a policy; one that is not known is left to an operator. */
static DoubtPolicy
read_policy(char *name)
{
	DoubtPolicy policy = DOUBT_HOLD;

	if (strcmp(name, "resend") == 0)
		policy = DOUBT_RESEND;
	else if (strcmp(name, "reconcile") == 0)
		policy = DOUBT_RECONCILE;
	pfree(name);
	return policy;
}

/* Reads what row i of SPI_tuptable says, but not the key. */
static GatewayRow *
read_gateway(uint64 i)
{
	GatewayRow *row = palloc0(sizeof(GatewayRow));
	char       *dialect = result_text(i, 3);

	row->id = result_int32(i, 1);
	row->name = result_text(i, 2);
	if (!gateway_dialect_read(dialect, &row->dialect))
		row->problem = "its dialect is unknown";
	pfree(dialect);
	row->base_url = result_text(i, 4);
	row->admin_path = result_text(i, 5);
	row->key_header = result_text(i, 6);
	row->route_model = result_text(i, 7);
	row->connect_timeout_ms = result_int32(i, 8);
	row->request_timeout_ms = result_int32(i, 9);
	row->max_connections = result_int32(i, 10);
	row->state = result_text(i, 11);
	row->update_time = result_time(i, 12);
	row->is_default = result_bool(i, 13);
	row->rate_limit = result_double(i, 15);
	row->doubt_policy = read_policy(result_text(i, 16));
	row->max_usage_rate = result_double(i, 17);
	row->doubt_policy_since = result_time(i, 18);
	if (row->problem == NULL)
		row->problem = base_url_problem(row->base_url);
	return row;
}

/* Overwrites a key, when the memory that it is in is about to be freed. */
static void
wipe_key(void *key)
{
	explicit_bzero(key, strlen(key));
}

static void
wipe_with_memory(MemoryContext memory, char *key)
{
	MemoryContextCallback *callback = MemoryContextAlloc(memory, sizeof(MemoryContextCallback));

	callback->func = wipe_key;
	callback->arg = key;
	MemoryContextRegisterResetCallback(memory, callback);
}

/*
 * Reads all gateways in the order of their ids, with their keys, into memory:
 * a list of GatewayRow.  The keys are overwritten when the memory is freed.  SPI
 * must be connected.
 */
List *
gateway_rows_read(MemoryContext memory)
{
	MemoryContext  caller = MemoryContextSwitchTo(memory);
	List          *rows = NIL;
	uint64         count = statement_run(&read_gateways, NULL);
	SPITupleTable *table = SPI_tuptable;
	uint64         i;

	for (i = 0; i < count; i++)
	{
		GatewayRow *row;
		char       *reference;

		/* to fetch a key may run a statement, too */
		SPI_tuptable = table;
		row = read_gateway(i);
		reference = result_text(i, 14);
		if (reference != NULL && row->problem == NULL)
			row->secret = credential_fetch(reference, memory, &row->problem);
		if (row->secret != NULL)
			wipe_with_memory(memory, row->secret);
		if (reference != NULL)
			pfree(reference);
		rows = lappend(rows, row);
	}
	SPI_freetuptable(table);
	MemoryContextSwitchTo(caller);
	return rows;
}

/* True if the current user may see the row: a site may have policies. */
static bool
is_visible(const GatewayRow *row)
{
	bool found = statement_run_as_user(&see_gateway, ARGS(arg_int32(row->id))) > 0;

	SPI_freetuptable(SPI_tuptable);
	return found;
}

/*
 * The gateway of that name, or, without a name, the default one, among such a
 * list, and among those that the current user can see.  Raises an error if
 * there is none.
 */
GatewayRow *
gateway_row_choose(List *rows, const char *name)
{
	ListCell *cell;

	foreach (cell, rows)
	{
		GatewayRow *row = lfirst(cell);

		if ((name != NULL ? strcmp(row->name, name) == 0 : row->is_default) && is_visible(row))
			return row;
	}
	if (name != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("gateway \"%s\" does not exist", name),
				 errhint("See SELECT name FROM quota_manager.quota_gateway.")));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("there is no default gateway"),
			 errhint("Name the gateway, or make one the default in quota_manager.quota_gateway.")));
	return NULL;
}

static bool
same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* True if a session opened for one serves the other just as well. */
bool
gateway_row_same(const GatewayRow *a, const GatewayRow *b)
{
	return a->dialect == b->dialect && same_text(a->base_url, b->base_url) &&
		   same_text(a->admin_path, b->admin_path) && same_text(a->key_header, b->key_header) &&
		   same_text(a->route_model, b->route_model) &&
		   a->connect_timeout_ms == b->connect_timeout_ms &&
		   a->request_timeout_ms == b->request_timeout_ms &&
		   a->max_connections == b->max_connections && same_text(a->secret, b->secret) &&
		   same_text(a->problem, b->problem);
}

/*
 * Opens a session.  NULL: it cannot be used, and *problem, allocated in the
 * current memory context, says why.
 */
GatewaySession *
gateway_row_open(const GatewayRow *row, char **problem)
{
	GatewayConfig   config = {0};
	GatewaySession *session;
	char            error[256];

	if (row->problem != NULL)
	{
		*problem = pstrdup(row->problem);
		return NULL;
	}
	config.dialect = row->dialect;
	config.base_url = row->base_url;
	config.admin_path = row->admin_path;
	config.credential = row->secret;
	config.key_header = row->key_header;
	config.route_model = row->route_model;
	config.user_agent = USER_AGENT;
	config.connect_timeout_ms = row->connect_timeout_ms;
	config.request_timeout_ms = row->request_timeout_ms;
	config.max_connections = row->max_connections;
	config.max_reply_bytes = MAX_REPLY_BYTES;
	config.address_allowed = address_is_listed;
	session = gateway_open(&config, error, sizeof(error));
	if (session == NULL)
		*problem = pstrdup(error);
	return session;
}
